"""Panels: the photograph untouched, words that keep to their room, and what is said of each look."""

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
from fgvc_cli.explaining.explanation import ExplainedImage, Explanation, Sight, Subject
from fgvc_cli.explaining.masking import Cover
from fgvc_cli.explaining.panels import cover_tile, draw_panel, heat_tile, scale_bar, write_panel
from fgvc_cli.explaining.photograph import crop_box, whole_box

SIDE = 32
NAMES = ("Bar-winged-Finch", "Bar-winged-Shrike", "Ring-eyed-Forktail")
LONG = (
    "Northern Rough-winged Swallow of the western coastal lowlands, second subspecies, juvenile male",
    "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogochsupercalifragilistic",
    "x",
)


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def sight(step: int, names: Sequence[str], true: str | None, explained: str | None = None) -> Sight:
    heat, mask = np.zeros((SIDE, SIDE), np.float32), np.zeros((SIDE, SIDE), np.bool_)
    heat[8:16, 8 + 4 * step : 16 + 4 * step] = 1
    mask[8:16, 8 : 8 + 4 * step] = True
    predicted = names[step % len(names)]
    true_probability = None if true is None else 0.032
    return Sight(
        float(mask.mean()), predicted, 0.873 - 0.2 * step, explained or predicted, 0.01, true_probability, heat, mask
    )


def explained(
    source: np.ndarray | Path,
    steps: int = 0,
    names: Sequence[str] = NAMES,
    true: str | None = None,
    runs: Sequence[str] = ("runs/a",),
    explainers: Sequence[str] = ("gradcam",),
    target: str | None = None,
) -> ExplainedImage:
    preprocessing = Preprocessing(SIDE, 36, (0.0,) * 3, (1.0,) * 3)
    fill = np.full((SIDE, SIDE, 3), 77, np.uint8)
    explanations = [
        Explanation(run, explainer, preprocessing, fill, [sight(s, names, true, target) for s in range(steps + 1)])
        for run in runs
        for explainer in explainers
    ]
    return ExplainedImage(Subject("photos/bird.jpg", source, true), explanations)


@dataclass
class Drawn:
    """What was put onto a panel: texts with their boxes, and the boxes of pictures."""

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


@pytest.mark.parametrize("size", [(64, 64), (30, 300), (500, 40), (640, 480), (300, 900)])
@pytest.mark.parametrize("names", [NAMES, LONG], ids=["short", "long"])
@pytest.mark.parametrize(
    ("steps", "runs", "explainers"),
    [
        (0, ["runs/a"], ["gradcam"]),
        (1, ["runs/a"], ["gradcam"]),
        (3, ["runs/a"], ["gradcam"]),
        (0, ["runs/a"], ["gradcam", "layercam", "native"]),
        (0, ["r/20261123-213938-a-very-long-data-set-timm-resnet18-linear-sgd", "r/b"], ["gradcam"]),
        (2, ["r/20261123-213938-a-very-long-data-set-timm-resnet18-linear-sgd", "r/b"], ["gradcam", "layercam"]),
    ],
)
def test_no_words_overlap_or_leave_the_panel(drawn, size, names, steps, runs, explainers):
    image = explained(noise(*size), steps, names, names[1], runs, explainers)
    panel = draw_panel(image, Cover() if steps else None)
    boxes = [box for _, box in drawn.texts]
    assert all(box[0] >= 0 and box[1] >= 0 and box[2] <= panel.width and box[3] <= panel.height for box in boxes)
    pictures = drawn.pictures
    everything = boxes + pictures
    clashes = [(a, b) for i, a in enumerate(everything) for b in everything[i + 1 :] if overlap(a, b)]
    assert not clashes
    assert all(box[2] <= panel.width and box[3] <= panel.height for box in pictures)


def test_titles_of_two_lines_have_room_for_both(drawn):
    runs = ["r/20261123-213938-a-very-long-data-set-timm-resnet18-linear-sgd", "r/b"]
    draw_panel(explained(noise(200, 200), runs=runs), None)
    places = dict(drawn.texts)
    header = places["heat maps: gradcam"]
    (first,) = [box for text, box in places.items() if text.startswith("20261123")]
    assert first[1] > header[3] and places["b"][1] > first[3]  # the short title stands beside the last line


@pytest.mark.parametrize("size", [(300, 400), (640, 333), (1600, 20)])
def test_the_photographs_pixels_are_in_the_panel_as_they_are(drawn, size):
    array = noise(*size)
    panel = np.asarray(draw_panel(explained(array, 1), Cover()))
    left, top, right, bottom = (int(edge) for edge in drawn.pictures[0])
    assert (right - left, bottom - top) == size
    assert (panel[top:bottom, left:right] == array).all()


def test_what_is_predicted_and_what_is_true_is_said_in_words(drawn):
    draw_panel(explained(noise(300, 300), 2, NAMES, NAMES[1]), Cover())
    words = drawn.words
    for text in ("predicted", "now predicted", "true class", "the same", "87.3 %", "67.3 %", "47.3 %", "3.2 %", *NAMES):
        assert text in words, text
    assert "step 1: 3.1 % covered (mean)" in words and "step 2: 6.2 % covered (mean)" in words
    assert "still predicted" not in words
    assert words[0] == "photos/bird.jpg" and "run a, heat maps: gradcam" in words


def test_a_decision_that_stays_is_said_to(drawn):
    draw_panel(explained(noise(300, 300), 1, ("finch",)), Cover("gray"))
    assert "still predicted" in drawn.words and "true class" not in drawn.words
    assert "step 1: 3.1 % covered (gray)" in drawn.words


def test_the_class_of_the_map_is_named_where_it_is_another(drawn):
    draw_panel(explained(noise(300, 300), 0, NAMES, None, target="Owl"), None)
    assert drawn.words.count("map of") == 1 and "Owl" in drawn.words and "1.0 %" in drawn.words


def test_a_map_that_marks_nothing_is_said_to(drawn):
    image = explained(noise(300, 300))
    image.explanations[0].sights[0].map[:] = 0
    draw_panel(image, None)
    assert "nothing is marked" in drawn.words


def test_several_are_labeled_by_what_sets_them_apart(drawn):
    draw_panel(explained(noise(300, 300), explainers=("gradcam", "native")), None)
    assert {"gradcam", "native", "run a"} <= set(drawn.words)
    assert len(drawn.pictures) == 4  # the photograph once, two maps and the scale
    drawn.texts.clear()
    draw_panel(explained(noise(300, 300), runs=("x/a", "x/b")), None)
    assert {"a", "b", "heat maps: gradcam"} <= set(drawn.words)
    drawn.texts.clear()
    draw_panel(explained(noise(300, 300), runs=("x/a", "y/a"), explainers=("gradcam", "native")), None)
    assert {"gradcam, x/a", "native, y/a"} <= set(drawn.words)


def test_a_long_run_takes_nothing_from_the_step(drawn):
    runs = ["r/20261123-213938-a-very-long-data-set-timm-resnet18-linear-sgd", "r/b"]
    draw_panel(explained(noise(200, 200), 1, runs=runs), Cover())
    assert sum(word.startswith("step 1: 3.1 % covered") for word in drawn.words) == 2


def test_the_heat_lies_over_the_photograph_and_the_rest_is_dimmed():
    image = explained(np.full((200, 300, 3), 100, np.uint8)).explanations[0]
    photograph = Image.fromarray(np.full((200, 300, 3), 100, np.uint8))
    tile = np.asarray(heat_tile(photograph, image, image.sights[0])).astype(int)
    left, top, right, bottom = whole_box(photograph.size, crop_box(photograph.size, image.preprocessing))
    assert (tile[0, 0] == tile[-1, -1]).all() and tile[0, 0].min() > 180  # pale
    hot = tile[top + (bottom - top) * 12 // SIDE, left + (right - left) * 12 // SIDE]
    cold = tile[bottom - 5, right - 5]
    assert hot[0] > hot[2] + 40 and cold.max() - cold.min() < 12
    line = tile[100, left - 4 : left].max(axis=1)
    assert line.max() == 255 and line.min() == 0  # light and dark, outside of the crop
    assert (tile[100, left + 1] == cold).all()


def test_no_line_is_drawn_where_the_classifier_sees_everything(drawn):
    image = explained(noise(256, 256))
    whole = Preprocessing(SIDE, SIDE, (0.0,) * 3, (1.0,) * 3)
    (e,) = image.explanations
    image = ExplainedImage(image.subject, [Explanation(e.run, e.explainer, whole, e.fill, e.sights)])
    panel = np.asarray(draw_panel(image, None))
    assert not any("outlined" in word for word in drawn.words)
    left, top, right, bottom = (int(edge) for edge in drawn.pictures[1])
    heat = heat_tile(Image.fromarray(noise(256, 256)), image.explanations[0], e.sights[0])
    assert (panel[top:bottom, left:right] == np.asarray(heat)).all()


def test_what_was_covered_has_the_filling_and_the_rest_its_own_colors():
    array = noise(360, 360)
    (e,) = explained(array, 1).explanations
    tile = np.asarray(cover_tile(Image.fromarray(array), e, e.sights[1]))
    box = crop_box((360, 360), e.preprocessing)  # 320 px for 32: ten a pixel, from 20
    assert box == pytest.approx((20, 20, 340, 340))
    assert (tile[105:175, 105:135] == 77).all()
    assert (tile[200:330, 30:330] == array[200:330, 30:330]).all()


def test_the_scale_gets_lighter_all_the_way():
    gray = np.asarray(scale_bar(200, 5).convert("L")).astype(int)
    assert (gray[0] == gray[4]).all() and gray[0, -1] - gray[0, 0] > 80
    assert (np.diff(gray[0, 60:]) >= -1).all()


def test_many_pictures_are_drawn_smaller(drawn, monkeypatch):
    monkeypatch.setattr(panels, "PANEL_PIXELS", 1_000_000)
    draw_panel(explained(noise(700, 700), 3), Cover())
    tiles = drawn.pictures[:8]
    assert sum((b[2] - b[0]) * (b[3] - b[1]) for b in tiles) <= 1_000_000
    assert any("smaller than it is" in word for word in drawn.words)


@pytest.mark.parametrize("size", [(200, 1200), (1200, 200), (700, 700)])
def test_a_panel_of_many_pictures_is_neither_a_tower_nor_a_street(size):
    panel = draw_panel(explained(noise(*size), 3), Cover())
    assert 1 / 6 < panel.width / panel.height < 6


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_panel(tmp_path / "a.png", explained(noise(64, 64)), None)
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"

    def full(self, file, *more, **options):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(FgvcError, match="No space left"):
        write_panel(tmp_path / "a.png", explained(noise(64, 64)), None)
    assert [f.name for f in tmp_path.iterdir()] == ["a.png"] and (tmp_path / "a.png").read_bytes() == before
