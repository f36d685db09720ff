"""Measure which saliency maps point at what decides: small networks that have to look into a box.

Each image is noise with three boxes of 7.2 % of the image. One has a single color, which is the class; the points of
the others have random ones of the same four colors. Networks of several kinds are trained from scratch on generated
images, with several seeds, until they are right. Then, for each explainer, and for Grad-CAM at each candidate layer,
over the images that are classified correctly:

    pointing    fraction of maps whose maximum lies in the box; 7.2 % by chance
    within      fraction of the sum of the map that lies in the box
    deletion    area under the curve of the class's probability, while the most salient pixels become the mean color
    insertion   the same while they are restored in the blurred image
    empty       fraction of maps that are zero everywhere; they count as a miss

`random` is a map as coarse as the network's. The table gives the mean over the seeds and the standard deviation between
them.

    OMP_NUM_THREADS=1 python benchmarks/pointing_game.py --json FILE
    OMP_NUM_THREADS=1 python benchmarks/pointing_game.py --networks swin --seeds 5
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from harness import option_parser, report
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.convnext import ConvNeXt
from timm.models.resnet import BasicBlock, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from fgvc_cli.contracts import Classifier, Optimizer, ParameterGroup, Preprocessing
from fgvc_cli.devices import autocast, pick_device
from fgvc_cli.errors import UsageError
from fgvc_cli.explaining.explainers import NamedExplainer, make_explainer
from fgvc_cli.explaining.faithfulness import CurveEnds, deletion_auc, insertion_auc, pointing_hits
from fgvc_cli.explaining.masking import saliency_order
from fgvc_cli.options import build
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.model_file import build_backbone, build_head
from fgvc_cli.training.update import Update

CLASSES = ("red", "green", "blue", "black")
"""Colors of the box."""
BOX = 0.268
"""Side of a box, as a fraction of the image side: 7.2 % of the area."""
SIZE = 48
BATCH = 32
EXPLAINERS = (
    "gradcam", "gradcam++", "layercam", "finer-cam", "eigencam", "rollout", "legrad", "native", "sliding_window",
)  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A kind of network.

    Attributes:
        model: timm's name of the backbone.
        layers: candidates for Grad-CAM besides the default one.
        head: name of the head.
        options: of the head, which make it small.
        grid: side of the map that the score is computed from.
    """

    model: str
    layers: tuple[str, ...] = ()
    head: str = "linear"
    options: Mapping[str, Any] = field(default_factory=dict)
    grid: int = 6


PIM = {"fpn_size": 32, "num_selects": 4, "joints_divisor": 4}
CMAL = {"expert_width": 32, "map_channels": 48, "hidden_width": 32}
NETWORKS = {
    "resnet": Network("toy_resnet", ("layer4.0.conv2", "layer3", "layer2")),
    "convnext": Network("toy_convnext", ("stages.3.blocks.0.conv_dw", "stages.3.blocks.0.norm", "stages.2")),
    "swin": Network(
        "toy_swin", ("norm", "layers.1.blocks.1.norm2", "layers.1.blocks.1.norm1", "layers.1.blocks.0", "layers.0")
    ),
    "vit": Network("toy_vit", ("blocks.3.norm2", "blocks.2", "blocks.2.norm2", "blocks.2.norm1", "blocks.1"), grid=8),
    "vit, registers": Network("toy_vit_reg", ("blocks.2", "blocks.2.norm2", "blocks.1"), grid=8),
    "vit, averaged": Network(
        "toy_vit_gap", ("norm", "blocks.3", "blocks.3.norm2", "blocks.3.norm1", "blocks.2", "blocks.1"), grid=8
    ),
    "resnet, pim": Network("toy_resnet", head="pim", options=PIM),
    "swin, pim": Network("toy_swin", head="pim", options=PIM),
    "resnet, cmal": Network("toy_resnet", head="cmal", options=CMAL),
}

_CFG = {"input_size": (3, SIZE, SIZE), "num_classes": 1000}
_HEADS = {
    "toy_swin": "head.fc",
    "toy_vit": "head",
    "toy_vit_reg": "head",
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
def toy_vit_reg(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """The same with four registers."""
    return build_model_with_cfg(VisionTransformer, "toy_vit_reg", pretrained, **{**_VIT, "reg_tokens": 4, **kwargs})


@register_model
def toy_vit_gap(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Without a class token: tokens are averaged."""
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


def make_batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return images uint8 B,3,S,S, the class B and the box bool B,S,S that decides it."""
    side = round(BOX * SIZE)
    images = 0.3 * torch.randn(count, 3, SIZE, SIZE, generator=generator)
    boxes = torch.zeros(count, SIZE, SIZE, dtype=torch.bool)
    classes = torch.randint(0, len(CLASSES), (count,), generator=generator)
    colors = torch.tensor([(1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0), (0, 0, 0)])
    colors = 2 * (colors - colors.mean(dim=0))
    for image, box, label in zip(images, boxes, classes.tolist(), strict=True):
        for number in range(3):  # the last one is on top
            top, left = torch.randint(0, SIZE - side + 1, (2,), generator=generator).tolist()
            here = (slice(top, top + side), slice(left, left + side))
            mixed = torch.randint(0, len(CLASSES), (side, side), generator=generator)
            image[:, *here] += colors[torch.full_like(mixed, label) if number == 2 else mixed].permute(2, 0, 1)
        box[here] = True
    return (128 + 48 * images).clamp(0, 255).to(torch.uint8), classes, boxes


def build_classifier(network: Network, device: torch.device) -> Classifier:
    """Return a classifier with random weights, in training mode."""
    registry = get_registry()
    body, top = registry.find("backbone", f"timm/{network.model}"), registry.find("head", network.head)
    backbone = build_backbone(body, body.options_type()(), SIZE)
    head = build_head(top, build(top.options_type(), network.options, "head"), backbone, len(CLASSES))
    preprocessing = Preprocessing(SIZE, SIZE, backbone.info.mean, backbone.info.std)
    return Classifier(backbone, head, CLASSES, preprocessing).to(device).train()


def train(network: Network, seed: int, steps: int, device: torch.device) -> Classifier:
    """Train a network from scratch until its last 10 batches are right, or for a number of steps."""
    torch.manual_seed(seed)
    classifier = build_classifier(network, device)
    generator = torch.Generator().manual_seed(1000 + seed)
    adamw = get_registry().find("optimizer", "adamw")
    groups = [
        ParameterGroup("backbone", dict(classifier.backbone.named_parameters())),
        ParameterGroup("head", dict(classifier.head.named_parameters())),
    ]
    options = build(adamw.options_type(), {"lr": 2e-3, "weight_decay": 0.02}, "optimizer")
    optimizer: Optimizer = adamw.make(groups=groups, options=options)
    update = Update(classifier, classifier.head, optimizer, lambda: autocast(device, "fp32"), clip_norm=1.0)
    recent: list[float] = []
    for step in range(steps):
        optimizer.set_rate(min(1.0, (step + 1) / (0.1 * steps), (steps - step) / (0.5 * steps)))
        pixels, classes, _ = (t.to(device) for t in make_batch(BATCH, generator))
        done = update([(classifier.normalize(pixels), classes)])
        scores = next(each.losses[0].scores for each in reversed(done) if each.losses[0].scores is not None)
        recent = [*recent[-9:], float((scores.argmax(1) == classes).float().mean())]
        if len(recent) == 10 and min(recent) == 1:
            break
    return classifier.eval()


def explainers_of(network: Network, classifier: Classifier) -> Iterator[tuple[str, NamedExplainer]]:
    """Yield the explainers that can explain a classifier, and Grad-CAM at the candidate layers."""
    registry = get_registry()
    found = [(name, name, {}) for name in EXPLAINERS]
    found += [(f"gradcam at {layer}", "gradcam", {"layer": layer}) for layer in network.layers]
    found += [("random", "random", {"grid": network.grid})]
    for title, name, options in found:
        explainer = make_explainer(name, options, registry)
        try:
            explainer.check(classifier)
        except UsageError:
            continue
        yield title, explainer


def measure(network: Network, classifier: Classifier, images: int, steps: int) -> dict[str, Any]:
    """Return the accuracy and, by explainer, the figures of its maps."""
    batch = make_batch(images, torch.Generator().manual_seed(7))
    pixels, classes, boxes = (t.to(classifier.device) for t in batch)
    found = classifier.probabilities(pixels)
    right = found.argmax(1) == classes
    pixels, classes, boxes = pixels[right], classes[right], boxes[right]

    def probability(changed: Tensor) -> Tensor:
        return classifier.probabilities(changed).gather(1, classes.unsqueeze(1)).squeeze(1)

    ends = CurveEnds.of(pixels, probability(pixels), probability)
    figures: dict[str, dict[str, float]] = {}
    for title, explainer in explainers_of(network, classifier):
        maps = explainer.explain(classifier, classifier.normalize(pixels), classes)
        order = saliency_order(maps)
        by_image = {
            "pointing": pointing_hits(maps, boxes),
            "within": (maps * boxes).sum((1, 2)) / maps.sum((1, 2)).clamp_min(1e-9),
            "deletion": deletion_auc(order, ends, probability, steps),
            "insertion": insertion_auc(order, ends, probability, steps),
            "empty": ~maps.flatten(1).any(dim=1),
        }
        figures[title] = {name: float(values.float().mean()) for name, values in by_image.items()}
    return {"accuracy": float(right.float().mean()), "explainers": figures}


def show(name: str, measured: list[dict[str, Any]]) -> None:
    """Print the means over the seeds and the standard deviations between them."""
    accuracies = ", ".join(f"{100 * each['accuracy']:.1f} %" for each in measured)
    print(f"{name}: accuracy {accuracies}")
    for title in measured[0]["explainers"]:
        rows = [each["explainers"][title] for each in measured]
        cells = []
        for figure in rows[0]:
            values = [row[figure] for row in rows]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{figure} {statistics.mean(values):5.3f} ± {spread:5.3f}")
        print(f"  {title:32} {'   '.join(cells)}")


def main() -> None:
    """Train, measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500, help="at most")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--curve-steps", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    figures: dict[str, list[dict[str, Any]]] = {}
    for name in arguments.networks:
        start, figures[name] = time.process_time(), []
        for seed in range(arguments.seeds):
            classifier = train(NETWORKS[name], seed, arguments.steps, device)
            figures[name].append(measure(NETWORKS[name], classifier, arguments.images, arguments.curve_steps))
        show(name, figures[name])
        print(f"  {time.process_time() - start:.0f} s of CPU time", flush=True)
    report(arguments, device, figures)


if __name__ == "__main__":
    main()
