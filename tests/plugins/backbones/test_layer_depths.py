from __future__ import annotations

import pytest
from timm.models import group_parameters

from fgvc_cli import FgvcError
from fgvc_cli.contracts import Reads

STAGES = {
    "test_resnet": 4,
    "test_efficientnet": 5,
    "test_vit": 6,
    "test_convnext": 4,
    "swin_tiny_patch4_window7_224": 4,
}


@pytest.mark.parametrize(("model", "stages"), STAGES.items())
@pytest.mark.parametrize("unit", ["stage", "block"])
def test_depths_are_those_of_timm_but_the_last_norm_is_part_of_the_last_stage(build, model, stages, unit) -> None:
    backbone = build(f"timm/{model}")
    depths = backbone.layer_depths(unit)
    timms = group_parameters(backbone.model, backbone.model.group_matcher(coarse=unit == "stage"), reverse=True)
    last = max(depths.values())
    assert depths == {f"model.{name}": min(depth, last) for name, depth in timms.items()}
    assert last == stages if unit == "stage" else last >= stages


def test_pruned_layers_have_no_depth(build) -> None:
    backbone = build("timm/test_convnext")
    backbone.prune(Reads((1,)))
    depths = backbone.layer_depths("stage")
    assert depths.keys() == dict(backbone.named_parameters()).keys() and set(depths.values()) == {0, 1, 2}


def test_a_model_that_timm_does_not_group_is_refused(build) -> None:
    with pytest.raises(FgvcError, match="poolformer_s12"):
        build("timm/poolformer_s12").layer_depths("stage")
