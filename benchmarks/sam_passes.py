"""Time updates with SAM, compared with SGD: one network and one batch, alternately in one process.

Two evaluations per step take at least twice the time; perturbing the weights and saving batch-norm statistics add to
it.

    python benchmarks/sam_passes.py --backbone timm/resnet18 --image-size 64 --batch-size 32 --rounds 15
"""

from __future__ import annotations

import torch
from harness import CLASSES, medians, option_parser, report

from fgvc_cli.config.run_config import RunConfig, resolve, user_settings
from fgvc_cli.contracts import Classifier, Preprocessing
from fgvc_cli.devices import autocast, pick_device, resolve_precision
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.model_file import build_backbone, build_head
from fgvc_cli.training.setup import build_optimizer
from fgvc_cli.training.update import Update


def make_update(config: RunConfig, device: torch.device, precision: str) -> Update:
    """Build the classifier and its optimizer with random weights."""
    torch.manual_seed(0)
    size = config.train.image_size
    backbone = build_backbone(config.backbone.component, config.backbone.options, size)
    head = build_head(config.head.component, config.head.options, backbone, CLASSES)
    preprocessing = Preprocessing(size, size, backbone.info.mean, backbone.info.std)
    classifier = Classifier(backbone, head, [str(k) for k in range(CLASSES)], preprocessing).to(device).train()
    optimizer = build_optimizer(config.optimizer, classifier)
    return Update(classifier, head, optimizer, lambda: autocast(device, precision))


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--backbone", default="timm/resnet18")
    parser.add_argument("--head", default="linear")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[], metavar="kind.option=value", dest="settings")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    precision = resolve_precision("auto", device)
    updates = {}
    for optimizer in ("sgd", "sam"):
        names = {"backbone": arguments.backbone, "head": arguments.head, "optimizer": optimizer}
        options = {kind: {"name": name} for kind, name in names.items()} | {
            "train": {"image_size": arguments.image_size}
        }
        layers, _ = user_settings(None, options, arguments.settings)
        config = resolve(layers, "scratch", {"device": device.type, "weights": "none"}, get_registry())
        updates[config.optimizer.title] = make_update(config, device, precision)
    images = torch.randn(arguments.batch_size, 3, arguments.image_size, arguments.image_size, device=device)
    targets = torch.arange(arguments.batch_size, device=device) % CLASSES
    seconds = medians(
        {name: lambda update=update: update([(images, targets)]) for name, update in updates.items()},
        arguments.rounds,
        device,
    )
    sizes = f"{arguments.image_size} px, batches of {arguments.batch_size}"
    print(f"{arguments.backbone} + {arguments.head}, {sizes}, {precision}, {device}, {arguments.rounds} rounds")
    for name, median in seconds.items():
        print(f"{name:16} {1000 * median:8.1f} ms per update   ratio to sgd {median / seconds['sgd']:.3f}")
    ratios = {name: median / seconds["sgd"] for name, median in seconds.items()}
    report(arguments, device, {"precision": precision, "seconds": seconds, "ratios_to_sgd": ratios})


if __name__ == "__main__":
    main()
