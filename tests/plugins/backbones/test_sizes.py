from __future__ import annotations

import pytest

from fgvc_backbones import timm_backbone
from fgvc_backbones.options import TimmOptions
from fgvc_backbones.survey import map_source
from fgvc_backbones.timm_backbone import padless_window
from fgvc_cli import FgvcError, UsageError


def test_grids_are_exact_at_odd_sizes(build) -> None:
    assert [m.grid for m in build("timm/test_resnet", 130).info.maps] == [(33, 33), (17, 17), (9, 9), (5, 5)]
    assert [m.stride for m in build("timm/test_resnet", 130).info.maps] == [4, 8, 16, 32]
    assert {m.grid for m in build("timm/test_vit", 80).info.maps} == {(5, 5)}


@pytest.mark.parametrize(
    ("name", "size", "nearest"),
    [
        ("timm/test_vit", 100, 96),
        ("timm/test_resnet", 31, 32),
        ("timm/test_vit", 8, 32),
        ("timm/mvitv2_tiny", 112, 128),
    ],
)
def test_an_unsupported_size_suggests_the_nearest(build, name: str, size: int, nearest: int) -> None:
    with pytest.raises(UsageError, match=rf"{name} cannot take images of {size} px.*Try .image_size={nearest}"):
        build(name, size)


def test_a_size_that_timm_rejects_suggests_the_default(build) -> None:
    with pytest.raises(UsageError, match=r"timm/test_maxvit cannot take images of 100 px.*`image_size=160`"):
        build("timm/test_maxvit", 100)


@pytest.mark.parametrize("accepts_own", [True, False])
def test_the_default_is_suggested_only_if_it_is_accepted(build, monkeypatch, accepts_own: bool) -> None:
    def reject(outline, image_size, *others):
        if image_size == 96 or not accepts_own:
            raise ValueError("a reason with a full stop.")
        return map_source(outline, image_size, *others)

    monkeypatch.setattr(timm_backbone, "map_source", reject)
    with pytest.raises(FgvcError) as caught:
        build("timm/test_resnet", 96, drop=0.125 * (1 + accepts_own))  # which was not examined before
    assert ("image_size=160" in str(caught.value)) is isinstance(caught.value, UsageError) is accepts_own
    assert not str(caught.value).endswith(".")


@pytest.mark.parametrize(("size", "grid"), [(64, (4, 4)), (768, (48, 48))])
def test_gemma_has_maps_of_whole_patches(size: int, grid: tuple[int, int]) -> None:
    _, _, found = timm_backbone._examined("timm/gemma4_vit_167m", size, TimmOptions())  # by shapes: on the meta device
    assert {m.grid for m in found.maps} == {grid} and found.architecture == "transformer"


@pytest.mark.parametrize(
    ("size", "window"),
    [(224, 7), (112, 7), (448, 7), (64, 8), (128, 8), (192, 6), (384, 6), (256, 8), (96, 6), (100, 7)],
)
def test_swins_window_needs_no_padding(size: int, window: int) -> None:
    assert padless_window(size, patch=4, stages=4, own=7) == window
    assert window != 7 or size % 112 == 0 or size == 100  # 100 px: no window divides 25 and 13


def test_normalization_is_that_of_the_weights(build) -> None:
    assert build("timm/test_resnet").info.mean == (0.5, 0.5, 0.5)
    assert build("timm/test_efficientnet").info.mean == (0.485, 0.456, 0.406)


def test_options_reach_the_model_or_are_rejected(build) -> None:
    rates = [
        m.drop_prob for m in build("timm/test_vit", drop_path=0.3).model.modules() if type(m).__name__ == "DropPath"
    ]
    assert max(rates) == pytest.approx(0.3)
    assert build("timm/test_resnet", drop=0.25).model.drop_rate == 0.25
    with pytest.raises(UsageError, match=r"backbone\.window=8`: only Swin"):
        build("timm/test_resnet", window=8)
    with pytest.raises(UsageError, match=r"maps=published.*maps=stages"):
        build("timm/test_convnext", maps="published")
