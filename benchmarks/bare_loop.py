"""Time the updates of `fgvc bench`, compared with a bare PyTorch loop: each built-in backbone, linear head, SGD.

Both start from the same weights and train on the same random batch, in the same precision and memory format, with the
same label smoothing, clipping and learning rates; the bare loop is zero_grad, forward, backward and step. First the
weights of both are compared after a few updates; then both are timed alternately, backbone by backbone.

    python benchmarks/bare_loop.py --image-size 64 --batch-size 8 --rounds 9
    python benchmarks/bare_loop.py --device cuda --compile --updates 20
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from harness import medians, option_parser, our_update, relative_distance, report
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from fgvc_cli.benchmarking.combinations import BenchRequest, plan
from fgvc_cli.benchmarking.measuring import RandomClassifier, free_memory
from fgvc_cli.config.run_config import RunConfig
from fgvc_cli.registry import get_registry

COMPARED = 3
"""Updates after which the weights are compared."""


def bare_update(classifier: RandomClassifier, config: RunConfig, images: Tensor, batch: Tensor) -> Callable[[], object]:
    """Return an update of a plain script."""
    model, sgd = classifier.model.train(), config.optimizer.options
    head_lr = sgd.lr if sgd.head_lr is None else sgd.head_lr
    parts = [(model.backbone, sgd.lr), (model.head, head_lr)]
    optimizer = torch.optim.SGD(
        [{"params": list(part.parameters()), "lr": lr} for part, lr in parts],
        momentum=sgd.momentum,
        nesterov=sgd.nesterov,
        weight_decay=sgd.weight_decay,
        fused=True,
    )

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        with classifier.autocast():
            loss = F.cross_entropy(model(images), batch)
        loss.backward()
        if config.train.clip_norm:
            clip_grad_norm_(model.parameters(), config.train.clip_norm)
        optimizer.step()

    return update


def several(update: Callable[[], object], updates: int) -> None:
    """Run a number of updates."""
    for _ in range(updates):
        update()


def measure(config: RunConfig, classes: int, device: torch.device, updates: int, rounds: int) -> dict[str, Any]:
    """Measure one backbone, print a line and return the results."""
    classifiers = {name: RandomClassifier(config, classes, device) for name in ("bare loop", "ours")}
    makers = {"bare loop": bare_update, "ours": our_update}
    images, batch = classifiers["ours"].batches(config, config.train.batch_size)[0]
    made = {name: makers[name](classifier, config, images, batch) for name, classifier in classifiers.items()}
    ours, bare = classifiers["ours"].model, classifiers["bare loop"].model
    start = {name: parameter.detach().clone() for name, parameter in ours.named_parameters()}
    for update in made.values():
        torch.manual_seed(1)  # same dropout
        several(update, COMPARED)
    distance = relative_distance(ours, bare, start)

    seconds = medians({name: partial(several, update, updates) for name, update in made.items()}, rounds, device)
    rates = {name: updates * config.train.batch_size / median for name, median in seconds.items()}
    ratio = rates["ours"] / rates["bare loop"]
    print(
        f"{config.backbone.component.name:16} bare loop {rates['bare loop']:9.1f}, ours {rates['ours']:9.1f} images/s: "
        f"{ratio:.3f}   relative distance of the weights after {COMPARED} updates {distance:.1e}"
    )
    return {"images_per_second": rates, "ratio": ratio, "relative_distance": distance}


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--backbone", action="append", default=[], help="can be given several times; default: all")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--channels-last", default="auto", choices=["auto", "on", "off"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--updates", type=int, default=1, help="updates per round; each round ends with a wait for the device"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--set", action="append", default=[], metavar="kind.option=value", dest="settings")
    arguments = parser.parse_args()
    request = BenchRequest(
        backbones=arguments.backbone,
        heads=("linear",),
        optimizers=("sgd",),
        image_size=arguments.image_size,
        batch_size=arguments.batch_size,
        settings=arguments.settings,
        device=arguments.device,
        precision=arguments.precision,
        channels_last=arguments.channels_last,
        compile=arguments.compile,
    )
    planned = plan(request, get_registry())
    device, figures = planned.device, {}
    torch.backends.cudnn.benchmark = True
    for combination in planned.combinations:
        config = combination.config
        if config is None:
            print(f"{combination.backbone}: {combination.failed}")
            continue
        if not figures:
            print(f"{config.train.image_size} px, batches of {config.train.batch_size}, {arguments.rounds} rounds")
        figures[combination.backbone] = measure(config, arguments.classes, device, arguments.updates, arguments.rounds)
        free_memory(device)
    report(arguments, device, figures)


if __name__ == "__main__":
    main()
