from __future__ import annotations

import pytest

from fgvc_backbones import timm_backbone
from fgvc_backbones.options import TimmOptions
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


@pytest.mark.parametrize(
    ("name", "size", "other"),
    [("timm/test_maxvit", 100, 96), ("timm/crossvit_tiny_240", 112, 240), ("timm/twins_svt_small", 112, 128)],
)
def test_a_size_that_timm_rejects_suggests_one_that_it_accepts(build, name: str, size: int, other: int) -> None:
    with pytest.raises(UsageError, match=rf"{name} cannot take images of {size} px; try `image_size={other}`"):
        build(name, size)


def test_no_size_is_suggested_if_none_is_accepted(build, monkeypatch) -> None:
    def reject(*arguments):
        raise ValueError("a reason with a full stop.")

    monkeypatch.setattr(timm_backbone, "map_source", reject)
    with pytest.raises(FgvcError, match=r"cannot be used as a backbone: a reason with a full stop$") as caught:
        build("timm/test_resnet", 96, drop=0.125)  # which was not examined before
    assert not isinstance(caught.value, UsageError)


@pytest.mark.slow
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
