"""CMAL's attention regions: to the pixel at the edges, on tiny images, and where there is nothing to attend to."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fgvc_heads.cmal.experts import PooledClassifier
from fgvc_heads.cmal.regions import at_image_size, attention_map, crop, region_boxes, to_unit_range


def span(first: int, last: int, size: int, padding: float = 0.1) -> tuple[int, int]:
    """The rule of the method notes, in Python's own numbers."""
    return max(int(first - padding * size), 0), min(int(last + padding * size), size)


def spot(height: int, width: int, x: int, y: int) -> Tensor:
    attention = torch.zeros(1, height, width)
    attention[0, y, x] = 1.0
    return attention


@pytest.mark.parametrize("sizes", [range(2, 130), (224, 260, 300, 384, 448, 512, 550, 600)], ids=["small", "usual"])
def test_boxes_to_the_pixel_at_every_size(sizes):
    """One line passes; where the rule leaves nothing (fewer than 10 pixels), the first line that it names is kept."""
    for size in sizes:
        boxes = region_boxes(torch.eye(size).unsqueeze(1), 0.5, 0.1)  # one column passes, a different one each
        expected = [span(line, line, size) for line in range(size)]
        expected = [(start, max(end, start + 1)) for start, end in expected]
        assert boxes[:, [0, 2]].tolist() == [list(both) for both in expected], size


def test_first_and_last_line_by_row_and_column():
    attention = torch.zeros(3, 50, 80)
    attention[0, 20:31, 60:70] = 0.7
    attention[1, 0, 0] = attention[1, 49, 40] = 0.5  # the threshold itself passes
    attention[2, 49, 79] = 1.0
    attention += 0.49 * (attention == 0)
    (a, b), (c, d), (e, f) = span(60, 69, 80), span(20, 30, 50), span(0, 40, 80)
    assert region_boxes(attention, 0.5, 0.1).tolist() == [[a, c, b, d], [e, 0, f, 50], [71, 44, 80, 50]]


def test_the_box_is_the_whole_image_if_no_point_passes():
    flat = to_unit_range(torch.full((2, 20, 30), 7.0), 1e-6)
    assert flat.abs().max() == 0
    assert region_boxes(flat, 0.5, 0.1).tolist() == [[0, 0, 30, 20]] * 2
    images = torch.randn(2, 3, 20, 30)
    assert torch.equal(crop(images, region_boxes(flat, 0.5, 0.1)), images)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_no_box_is_empty_on_tiny_images(size):
    for x in range(size):
        for y in range(size):
            ((x0, y0, x1, y1),) = region_boxes(spot(size, size, x, y), 0.5, 0.1).tolist()
            assert 0 <= x0 < x1 <= size and 0 <= y0 < y1 <= size
            assert crop(torch.randn(1, 3, size, size), torch.tensor([[x0, y0, x1, y1]])).isfinite().all()


def test_padding_is_an_option_in_decimals():
    assert region_boxes(spot(100, 100, 50, 50), 0.5, 0.07).tolist() == [[43, 43, 57, 57]]  # 0.07 * 100 > 7
    assert region_boxes(spot(100, 100, 50, 50), 0.5, 0.29).tolist() == [[21, 21, 79, 79]]  # 0.29 * 100 < 29
    assert region_boxes(spot(100, 100, 50, 50), 0.5, 0.0).tolist() == [[50, 50, 51, 51]]
    assert region_boxes(spot(100, 100, 50, 50), 0.5, 1.0).tolist() == [[0, 0, 100, 100]]


@pytest.mark.parametrize(("height", "width"), [(36, 36), (40, 64), (224, 224), (448, 448)])
def test_crops_are_those_of_interpolate_one_by_one(height, width):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(12, 3, height, width, generator=generator)
    corners = torch.rand(12, 4, generator=generator)
    corners[0] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    corners[1] = torch.tensor([0.3, 0.3, 0.3, 0.3])  # one pixel
    corners[2] = torch.tensor([1.0, 0.0, 1.0, 1.0])  # the last column
    boxes = []
    for a, b, c, d in corners.tolist():
        x0, y0 = min(int(min(a, c) * width), width - 1), min(int(min(b, d) * height), height - 1)
        boxes.append([x0, y0, max(x0 + 1, int(max(a, c) * width)), max(y0 + 1, int(max(b, d) * height))])
    expected = [
        F.interpolate(image[None, :, y0:y1, x0:x1], (height, width), mode="bilinear", align_corners=True)
        for image, (x0, y0, x1, y1) in zip(images, boxes, strict=True)
    ]
    ours = crop(images, torch.tensor(boxes))
    torch.testing.assert_close(ours, torch.cat(expected), rtol=0, atol=1e-5)
    assert torch.equal(ours[0], images[0])


def test_attention_is_float32_under_autocast():
    """A product in bfloat16 would be off by a hundredth of the range, and boxes with it."""
    torch.manual_seed(0)
    classifier, scores = PooledClassifier(64, 32, 5), torch.randn(3, 5)
    expert_map = torch.randn(3, 64, 7, 7).relu().bfloat16()
    exact = [
        torch.einsum("h,hd,dyx->yx", classifier.output.weight[row.argmax()], classifier.hidden.weight, image.float())
        for image, row in zip(expert_map, scores, strict=True)
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = attention_map(expert_map, scores, classifier)
        enlarged = at_image_size(ours, (28, 28), 1e-6)
    assert ours.dtype == enlarged.dtype == torch.float32 and not ours.requires_grad
    torch.testing.assert_close(ours, torch.stack(exact).detach(), rtol=0, atol=1e-5)
