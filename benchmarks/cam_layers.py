"""Measure at which layer Grad-CAM points at what decides: small networks that have to look into a box.

Each image is noise with three boxes of 7.2 % of the image. One has a single color, which is the class; the points of
the others have random ones of the same four colors. Networks of several kinds are trained from scratch on generated
images, with several seeds, until they are right. Then, for each candidate layer, over the images that are
classified correctly:

    in the box      fraction of images whose maximum of the map lies in the box; 7.2 % by chance
    within          fraction of the sum of the map that lies in the box
    empty           number of images with a map of zeros

    OMP_NUM_THREADS=1 python benchmarks/cam_layers.py --seeds 3
    OMP_NUM_THREADS=1 python benchmarks/cam_layers.py --kinds swin --steps 1000
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from harness import make_classifier, option_parser, report
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.convnext import ConvNeXt
from timm.models.resnet import BasicBlock, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from fgvc_cli.contracts import Classifier
from fgvc_cli.devices import pick_device
from fgvc_cli.explaining.explainers import make_explainer
from fgvc_cli.registry import get_registry

CLASSES = 4
"""Colors of the box."""
BOX = 0.268
"""Side of a box, as a fraction of the image side: 7.2 % of the area."""
BATCH = 32


@dataclass(frozen=True)
class Kind:
    """A kind of network.

    Attributes:
        model: timm's name.
        layers: candidates besides the default, "".
    """

    model: str
    layers: tuple[str, ...]


KINDS = {
    "swin": Kind(
        "toy_swin",
        (
            "layers.1.blocks.1.norm1", "layers.1.blocks.1.norm2", "layers.1.blocks.0", "layers.1.blocks.0.norm1",
            "layers.1.downsample", "layers.0",
        ),
    ),
    "vit": Kind("toy_vit", ("blocks.3.norm2", "blocks.2", "blocks.2.norm1", "blocks.1")),
    "vit, averaged": Kind("toy_vit_gap", ("blocks.3.norm1", "blocks.3.norm2", "blocks.2", "blocks.1")),
    "resnet": Kind("toy_resnet", ("layer4.0.conv2", "layer3", "layer2")),
    "convnext": Kind("toy_convnext", ("stages.3.blocks.0.conv_dw", "stages.3.blocks.0.norm", "stages.2", "stages.1")),
}  # fmt: skip

SIZE = 48
_CFG = {"input_size": (3, SIZE, SIZE), "num_classes": 1000}
_HEADS = {
    "toy_swin": "head.fc",
    "toy_vit": "head",
    "toy_vit_gap": "head",
    "toy_resnet": "fc",
    "toy_convnext": "head.fc",
}
_PATCHES = {"fixed_input_size": True, "first_conv": "patch_embed.proj"}
default_cfgs = generate_default_cfgs(
    {
        f"{name}.none": {**_CFG, "classifier": head, **({} if name in ("toy_resnet", "toy_convnext") else _PATCHES)}
        for name, head in _HEADS.items()
    }
)


@register_model
def toy_swin(pretrained: bool = False, **kwargs: Any) -> SwinTransformer:
    """Two stages of two blocks on grids of 12 and 6; the last one's window is the grid, as in Swin-T at 224 px."""
    shape = {
        "img_size": SIZE,
        "patch_size": 4,
        "window_size": 6,
        "embed_dim": 32,
        "depths": (2, 2),
        "num_heads": (2, 4),
    }
    arguments: dict[str, Any] = {**shape, "drop_path_rate": 0.0, **kwargs}
    features = {"out_indices": (0, 1), "flatten_sequential": True}
    return build_model_with_cfg(SwinTransformer, "toy_swin", pretrained, feature_cfg=features, **arguments)


_VIT: dict[str, Any] = {"img_size": SIZE, "patch_size": 6, "embed_dim": 48, "depth": 4, "num_heads": 3}


@register_model
def toy_vit(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Four blocks on a grid of 8, with a class token."""
    return build_model_with_cfg(VisionTransformer, "toy_vit", pretrained, **{**_VIT, **kwargs})


@register_model
def toy_vit_gap(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """The same without a class token: tokens are averaged."""
    averaged = {"class_token": False, "global_pool": "avg"}
    return build_model_with_cfg(VisionTransformer, "toy_vit_gap", pretrained, **{**_VIT, **averaged, **kwargs})


@register_model
def toy_resnet(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """Four stages of a block on grids of 12, 6, 6 and 6."""
    arguments: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (16, 24, 32, 48), "stem_width": 16, **kwargs}
    return build_model_with_cfg(ResNet, "toy_resnet", pretrained, block=BasicBlock, output_stride=8, **arguments)


@register_model
def toy_convnext(pretrained: bool = False, **kwargs: Any) -> ConvNeXt:
    """Four stages of a block on grids of 12, 6, 6 and 6."""
    arguments: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 48), "output_stride": 8, **kwargs}
    features = {"out_indices": (0, 1, 2, 3), "flatten_sequential": True}
    return build_model_with_cfg(ConvNeXt, "toy_convnext", pretrained, feature_cfg=features, **arguments)


def make_batch(count: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return images B,3,S,S, the class B and the box B,S,S (bool) that decides it."""
    side = round(BOX * size)
    images = 0.3 * torch.randn(count, 3, size, size, generator=generator)
    boxes = torch.zeros(count, size, size, dtype=torch.bool)
    classes = torch.randint(0, CLASSES, (count,), generator=generator)
    colors = torch.tensor([(1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0), (0, 0, 0)])
    colors = 2 * (colors - colors.mean(dim=0))
    for image, box, label in zip(images, boxes, classes.tolist(), strict=True):
        for number in range(3):  # the last one is on top
            top, left = torch.randint(0, size - side + 1, (2,), generator=generator).tolist()
            here = (slice(top, top + side), slice(left, left + side))
            mixed = torch.randint(0, CLASSES, (side, side), generator=generator)
            image[:, *here] += colors[torch.full_like(mixed, label) if number == 2 else mixed].permute(2, 0, 1)
        box[here] = True
    return images, classes, boxes


def train(kind: Kind, seed: int, steps: int, device: torch.device) -> Classifier:
    """Train a network from scratch until its last 10 batches are right, or for a number of steps."""
    classifier = make_classifier(f"timm/{kind.model}", "linear", SIZE, device, seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    recent: list[float] = []
    for _ in range(steps):
        images, classes, _ = make_batch(BATCH, SIZE, generator)
        classes = classes.to(device)
        scores = classifier(images.to(device))
        loss = F.cross_entropy(scores, classes)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent = [*recent[-9:], float((scores.argmax(1) == classes).float().mean())]
        if len(recent) == 10 and min(recent) == 1:
            break
    return classifier.eval()


def measure(classifier: Classifier, layers: Sequence[str], images: int) -> dict[str, Any]:
    """Return accuracy and, by layer, the figures of the maps."""
    pixels, classes, boxes = (
        t.to(classifier.device) for t in make_batch(images, SIZE, torch.Generator().manual_seed(7))
    )
    with torch.no_grad():
        right = classifier.scores(pixels).argmax(1) == classes
    pixels, classes, boxes = pixels[right], classes[right], boxes[right]
    found: dict[str, Any] = {"accuracy": float(right.float().mean()), "layers": {}}
    for layer in layers:
        explainer = make_explainer("gradcam", {"layer": layer, "least_side": 1}, get_registry())
        maps = explainer.explain(classifier, pixels, classes)
        filled = maps.flatten(1).any(dim=1)
        highest = maps.flatten(1).argmax(dim=1, keepdim=True)
        hits = boxes.flatten(1).gather(1, highest).squeeze(1) & filled
        within = (maps * boxes).sum((1, 2)) / maps.sum((1, 2)).clamp_min(1e-9)
        found["layers"][layer or "default"] = {
            "in the box": float(hits.float().mean()),
            "within": float(within[filled].mean()) if filled.any() else 0.0,
            "empty": int((~filled).sum()),
        }
    return found


def main() -> None:
    """Train, measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500, help="at most")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    figures: dict[str, list[dict[str, Any]]] = {}
    for name in arguments.kinds:
        kind = KINDS[name]
        for seed in range(arguments.seeds):
            start = time.perf_counter()
            classifier = train(kind, seed, arguments.steps, device)
            measured = measure(classifier, ("", *kind.layers), arguments.images)
            figures.setdefault(name, []).append(measured)
            seconds = time.perf_counter() - start
            print(f"{name}, seed {seed}: accuracy {100 * measured['accuracy']:.1f} %, {seconds:.0f} s", flush=True)
            for layer, row in measured["layers"].items():
                shares = f"in the box {100 * row['in the box']:5.1f} %   within {100 * row['within']:5.1f} %"
                print(f"  {layer:28} {shares}   empty {row['empty']}", flush=True)
    report(arguments, device, figures)


if __name__ == "__main__":
    main()
