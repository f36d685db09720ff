from __future__ import annotations

import pytest
import torch

from fgvc_backbones.timm_backbone import Plan
from fgvc_cli.contracts import Reads

READS = (Reads(embedding=True), Reads((0,)), Reads((1, 2)), Reads((0, 1, 2, 3)), Reads((3,), embedding=True))
MODELS = ("test_resnet", "test_efficientnet", "test_vit", "test_convnext", "test_mambaout", "test_maxvit")


@pytest.mark.parametrize(
    ("model", "reads"),
    [
        *(("test_resnet", reads) for reads in READS),
        *((model, Reads((1, 2))) for model in MODELS[1:]),
        *(pytest.param(model, reads, marks=pytest.mark.slow) for model in MODELS[1:] for reads in READS),
    ],
)
def test_pruning_preserves_features_and_every_parameter_gets_a_gradient(build, model: str, reads: Reads) -> None:
    backbone, images = build(f"timm/{model}"), torch.randn(2, 3, 64, 64)
    before = backbone(images, reads)
    backbone.prune(reads)
    after = backbone(images, reads)
    outputs = [*after.maps.values(), *([after.embedding] if reads.embedding else [])]
    expected = [*before.maps.values(), *([before.embedding] if reads.embedding else [])]
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))
    sum(output.square().sum() for output in outputs).backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("reads", [Reads((2,))], ids=str)
def test_unneeded_modules_that_still_run_are_frozen(build, reads: Reads) -> None:
    """HRNet walks through all its branches, also those that only a map that is not read would need."""
    backbone, images = build("timm/hrnet_w18_small"), torch.randn(1, 3, 64, 64)
    before = backbone(images, reads).maps
    backbone.prune(reads)
    after = backbone(images, reads).maps
    assert all(torch.equal(after[index], before[index]) for index in reads.maps)
    sum(feature_map.square().sum() for feature_map in after.values()).backward()
    left = {name for name, p in backbone.named_parameters() if p.requires_grad}
    assert left == {name for name, p in backbone.named_parameters() if p.grad is not None}
    assert left and len(left) < len(list(backbone.parameters()))


def test_unneeded_modules_are_dropped(build) -> None:
    backbone = build("timm/test_efficientnet")
    backbone.prune(Reads((0, 1, 2, 3)))
    names = [name for name, _ in backbone.named_parameters()]
    assert not [name for name in names if "conv_head" in name or "bn2" in name.split(".")[1]]
    shallow = build("timm/test_efficientnet")
    shallow.prune(Reads((1,)))
    assert not [name for name, _ in shallow.named_parameters() if name.startswith(("model.blocks.3", "model.blocks.4"))]


def test_pruning_is_idempotent_and_pruned_maps_are_rejected(build) -> None:
    backbone = build("timm/test_resnet")
    backbone.prune(Reads((0, 1)))
    backbone.prune(Reads((0, 1)))
    with pytest.raises(ValueError, match="only"):
        backbone(torch.randn(1, 3, 64, 64), Reads((2,)))
    with pytest.raises(ValueError, match="only"):
        backbone.cam_layer(None)


def test_a_model_is_inspected_once_per_process(build, nothing_seen, monkeypatch) -> None:
    first = build("timm/test_resnet")
    first.prune(Reads((1,)))
    monkeypatch.setattr(Plan, "outline", lambda plan: pytest.fail("it is looked at again"))
    second, whole = build("timm/test_resnet"), build("timm/test_resnet")
    second.prune(Reads((1,)))
    assert second.info == first.info
    assert [n for n, _ in second.named_parameters()] == [n for n, _ in first.named_parameters()]
    assert len(list(whole.parameters())) > len(list(first.parameters())), "pruning one leaves the next whole"
