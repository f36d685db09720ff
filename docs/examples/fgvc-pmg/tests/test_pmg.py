"""The jigsaw and the four updates of a batch."""

import pytest
import torch
from fgvc_pmg.head import PmgHead
from fgvc_pmg.jigsaw import jigsaw
from fgvc_pmg.options import PmgOptions

from fgvc_cli.contracts import BackboneInfo, Features, MapInfo

CLASSES = 5


def numbered(batch=3, side=16):
    """Images whose pixels all differ."""
    return torch.arange(batch * 3 * side * side, dtype=torch.float32).reshape(batch, 3, side, side)


def cut(images, patches):
    """The patches of each image as a set, their pixels in order."""
    step = images.shape[2] // patches
    return [
        {tuple(image[:, y : y + step, x : x + step].flatten().tolist())
         for y in range(0, step * patches, step) for x in range(0, step * patches, step)}
        for image in images
    ]  # fmt: skip


@pytest.mark.parametrize("patches", [2, 4, 8])
def test_jigsaw_keeps_patches_and_shuffles_each_image_independently(patches):
    images = numbered()
    torch.manual_seed(0)
    mixed = jigsaw(images, patches)
    assert cut(mixed, patches) == cut(images, patches)
    assert not torch.equal(mixed, images)
    relative = mixed - images[:, :1, :1, :1]
    assert not torch.equal(relative[0], relative[1])
    torch.manual_seed(0)
    assert torch.equal(jigsaw(images, patches), mixed)


def test_uncovered_edge_stays():
    images = numbered(side=19)
    torch.manual_seed(0)
    mixed = jigsaw(images, 4)
    assert torch.equal(mixed[:, :, 16:], images[:, :, 16:]) and torch.equal(mixed[..., 16:], images[..., 16:])
    assert cut(mixed[..., :16, :16], 4) == cut(images[..., :16, :16], 4)
    assert not torch.equal(mixed, images)


def test_small_images_are_unchanged():
    images = numbered(side=4)
    assert jigsaw(images, 1) is images and jigsaw(images, 8) is images


@pytest.fixture
def head():
    torch.manual_seed(0)
    maps = tuple(MapInfo(4 * 2**i, 4 * 2**i, (8 // 2**i,) * 2) for i in range(4))
    info = BackboneInfo("any", "convolutional", 32, maps, 32, (0.5,) * 3, (0.5,) * 3)
    return PmgHead(info, CLASSES, PmgOptions(stage_width=4, stage_channels=6, hidden_width=4))


def features():
    generator = torch.Generator().manual_seed(1)
    return Features({i: torch.randn(2, 4 * 2**i, 8 // 2**i, 8 // 2**i, generator=generator) for i in (1, 2, 3)}, None)


def test_objectives_of_a_batch(head):
    images, targets = numbered(2, 32), torch.tensor([0, 1])
    objectives = list(head.objectives(images, targets))
    assert [o.part for o in objectives] == ["stage1", "stage2", "stage3", "concat"]
    assert [o.missing_grad for o in objectives] == ["zero"] * 4
    for objective, patches in zip(objectives, (8, 4, 2), strict=False):
        assert cut(objective.images, patches) == cut(images, patches)
    assert objectives[-1].images is images
    scores = torch.randn(2, CLASSES, generator=torch.Generator().manual_seed(2))
    plain = torch.nn.functional.cross_entropy(scores, targets)
    assert [float(o.loss(scores).value / plain) for o in objectives] == pytest.approx([1, 1, 1, 2])
    assert [o.loss(scores).scores is scores for o in objectives] == [False, False, False, True]


def test_reads(head):
    assert [head.reads(part).maps for part in ("stage1", "stage2", "stage3")] == [(1,), (2,), (3,)]
    assert head.reads("concat").maps == head.reads().maps == (1, 2, 3)
    assert head.cam_map() == 3


def test_parts_equal_the_whole(head):
    head.eval()
    whole = head(features())
    assert whole.shape == (2, 4, CLASSES)
    for index, part in enumerate(("stage1", "stage2", "stage3", "concat")):
        torch.testing.assert_close(whole[:, index], head(features(), part))


def test_predict(head):
    head.eval()

    def model(images, part=None):
        return head(features(), part)

    torch.testing.assert_close(head.predict(model, None), head(features()).mean(1))
    head.options = PmgOptions(combined=False)
    torch.testing.assert_close(head.predict(model, None), head(features(), "concat"))


def test_patches_must_be_three_numbers():
    with pytest.raises(ValueError, match=r"patches=\[4, 2\]: give three numbers"):
        PmgOptions(patches=(4, 2))
