"""Run a model of each of timm's families, and write what heads and saliency maps find in it as a table.

Weights are random, so this says how a network is built, not how well it does. Each model is inspected on the meta
device at several sizes. At its own size and at another one it is built, trained for one update with each built-in
head, and explained. Results are kept in `--json`; models in that file are not run again, so the run can be stopped at
any time.

    OMP_NUM_THREADS=1 python benchmarks/backbone_table.py --json backbones.json --table docs/backbones.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from fgvc_backbones.options import TimmOptions
from fgvc_backbones.survey import TimmModel
from fgvc_backbones.timm_backbone import TimmBackbone
from fgvc_cli.contracts import Classifier, Preprocessing, Reads
from fgvc_cli.errors import FgvcError
from fgvc_cli.explaining.explainers import make_explainer
from fgvc_cli.options import build
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.model_file import build_head

MODELS = (
    "test_resnet", "test_efficientnet", "test_vit", "test_vit3", "test_convnext", "test_mambaout", "test_nfnet",
    "test_byobnet", "test_coatnet", "test_maxvit", "test_vit_relpos", "beit_base_patch16_224", "cait_xxs24_224",
    "coat_tiny", "coat_lite_tiny", "convit_tiny", "convmixer_768_32", "cpubone_nano", "crossvit_tiny_240",
    "cs3darknet_focus_s", "cspnext_tiny", "csatv2", "davit_tiny", "deit_tiny_distilled_patch16_224", "densenet121",
    "dla46x_c", "dpn48b", "eca_botnext26ts_256", "edgenext_xx_small", "efficientformer_l1", "efficientformerv2_s0",
    "efficientvim_m1", "efficientvit_b0", "efficientvit_m0", "eva02_tiny_patch14_224", "fasternet_t0", "fastvit_t8",
    "focalnet_tiny_srf", "gcvit_xxtiny", "ghostnet_050", "gmlp_ti16_224", "hgnetv2_b0", "hiera_tiny_224",
    "hrnet_w18_small", "iformer_t", "inception_next_atto", "inception_v3", "lcnet_035", "lcnetv2_small",
    "legacy_seresnet18", "legacy_xception", "levit_128s", "lowformer_b0", "mobilenetv3_small_050",
    "mobilenetv4_conv_small_035", "mobilevit_xxs", "mvitv2_tiny", "nest_tiny", "nextvit_small", "pit_ti_224",
    "poolformerv2_s12", "pvt_v2_b0", "rdnet_tiny", "regnetx_002", "repghostnet_050", "repvit_m1", "res2net50_26w_4s",
    "resnest14d", "resnetv2_18", "rexnet_100", "sam2_hiera_tiny", "selecsls42", "sequencer2d_s", "shvit_s1",
    "skresnet18", "starnet_s050", "swiftformer_xs", "swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224",
    "swinv2_tiny_window8_256", "tiny_vit_5m_224", "tnt_s_legacy_patch16_224", "tresnet_m", "twins_svt_small", "vgg11",
    "visformer_tiny", "vit_tiny_r_s16_p8_224", "vitamin_small_224", "volo_d1_224", "ese_vovnet19b_slim_dw",
    "xception41", "xcit_nano_12_p16_224",
)  # fmt: skip
SIZES = (64, 96, 112, 128, 160, 192, 224, 256, 384)
HEADS = {
    "linear": {},
    "pim": {"fpn_size": 32, "num_selects": 4},
    "cmal": {"expert_width": 16, "map_channels": 32, "hidden_width": 16},
}
CLASSES = 3


def examine(name: str) -> dict[str, Any]:
    """Return what is known of a model after inspecting, training and explaining it."""
    own = timm.get_pretrained_cfg(name).input_size[-1]
    refused = [size for size in SIZES if not _accepts(name, size)]
    other = next((size for size in (96, 64, 128, 112, 224) if size != own and size not in refused), own)
    row = {"own": own, "refused": refused, "other": other}
    backbone = TimmBackbone(f"timm/{name}", other, TimmOptions()).eval()
    row |= {"family": type(backbone.model).__module__.rpartition(".")[2], "architecture": backbone.info.architecture}
    row |= _classifier_input(backbone) | _gradients(backbone) | _widths(backbone.model) | _normed(backbone.model, other)
    row["steps"] = {f"{size} {head}": _step(name, head, size) for size in sorted({own, other}) for head in HEADS}
    return row


def _accepts(name: str, size: int) -> bool:
    try:
        with torch.device("meta"):
            TimmBackbone(f"timm/{name}", size, TimmOptions())
    except FgvcError:
        return False
    return True


@torch.no_grad()
def _classifier_input(backbone: TimmBackbone) -> dict[str, Any]:
    """Return how the embedding comes from the last map, found by comparing numbers."""
    model, last = backbone.model, len(backbone.info.maps) - 1
    size = backbone.info.image_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    features = backbone(images, Reads((last,), embedding=True))
    final = model.forward_features(images)
    found, embedding = features.maps[last], features.embedding
    assert embedding is not None
    norm = getattr(model, "norm", None)
    if _close(found.mean((2, 3)), embedding):
        between = "nothing"
    elif isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity) and _is_normed(norm, found, final):
        between = "a norm"
    elif isinstance(final, Tensor) and final.ndim == 4 and final.numel() == found.numel():
        between = "the head's own layers"
    else:
        between = "more layers"
    layer = backbone.cam_layer(None)
    deepest = backbone.cam_layer(last)
    layers = [_name(backbone, found.module) for found in (layer, deepest)]
    return {"between": between, "prefix": deepest.prefix, "layers": layers}


def _gradients(backbone: TimmBackbone) -> dict[str, str]:
    """Return whether the embedding depends on every point after the model's last norm."""
    norm = getattr(backbone.model, "norm", None)
    if not isinstance(norm, nn.Module) or isinstance(norm, nn.Identity):
        return {"gradients": "no norm"}
    outputs: list[Any] = []
    hook = norm.register_forward_hook(lambda *call: outputs.append(call[-1]))
    size = backbone.info.image_size
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    embedding = backbone(images, Reads((), embedding=True)).embedding
    hook.remove()
    assert embedding is not None
    if len(outputs) != 1 or not isinstance(outputs[0], Tensor):
        return {"gradients": "not called once"}
    weights = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((embedding * weights).sum(), outputs[0], allow_unused=True)
    if gradient is None:
        return {"gradients": "none"}
    zero = (gradient.flatten(1, -2) == 0).all(-1) if gradient.ndim == 3 else torch.zeros(1)
    return {"gradients": f"zero at {int(zero.sum())} of {zero.numel()}" if zero.any() else "everywhere"}


def _is_normed(norm: nn.Module, found: Tensor, final: Any) -> bool:
    """Check whether a norm of the map's points is the final features, prefix tokens left out."""
    points = found.flatten(2).transpose(1, 2)
    try:
        normed = norm(points)
    except (AssertionError, RuntimeError, ValueError):
        return False
    if not isinstance(final, Tensor) or final.shape[-1] != normed.shape[-1]:
        return False
    tokens = final.flatten(1, -2)
    return tokens.shape[1] >= normed.shape[1] and _close(tokens[:, -normed.shape[1] :], normed)


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def _name(backbone: TimmBackbone, module: nn.Module) -> str:
    """Return a module's name; of a tap, that of the module it is at."""
    names = {id(found): name for name, found in backbone.model.named_modules()}
    taps = {id(tap.layer): f"{tap.point.module} (in order)" for tap in backbone.taps}
    return (names | taps)[id(module)]


def _widths(model: TimmModel) -> dict[str, int]:
    return {"num_features": model.num_features, "head_hidden_size": model.head_hidden_size}


@torch.no_grad()
def _normed(model: TimmModel, size: int) -> dict[str, str]:
    """Return what `forward_intermediates(norm=True)` does to the last map."""
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    plain = model.forward_intermediates(images, intermediates_only=True)[-1]
    try:
        normed = model.forward_intermediates(images, norm=True, intermediates_only=True)[-1]
    except (AssertionError, TypeError, ValueError, RuntimeError, AttributeError):
        return {"norm": "refused"}
    return {"norm": "nothing" if torch.equal(plain, normed) else "applies it"}


def _step(name: str, head: str, size: int) -> str:
    """Train a model for one update with a head and explain it; return "yes", or why not."""
    registry = get_registry()
    torch.manual_seed(0)
    component = registry.find("head", head)
    try:
        backbone = TimmBackbone(f"timm/{name}", size, TimmOptions())
        top = build_head(component, build(component.options_type(), HEADS[head], "head"), backbone, CLASSES)
        preprocessing = Preprocessing(size, size, backbone.info.mean, backbone.info.std)
        classifier = Classifier(backbone, top, [str(k) for k in range(CLASSES)], preprocessing).train()
        images, targets = torch.randn(2, 3, size, size), torch.arange(2)
        if not _update(classifier, images, targets):
            return "loss not finite"
        maps = make_explainer("gradcam", {}, registry).explain(classifier.eval(), images, targets)
    except FgvcError as error:
        return str(error)
    return "yes" if maps.isfinite().all() else "map not finite"


def _update(classifier: Classifier, images: Tensor, targets: Tensor) -> bool:
    """Minimize each objective of a head once; return whether all losses are finite."""
    optimizer = torch.optim.SGD(classifier.parameters(), 1e-3)
    objectives, output, finite = classifier.head.objectives(images, targets), None, True
    while True:
        try:
            objective = objectives.send(output)
        except StopIteration:
            return finite
        output = classifier(objective.images, objective.part)
        loss = objective.loss(output).value
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(
            classifier.parameters(), 1.0
        )  # with random weights and two images some gradients are huge
        optimizer.step()
        finite &= bool(loss.isfinite())
        output = tree_map_only(Tensor, Tensor.detach, output)


def table(rows: dict[str, Any]) -> list[str]:
    """Return the rows as a Markdown table."""
    head = ("model", "timm module", "refused of " + ", ".join(map(str, SIZES)), "between last map and classifier",
            "prefix tokens", "gradients after `norm`", "layer under `linear`", "layer of the last map", "`norm=True`",
            "`num_features`, `head_hidden_size`", "trained and explained at")  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    for name, row in rows.items():
        failed = [f"{step}: {why}" for step, why in row["steps"].items() if why != "yes"]
        at = ", ".join(f"{size} px" for size in sorted({row["own"], row["other"]}))
        cells = (f"`{name}`", row["family"], ", ".join(map(str, row["refused"])) or "none", row["between"],
                 row["prefix"], row["gradients"], *(f"`{layer}`" for layer in row["layers"]), row["norm"],
                 f"{row['num_features']}, {row['head_hidden_size']}", "; ".join((at, *failed)))  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def main() -> None:
    """Run the models that the file does not have, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, help="timm's names")
    parser.add_argument("--json", type=Path, required=True, help="file of results, read and extended")
    parser.add_argument("--table", type=Path, help="Markdown file whose last table is replaced")
    arguments = parser.parse_args()
    rows = json.loads(arguments.json.read_text(encoding="utf-8")) if arguments.json.exists() else {}
    for name in arguments.models:
        if name not in rows:
            rows[name] = examine(name)
            arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            print(name, rows[name])
    if arguments.table:
        lines = table({name: rows[name] for name in arguments.models})
        text = arguments.table.read_text(encoding="utf-8").partition(lines[0])[0]
        arguments.table.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
