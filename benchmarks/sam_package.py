"""Time SAM, compared with the package `pytorch_optimizer` (of the extra `bench`); both use torch's SGD.

Both start from the same weights and train on the same random batch. First the weights after 5 updates are compared;
then whole updates, of plain SGD too, are timed alternately. The package is used as documented, with batch-norm
statistics unchanged by the second pass, and again with all of its foreach operations.

    python benchmarks/sam_package.py --backbone timm/resnet18 --image-size 64 --batch-size 32 --rounds 9
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from harness import medians, option_parser, our_update, relative_distance, report
from pytorch_optimizer import SAM, disable_running_stats, enable_running_stats
from torch import Tensor
from torch.nn import functional as F

from fgvc_cli.benchmarking.combinations import BenchRequest, plan
from fgvc_cli.benchmarking.measuring import RandomClassifier
from fgvc_cli.config.run_config import RunConfig
from fgvc_cli.registry import get_registry

COMPARED = 5
"""Updates after which the weights are compared."""

TOLERANCE = 1e-3
"""Maximum relative distance of the weights in fp32; the order of summation differs."""


def package_update(
    classifier: RandomClassifier, config: RunConfig, images: Tensor, labels: Tensor, foreach: bool | None
) -> Callable[[], object]:
    """Return an update with the package's SAM."""
    model, sam = classifier.model.train(), config.optimizer.options
    sgd = config.optimizer.base.options
    head_lr = sgd.lr if sgd.head_lr is None else sgd.head_lr
    optimizer = SAM(
        [{"params": list(p.parameters()), "lr": lr} for p, lr in ((model.backbone, sgd.lr), (model.head, head_lr))],
        torch.optim.SGD,
        rho=sam.radius,
        adaptive=sam.adaptive,
        foreach=foreach,
        lr=sgd.lr,
        momentum=sgd.momentum,
        nesterov=sgd.nesterov,
        weight_decay=sgd.weight_decay,
    )

    def evaluate() -> Tensor:
        with classifier.autocast():
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        return loss

    def second_pass() -> Tensor:
        disable_running_stats(model)
        return evaluate()

    def update() -> None:
        enable_running_stats(model)
        optimizer.zero_grad()
        evaluate()
        optimizer.step(second_pass)

    return update


def main() -> None:
    """Check, measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--backbone", default="timm/resnet18")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--adaptive", action="store_true", help="ASAM")
    arguments = parser.parse_args()
    adaptive = ["optimizer.adaptive=true"] if arguments.adaptive else []
    request = BenchRequest(
        backbones=[arguments.backbone],
        heads=("linear",),
        optimizers=("sam",),
        image_size=arguments.image_size,
        batch_size=arguments.batch_size,
        settings=["train.clip_norm=0", "train.label_smoothing=0", *adaptive],
        device=arguments.device,
        precision=arguments.precision,
    )
    planned = plan(request, get_registry())
    of_optimizer = {c.optimizer: c.config for c in planned.combinations if c.config is not None}
    device, config = planned.device, of_optimizer["sam"]

    ours, theirs, foreach, sgd = (RandomClassifier(config, arguments.classes, device) for _ in range(4))
    ((images, labels),) = ours.batches(config, arguments.batch_size)
    variants = {
        "sgd": our_update(sgd, of_optimizer["sgd"], images, labels),
        "ours": our_update(ours, config, images, labels),
        "pytorch_optimizer": package_update(theirs, config, images, labels, None),
        "pytorch_optimizer, foreach": package_update(foreach, config, images, labels, True),
    }
    start = {name: parameter.detach().clone() for name, parameter in ours.model.named_parameters()}
    for update in variants.values():
        for _ in range(COMPARED):
            update()
    distance = max(relative_distance(ours.model, other.model, start) for other in (theirs, foreach))
    print(f"relative distance of the weights after {COMPARED} updates: {distance:.1e}")
    if ours.precision == "fp32" and distance > TOLERANCE:
        raise SystemExit("the weights differ: the two implementations are not equivalent")
    seconds = medians(variants, arguments.rounds, device)
    sizes = f"{arguments.image_size} px, batches of {arguments.batch_size}, {ours.precision}"
    print(f"{arguments.backbone}, {sizes}, {arguments.rounds} rounds")
    for name, median in seconds.items():
        print(f"{name:28} {1000 * median:8.1f} ms per update   ratio to sgd {median / seconds['sgd']:.3f}")
    report(arguments, device, {"precision": ours.precision, "seconds": seconds, "relative_distance": distance})


if __name__ == "__main__":
    main()
