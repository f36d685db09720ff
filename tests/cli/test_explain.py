"""`fgvc explain` from end to end, on a classifier that always predicts "bee"."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fgvc_cli.explaining import panels

RANDOM = ["--explainer", "random"]


@pytest.fixture
def photos(bee_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder "photos" of the current folder, with bee/one.png and two.jpg, of which only the first is labeled."""
    folder = tmp_path / "here" / "photos"
    (folder / "bee").mkdir(parents=True)
    shutil.copy(tmp_path / "insects/train/ant/0.png", folder / "bee/one.png")
    with Image.open(tmp_path / "insects/train/ant/1.png") as image:
        image.resize((90, 70)).save(folder / "two.jpg")
    monkeypatch.chdir(folder.parent)
    return folder


def test_an_image_has_a_picture_a_table_and_a_sentence(fgvc, bee_run, photos):
    result = fgvc("explain", "photos/bee/one.png", "--run", bee_run, "--occlude", "--steps", 2, *RANDOM)
    assert result.exit_code == 0, result.stderr
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[0] == "photos/bee/one.png   true class: bee"
    assert lines[1].split() == ["step", "masked", "predicted", "probability", "of", "the", "true", "class"]
    assert [line.split() for line in lines[2:5]] == [
        ["0", "nothing", "bee", "60.0", "%", "60.0", "%"],
        ["1", "20.0", "%", "bee", "60.0", "%", "60.0", "%"],
        ["2", "40.0", "%", "bee", "60.0", "%", "60.0", "%"],
    ]
    assert lines[5].startswith("The prediction survived: with the most salient 40.0 % masked it is still bee")
    assert "picture: one.explain.png" in lines
    with Image.open("one.explain.png") as picture:
        assert picture.format == "PNG" and picture.width > 3 * 256
    assert f"run        {bee_run}" in result.stderr
    (command,) = [line.removeprefix("next: ") for line in lines if line.startswith("next: ")]
    assert fgvc(*command.split()[1:], *RANDOM, "--out", "figures").exit_code == 0


def test_without_occlusion_only_the_prediction_is_shown(fgvc, bee_run, photos):
    result = fgvc("explain", "photos/two.jpg", "--run", bee_run, *RANDOM)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[1].split() == ["predicted", "probability"]
    assert f"next: fgvc explain photos/two.jpg --run {bee_run} --occlude" in result.stdout.replace("../", "")


def test_a_zero_map_makes_the_test_void(fgvc, bee_run, photos):
    """The scores of this classifier do not depend on the image, so their gradient is zero."""
    result = fgvc("explain", "photos/two.jpg", "--run", bee_run, "--occlude")
    assert result.exit_code == 0 and "Nothing was masked" in result.stdout


def test_json_is_one_document(fgvc, bee_run, photos):
    result = fgvc("explain", "photos", "--run", bee_run, "--occlude", *RANDOM, "--json", "--target", "cat")
    document = json.loads(result.stdout)
    assert document["occlusion"] == {"fill": "mean", "area": 0.2, "threshold": None, "steps": 1}
    assert (document["runs"], document["target"], document["failures"]) == ([str(bee_run)], "cat", [])
    assert [e["name"] for e in document["explainers"]] == ["random"]
    first, second = document["images"]
    assert [first["image"], second["image"]] == ["photos/bee/one.png", "photos/two.jpg"]
    assert [first["true"], second["true"]] == ["bee", None]
    (explanation,) = first["explanations"]
    assert explanation["survived"] is True and [look["step"] for look in explanation["looks"]] == [0, 1]
    look = explanation["looks"][1]
    assert (look["covered"], look["predicted"], look["explained"]) == (pytest.approx(0.2, abs=1e-3), "bee", "cat")
    assert [look[p] for p in ("probability", "true_probability", "explained_probability")] == pytest.approx(
        [0.6, 0.6, 0.1], abs=1e-5
    )
    assert Path(first["picture"]).is_file()


def test_runs_and_explainers_are_compared(fgvc, bee_run, photos, tmp_path, monkeypatch):
    from fgvc_explainers.random_map import RandomMap

    monkeypatch.setattr(RandomMap, "notes", lambda self, classifier: [f"noise for {len(classifier.class_names)}"])
    shutil.copytree(bee_run, tmp_path / "other")
    arguments = ["--run", bee_run, "--run", tmp_path / "other", "--run", bee_run, *RANDOM, "--explainer", "gradcam"]
    result = fgvc("explain", "photos", *arguments, "--occlude")
    assert result.exit_code == 0, result.stderr
    for label in ("random, bee-run", "gradcam, bee-run", "random, other", "gradcam, other"):
        assert result.stdout.count(f"{label}:") == 3  # a sentence for each image, and the count at the end
    assert "random, other: The prediction survived in 2 of 2 images." in result.stdout
    assert "pictures: 2 in ./" in result.stdout
    assert result.stderr.splitlines().count("noise for 3") == 1


def test_unreadable_images_are_reported_and_skipped(fgvc, bee_run, photos):
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    result = fgvc("explain", "photos", "gone.png", "--run", bee_run, *RANDOM, "--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert len(document["images"]) == 2
    assert {f["image"] for f in document["failures"]} == {"photos/broken.jpg", "gone.png"}
    for name in ("photos/broken.jpg", "gone.png"):
        assert result.stderr.count(f" {name}: ") == 1
    result = fgvc("explain", "photos/broken.jpg", "--run", bee_run, *RANDOM)
    assert result.exit_code == 1 and "no image could be explained" in result.stderr


def test_unlabeled_images_are_skipped_if_the_target_is_true(fgvc, bee_run, photos):
    result = fgvc("explain", "photos", "--run", bee_run, *RANDOM, "--target", "true")
    assert result.exit_code == 3 and "photos/two.jpg: its true class is unknown" in result.stderr
    assert "photos/bee/one.png   true class: bee" in result.stdout


def test_pictures_are_overwritten_only_with_force_and_never_explained(fgvc, bee_run, photos):
    arguments = ["explain", "photos", "--run", bee_run, *RANDOM, "--out", "photos"]
    assert fgvc(*arguments).exit_code == 0
    again = fgvc(*arguments)
    assert again.exit_code == 2 and "one.explain.png already exists (and 1 more)" in again.stderr
    assert "--force" in again.stderr and "--out" in again.stderr
    forced = fgvc(*arguments, "--force", "--json")
    assert forced.exit_code == 0 and len(json.loads(forced.stdout)["images"]) == 2
    assert "skipping 2 earlier pictures" in forced.stderr


ONE = "photos/two.jpg"
WRONG: dict[str, tuple[list[Any], int, str]] = {
    "nothing": ([], 2, "give images"),
    "missing": (["gone.jpg", "--run", "RUN"], 1, "gone.jpg: no such file"),
    "run": ([ONE, "--run", "gone"], 1, "gone"),
    "target": ([ONE, "--run", "RUN", "--target", "beee"], 2, "Did you mean 'bee'"),
    "explainer": ([ONE, "--run", "RUN", "--explainer", "gradcm"], 2, "Did you mean 'gradcam'"),
    "unsuitable": ([ONE, "--run", "RUN", "--explainer", "native"], 2, "LinearHead"),
    "option": ([ONE, "--run", "RUN", "--set", "explainer.mop=1"], 2, "Did you mean 'map'"),
    "area": ([ONE, "--run", "RUN", "--occlude", "--cover-area", "nan"], 2, "--cover-area nan"),
    "cover": ([ONE, "--run", "RUN", "--occlude", "--cover", "pink"], 2, "mean, blur, gray"),
    "test": ([ONE, "--run", "RUN", "--steps", 2], 2, "add --occlude"),
    "file": ([ONE, "--run", "RUN", "--out", "FILE"], 2, "name a folder"),
    "dataset": ([ONE, "--run", "RUN", "--dataset", "demo"], 2, "IMAGES and --dataset exclude each other"),
    "differ": (["--split", "test", "--run", "RUN", "--differ"], 2, "two runs"),
    "both": ([ONE, "--occlude", "--cover-threshold", 0.5, "--cover-area", 0.5], 2, "exclude each other"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_command_line_is_one_line_and_leaves_nothing(fgvc, bee_run, photos, tmp_path, case):
    arguments, code, words = WRONG[case]
    places = {"RUN": bee_run, "FILE": tmp_path / "insects/train/ant/0.png"}
    result = fgvc("explain", *(places.get(argument, argument) for argument in arguments))
    assert result.exit_code == code, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("fgvc: error:")]
    assert words in line, line
    assert result.stdout == "" and "Traceback" not in result.stderr
    assert [path.name for path in photos.parent.iterdir()] == ["photos"]


class Stops:
    """Lets one panel be saved, and then fails."""

    def __init__(self, error: BaseException, patch: pytest.MonkeyPatch) -> None:
        self.saved, real = 0, Image.Image.save

        def save(image: Any, file: Any, *more: Any, **options: Any) -> None:
            self.saved += 1
            if self.saved > 1:
                raise error
            real(image, file, *more, **options)

        patch.setattr(panels.Image.Image, "save", save)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(28, "No space left on device"), 1, "two.explain.png"),
        (KeyboardInterrupt(), 130, "interrupted after 1 of 2 images"),
    ],
)
def test_a_full_disk_or_an_interruption_keeps_what_is_done(fgvc, bee_run, photos, monkeypatch, error, code, words):
    Stops(error, monkeypatch)
    result = fgvc("explain", "photos", "--run", bee_run, *RANDOM, "--json")
    assert result.exit_code == code and words in result.stderr
    assert [path.name for path in photos.parent.iterdir() if path.is_file()] == ["one.explain.png"]
    assert [image["image"] for image in json.loads(result.stdout)["images"]] == ["photos/bee/one.png"]


def test_an_image_deleted_before_it_is_drawn_is_skipped(fgvc, bee_run, photos, monkeypatch):
    real = panels.draw_panel

    def draw(explained: Any) -> Any:
        if explained.input.name.endswith("one.png"):
            (photos / "bee/one.png").unlink()
        return real(explained)

    monkeypatch.setattr(panels, "draw_panel", draw)
    result = fgvc("explain", "photos", "--run", bee_run, *RANDOM)
    assert result.exit_code == 3 and "photos/bee/one.png: " in result.stderr
    assert "picture: two.explain.png" in result.stdout


def test_a_dataset_has_figures_and_pictures_of_examples(fgvc, bee_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in sorted((tmp_path / "insects/test").iterdir()):
        first = sorted(folder.iterdir())[0]
        with Image.open(first) as image:
            image.rotate(90).save(first.with_suffix(".bmp"))  # ant/0.png and ant/0.bmp
    arguments = ["--run", "bee-run", "--split", "test", *RANDOM, "--out", "figures"]
    result = fgvc("explain", *arguments, "--occlude", "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary == json.loads((tmp_path / "figures/summary.json").read_text())
    stems = [entry["reason"] + Path(entry["key"]).with_suffix("").as_posix() for entry in summary["gallery"]]
    assert len(set(stems)) < len(stems)  # two images with the same name, for the same reason
    pictures = sorted((tmp_path / "figures/gallery").iterdir())
    assert len(pictures) == len(summary["gallery"]) and all(p.name.endswith(".explain.png") for p in pictures)
    refused = fgvc("explain", *arguments)
    assert refused.exit_code == 2 and "--force" in refused.stderr
    (tmp_path / "figures/gallery/old.explain.png").touch()
    shown = fgvc("explain", *arguments, "--force", "--class", "bee", "--limit", 2)
    assert shown.exit_code == 0 and "pictures: " in shown.stdout and "next: fgvc explain " in shown.stdout
    assert not (tmp_path / "figures/gallery/old.explain.png").exists()


def test_figures_are_printed_even_if_drawing_is_interrupted(fgvc, bee_run, tmp_path, monkeypatch):
    Stops(KeyboardInterrupt(), monkeypatch)
    arguments = ["--run", bee_run, "--split", "test", "--limit", 4, *RANDOM, "--out", tmp_path / "figures"]
    result = fgvc("explain", *arguments)
    assert result.exit_code == 130 and "Faithfulness" in result.stdout
    assert len(list((tmp_path / "figures/gallery").iterdir())) == 1


def test_why_one_class_and_not_another(fgvc, bee_run, photos):
    """This classifier ignores the image, so its maps are flat, but everything else of the comparison is there."""
    result = fgvc("explain", "photos", "--run", bee_run, "--versus", "ant", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0 and document["versus"] == "ant"
    (explanation,) = document["images"][0]["explanations"]
    assert (explanation["versus"], explanation["versus_probability"]) == ("ant", pytest.approx(0.3, abs=1e-5))
    assert explanation["looks"][0]["explained"] == "bee"
    result = fgvc("explain", "photos/two.jpg", "--run", bee_run, "--versus", "ant", "--occlude", "--force")
    assert "ant" in result.stdout and "30.0 %" in result.stdout
    with Image.open("two.explain.png") as picture:
        assert picture.width * picture.height > 4 * 256 * 199  # four pictures of 270 x 210


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["photos", "--versus", "bees"], "--versus bees: the run has no such class. Did you mean 'bee'?"),
        (["photos", "--versus", "ant", *RANDOM], "--versus ant: the maps of random are the same for every class"),
        (["--split", "test", "--versus", "ant"], "--versus compares two classes in the pictures of IMAGES"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused(fgvc, bee_run, photos, arguments, reason):
    result = fgvc("explain", *arguments, "--run", bee_run)
    assert result.exit_code == 2 and reason in result.stderr and len(result.stderr.splitlines()) <= 2


def test_images_of_the_class_to_compare_with_are_skipped(fgvc, bee_run, photos):
    result = fgvc("explain", "photos", "--run", bee_run, "--versus", "bee")
    assert result.exit_code == 1 and "bee is the predicted class itself" in result.stderr


@pytest.mark.parametrize("command", ["explain", "predict"])
def test_an_interruption_leaves_a_whole_document(fgvc, bee_run, photos, command, monkeypatch):
    from fgvc_cli.cli.console import JsonDocument

    added = JsonDocument.add

    def interrupted(document, item):
        added(document, item)
        raise KeyboardInterrupt

    monkeypatch.setattr(JsonDocument, "add", interrupted)
    more = RANDOM if command == "explain" else []
    result = fgvc(command, "photos", "--run", bee_run, "--json", *more)
    assert result.exit_code == 130
    document = json.loads(result.stdout)
    assert len(document["images" if command == "explain" else "predictions"]) == 1
    assert "interrupted after" in result.stderr and "of 2 images" in result.stderr
