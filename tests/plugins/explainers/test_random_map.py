"""The baseline: noise that knows nothing of the model, and comes back for the same image."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def pictures() -> torch.Tensor:
    """As the host makes them: whole pixel values."""
    return torch.randint(0, 256, (4, 3, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


TARGETS = torch.tensor([0, 1, 2, 3])


def test_values_are_uniform_and_independent(classifier_of, explainer_of, images_of):
    classifier = classifier_of("timm/test_resnet", "linear")
    maps = explainer_of("random").explain(classifier, *images_of(8))
    assert maps.shape == (8, 64, 64) and maps.min() >= 0 and maps.max() < 1
    shares = torch.histc(maps, 10, 0, 1) / maps.numel()
    assert (shares - 0.1).abs().max() < 0.01
    correlations = torch.corrcoef(maps.flatten(1)) - torch.eye(8)
    assert correlations.abs().max() < 0.08  # 4,096 pixels: 5 standard deviations
    neighbors = torch.corrcoef(torch.stack((maps[:, :, 1:].flatten(), maps[:, :, :-1].flatten())))
    assert neighbors[0, 1].abs() < 0.03  # nothing is smoothed


def test_the_map_depends_on_the_image_not_on_its_position(tiny, pictures, explainer_of):
    explainer = explainer_of("random")
    maps = explainer.explain(tiny, tiny.normalize(pictures), TARGETS)
    turned = explainer.explain(tiny, tiny.normalize(pictures.flip(0)), TARGETS)
    assert torch.equal(maps, turned.flip(0))
    slightly_off = tiny.normalize(pictures) + 1e-4  # another device's rounding
    assert torch.equal(maps, explainer.explain(tiny, slightly_off, TARGETS))
    pictures[0, 0, 0, 0] ^= 1
    changed = explainer.explain(tiny, tiny.normalize(pictures), TARGETS)
    assert not torch.isclose(changed[0], maps[0]).any() and torch.equal(changed[1:], maps[1:])


def test_by_position_the_map_does_not_depend_on_the_image(tiny, pictures, explainer_of):
    explainer = explainer_of("random", by="position")
    maps = explainer.explain(tiny, tiny.normalize(pictures), TARGETS)
    assert torch.equal(maps, explainer.explain(tiny, tiny.normalize(pictures.flip(0)), TARGETS))
    assert len({tuple(m.flatten().tolist()) for m in maps}) == 4


def test_a_grid_is_upsampled(tiny, pictures, explainer_of):
    maps = explainer_of("random", grid=2).explain(tiny, tiny.normalize(pictures), TARGETS)
    assert maps.shape == (4, 6, 6) and torch.allclose(maps.amax(dim=(1, 2)), torch.ones(4))
    torch.testing.assert_close(maps[:, 0, 0], maps[:, 1, 1])  # a cell is 3 x 3, and its corner beyond its center
    assert not torch.isclose(maps[:, 1, 1], maps[:, 4, 4]).any()
