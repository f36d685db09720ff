"""Panels: the photograph unchanged, text that fits, and a caption for each occlusion step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fgvc_cli.contracts import Preprocessing
from fgvc_cli.errors import FgvcError
from fgvc_cli.explaining import panels
from fgvc_cli.explaining.explanation import ExplainedImage, Explanation, InputImage, OcclusionStep
from fgvc_cli.explaining.masking import Masking
from fgvc_cli.explaining.overlays import crop_box, masked_tile, pixel_box, saliency_tile
from fgvc_cli.explaining.panels import ELLIPSIS, draw_panel, text_width, wrapped, write_panel

SIDE = 32
NAMES = ("Bar-winged-Finch", "Bar-winged-Shrike", "Ring-eyed-Forktail")
LONG = (
    "Northern Rough-winged Swallow of the western coastal lowlands, second subspecies, juvenile male",
    "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogochsupercalifragilistic",
    "x",
)
LONG_RUN = "r/20261123-213938-a-very-long-data-set-timm-resnet18-linear-sgd"


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def occlusion_step(number: int, names: Sequence[str], true: str | None, target: str | None = None) -> OcclusionStep:
    saliency, mask = np.zeros((SIDE, SIDE), np.float32), np.zeros((SIDE, SIDE), np.bool_)
    saliency[8:16, 8 + 4 * number : 16 + 4 * number] = 1
    mask[8:16, 8 : 8 + 4 * number] = True
    predicted = names[number % len(names)]
    true_probability = None if true is None else 0.032
    probability = 0.873 - 0.2 * number
    return OcclusionStep(
        float(mask.mean()), predicted, probability, target or predicted, 0.01, true_probability, saliency, mask
    )


def explained(
    source: np.ndarray | Path,
    steps: int = 0,
    names: Sequence[str] = NAMES,
    true: str | None = None,
    runs: Sequence[str] = ("runs/a",),
    explainers: Sequence[str] = ("gradcam",),
    target: str | None = None,
    resize: int = 36,
) -> ExplainedImage:
    preprocessing = Preprocessing(SIDE, resize, (0.0,) * 3, (1.0,) * 3)
    fill = np.full((SIDE, SIDE, 3), 77, np.uint8)
    of_steps = [occlusion_step(number, names, true, target) for number in range(steps + 1)]
    explanations = [Explanation(run, e, preprocessing, fill, of_steps) for run in runs for e in explainers]
    return ExplainedImage(InputImage("photos/bird.jpg", source, true), explanations, Masking() if steps else None)


@dataclass
class Drawn:
    """What was drawn on a panel: texts with their boxes, and the boxes of pictures."""

    texts: list[tuple[str, tuple[float, float, float, float]]] = field(default_factory=list)
    pictures: list[tuple[float, float, float, float]] = field(default_factory=list)

    @property
    def words(self) -> list[str]:
        return [text for text, _ in self.texts]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    found = Drawn()
    text, paste = ImageDraw.ImageDraw.text, Image.Image.paste

    def recorded_text(self, xy, words, *more, font, **options):
        if words:
            box = font.getbbox(words)
            found.texts.append((words, (xy[0] + box[0], xy[1] + box[1], xy[0] + box[2], xy[1] + box[3])))
        return text(self, xy, words, *more, font=font, **options)

    def recorded_paste(self, picture, box=None, *more):
        if isinstance(picture, Image.Image) and box is not None:
            found.pictures.append((*box[:2], box[0] + picture.width, box[1] + picture.height))
        return paste(self, picture, box, *more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", recorded_text)
    monkeypatch.setattr(Image.Image, "paste", recorded_paste)
    return found


def overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize(
    ("size", "names", "steps", "runs", "explainers"),
    [
        ((64, 64), LONG, 0, ["runs/a"], ["gradcam"]),
        ((30, 300), LONG, 1, ["runs/a"], ["gradcam"]),
        ((500, 40), NAMES, 3, ["runs/a"], ["gradcam"]),
        ((300, 200), LONG, 0, ["runs/a"], ["gradcam", "layercam", "native"]),
        ((200, 300), NAMES, 0, [LONG_RUN, "r/b"], ["gradcam"]),
        ((128, 96), LONG, 2, [LONG_RUN, "r/b"], ["gradcam", "layercam"]),
    ],
)
def test_no_text_overlaps_or_leaves_the_panel(drawn, size, names, steps, runs, explainers):
    panel = draw_panel(explained(noise(*size), steps, names, names[1], runs, explainers))
    boxes = [box for _, box in drawn.texts]
    everything = boxes + drawn.pictures
    assert all(min(box) >= 0 for box in boxes)
    assert all(box[2] <= panel.width and box[3] <= panel.height for box in everything)
    assert not [(a, b) for i, a in enumerate(everything) for b in everything[i + 1 :] if overlap(a, b)]


@pytest.mark.parametrize("size", [(300, 400), (1600, 20)])
def test_the_pixels_of_the_photograph_are_unchanged(drawn, size):
    array = noise(*size)
    panel = np.asarray(draw_panel(explained(array, 1)))
    left, top, right, bottom = (int(edge) for edge in drawn.pictures[0])
    assert (right - left, bottom - top) == size
    assert (panel[top:bottom, left:right] == array).all()


def test_captions_have_the_predicted_and_the_true_class(drawn):
    draw_panel(explained(noise(100, 100), 2, NAMES, NAMES[1]))
    words = drawn.words
    for text in ("predicted", "now predicted", "true class", "the same", "87.3 %", "67.3 %", "47.3 %", "3.2 %", *NAMES):
        assert text in words, text
    assert "step 1: 3.1 % masked (mean)" in words and "step 2: 6.2 % masked (mean)" in words
    assert words[0] == "photos/bird.jpg" and "run a, saliency maps: gradcam" in words


def test_captions_name_another_target_and_a_map_of_zeros(drawn):
    image = explained(noise(100, 100), 1, ("finch",), None, target="Owl")
    image.explanations[0].steps[0].saliency[:] = 0
    draw_panel(image)
    assert "still predicted" in drawn.words and "true class" not in drawn.words
    assert drawn.words.count("map of") == 2 and "Owl" in drawn.words and "1.0 %" in drawn.words
    assert drawn.words.count("the map is flat") == 1


def test_several_explanations_are_labeled_by_what_distinguishes_them(drawn):
    draw_panel(explained(noise(100, 100), explainers=("gradcam", "native")))
    assert {"gradcam", "native", "run a"} <= set(drawn.words)
    assert len(drawn.pictures) == 4  # the photograph once, two maps and the color scale
    draw_panel(explained(noise(100, 100), runs=("x/a", "x/b")))
    assert {"a", "b", "saliency maps: gradcam"} <= set(drawn.words)
    draw_panel(explained(noise(100, 100), runs=("x/a", "y/a"), explainers=("gradcam", "native")))
    assert {"gradcam, x/a", "native, y/a"} <= set(drawn.words)


def test_saliency_is_drawn_over_the_photograph_and_the_rest_is_dimmed():
    explanation = explained(np.full((200, 300, 3), 100, np.uint8)).explanations[0]
    photograph = Image.fromarray(np.full((200, 300, 3), 100, np.uint8))
    tile = np.asarray(saliency_tile(photograph, explanation, explanation.steps[0])).astype(int)
    left, top, right, bottom = pixel_box(photograph.size, crop_box(photograph.size, explanation.preprocessing))
    assert (tile[0, 0] == tile[-1, -1]).all() and tile[0, 0].min() > 180  # pale
    hot = tile[top + (bottom - top) * 12 // SIDE, left + (right - left) * 12 // SIDE]
    cold = tile[bottom - 5, right - 5]
    assert hot[0] > hot[2] + 40 and cold.max() - cold.min() < 12
    line = tile[100, left - 4 : left].max(axis=1)
    assert line.max() == 255 and line.min() == 0  # white and black, outside of the crop
    assert (tile[100, left + 1] == cold).all()


def test_the_crop_is_not_outlined_if_it_is_the_whole_photograph(drawn):
    draw_panel(explained(noise(256, 256)))
    assert any("outlined" in word for word in drawn.words)
    drawn.texts.clear()
    draw_panel(explained(noise(256, 256), resize=SIDE))
    assert not any("outlined" in word for word in drawn.words)


def test_masked_pixels_have_the_fill_and_others_their_own_color():
    array = noise(360, 360)
    (explanation,) = explained(array, 1).explanations
    tile = np.asarray(masked_tile(Image.fromarray(array), explanation, explanation.steps[1]))
    box = crop_box((360, 360), explanation.preprocessing)  # 320 px for 32: ten per pixel, from 20
    assert box == pytest.approx((20, 20, 340, 340))
    assert (tile[105:175, 105:135] == 77).all()
    assert (tile[200:330, 30:330] == array[200:330, 30:330]).all()


def test_many_pictures_are_drawn_smaller(drawn, monkeypatch):
    monkeypatch.setattr(panels, "PANEL_PIXELS", 100_000)
    draw_panel(explained(noise(300, 300), 3))
    assert sum((b[2] - b[0]) * (b[3] - b[1]) for b in drawn.pictures[:8]) <= 100_000
    assert any("downscaled" in word for word in drawn.words)


def test_a_panel_is_written_atomically(tmp_path, monkeypatch):
    image = explained(noise(64, 64))
    write_panel(tmp_path / "a.png", image)
    with Image.open(tmp_path / "a.png") as panel:
        assert panel.format == "PNG"

    def full(self, file, *more, **options):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(FgvcError, match="No space left"):
        write_panel(tmp_path / "a.png", image)
    assert [f.name for f in tmp_path.iterdir()] == ["a.png"] and (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize("text", ["b", *LONG[:2], "Größe-Æther-Ångström Ωmega Жук", " many   blanks and\nlines "])
@pytest.mark.parametrize("width", [40, 150, 400])
def test_every_line_fits(text, width):
    lines = wrapped(text, width, 13, bold=True)
    assert 1 <= len(lines) <= 2
    assert all(text_width(line, 13, bold=True) <= width for line in lines)
    whole, shown = "".join(text.split()), "".join("".join(lines).split())
    assert shown == whole or (shown.endswith(ELLIPSIS) and whole.startswith(shown.removesuffix(ELLIPSIS)))
