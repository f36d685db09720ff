"""`fgvc explain` from end to end, on a classifier that always says "bee"."""

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
    """The current folder: "photos" with bee/one.png and two.jpg, of which only the first tells its class."""
    folder = tmp_path / "here" / "photos"
    (folder / "bee").mkdir(parents=True)
    shutil.copy(tmp_path / "insects/train/ant/0.png", folder / "bee/one.png")
    with Image.open(tmp_path / "insects/train/ant/1.png") as image:
        image.resize((90, 70)).save(folder / "two.jpg")
    monkeypatch.chdir(folder.parent)
    return folder


def test_an_image_gives_a_picture_a_table_and_a_sentence(fgvc, bee_run, photos):
    result = fgvc("explain", "photos/bee/one.png", "--run", bee_run, "--occlude", "--steps", 2, *RANDOM)
    assert result.exit_code == 0, result.stderr
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[0] == "photos/bee/one.png   true class: bee"
    assert lines[1].split() == ["step", "covered", "predicted", "probability", "of", "the", "true", "class"]
    assert [line.split() for line in lines[2:5]] == [
        ["0", "nothing", "bee", "60.0", "%", "60.0", "%"],
        ["1", "20.0", "%", "bee", "60.0", "%", "60.0", "%"],
        ["2", "40.0", "%", "bee", "60.0", "%", "60.0", "%"],
    ]
    assert lines[5].startswith("The decision survived: with the most marked 40.0 % covered it is still bee, at 60.0 %")
    assert "picture: one.explain.png" in lines
    with Image.open("one.explain.png") as picture:
        assert picture.format == "PNG" and picture.width > 3 * 256
    assert f"run        {bee_run}" in result.stderr
    (command,) = [line.removeprefix("next: ") for line in lines if line.startswith("next: ")]
    assert fgvc(*command.split()[1:], *RANDOM, "--out", "figures").exit_code == 0


def test_what_an_explainer_has_to_say_of_a_run_is_said_once(fgvc, bee_run, photos, tmp_path, monkeypatch):
    from fgvc_explainers.random_map import RandomMap

    monkeypatch.setattr(RandomMap, "notes", lambda self, classifier: [f"noise for {len(classifier.class_names)}"])
    shutil.copytree(bee_run, tmp_path / "other")
    result = fgvc("explain", "photos", "--run", bee_run, "--run", tmp_path / "other", *RANDOM)
    assert result.exit_code == 0 and result.stderr.splitlines().count("noise for 3") == 1


def test_without_covering_there_is_no_talk_of_it(fgvc, bee_run, photos):
    result = fgvc("explain", "photos/two.jpg", "--run", bee_run, *RANDOM)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[1].split() == ["predicted", "probability"]
    assert "covered" not in result.stdout and "survived" not in result.stdout
    assert f"next: fgvc explain photos/two.jpg --run {bee_run} --occlude" in result.stdout.replace("../", "")


def test_a_map_that_marks_nothing_tests_nothing(fgvc, bee_run, photos):
    """The scores of this classifier do not hang on the image, so that their gradient is zero."""
    result = fgvc("explain", "photos/two.jpg", "--run", bee_run, "--occlude")
    assert result.exit_code == 0 and "Nothing was covered" in result.stdout


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


def test_runs_and_explainers_side_by_side(fgvc, bee_run, photos, tmp_path):
    shutil.copytree(bee_run, tmp_path / "other")
    arguments = ["--run", bee_run, "--run", tmp_path / "other", "--run", bee_run, *RANDOM, "--explainer", "gradcam"]
    result = fgvc("explain", "photos", *arguments, "--occlude")
    assert result.exit_code == 0, result.stderr
    for label in ("random, bee-run", "gradcam, bee-run", "random, other", "gradcam, other"):
        assert result.stdout.count(f"{label}:") == 3  # a sentence for each image, and the count at the end
    assert "random, other: The decision survived in 2 of 2 images." in result.stdout
    assert "pictures: 2 in ./" in result.stdout


def test_one_bad_image_is_named_and_the_rest_goes_on(fgvc, bee_run, photos):
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    result = fgvc("explain", "photos", "gone.png", "--run", bee_run, *RANDOM, "--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert len(document["images"]) == 2
    assert {f["image"] for f in document["failures"]} == {"photos/broken.jpg", "gone.png"}
    for name in ("photos/broken.jpg", "gone.png"):
        assert result.stderr.count(f"left out: {name}") == 1
    result = fgvc("explain", "photos/broken.jpg", "--run", bee_run, *RANDOM)
    assert result.exit_code == 1 and "No image could be explained" in result.stderr
    assert len(list(photos.parent.glob("*.png"))) == 2


def test_true_is_refused_for_images_that_do_not_tell(fgvc, bee_run, photos):
    result = fgvc("explain", "photos", "--run", bee_run, *RANDOM, "--target", "true")
    assert result.exit_code == 3 and "left out: photos/two.jpg: its true class is not known" in result.stderr
    assert "photos/bee/one.png   true class: bee" in result.stdout


def test_pictures_are_replaced_only_with_force_and_never_explained(fgvc, bee_run, photos):
    first = fgvc("explain", "photos", "--run", bee_run, *RANDOM, "--out", "photos")
    assert first.exit_code == 0, first.stderr
    again = fgvc("explain", "photos", "--run", bee_run, *RANDOM, "--out", "photos")
    assert again.exit_code == 2 and "one.explain.png exists (and 1 more)" in again.stderr and "--force" in again.stderr
    forced = fgvc("explain", "photos", "--run", bee_run, *RANDOM, "--out", "photos", "--force", "--json")
    assert forced.exit_code == 0 and len(json.loads(forced.stdout)["images"]) == 2
    assert "2 pictures called *.explain.png are not explained again" in forced.stderr


def wrong_lines(run: Path, data: Path) -> dict[str, tuple[list[Any], int, str]]:
    """Wrong command lines: arguments after `fgvc explain`, exit code, what must be said."""
    one, of_run = "photos/two.jpg", ["--run", run]
    return {
        "nothing": ([], 2, "name images"),
        "missing": (["gone.jpg", *of_run], 1, "gone.jpg: there is no such file or folder"),
        "run": ([one, "--run", "gone"], 1, "gone: there is no such run"),
        "target": ([one, *of_run, "--target", "beee"], 2, "Did you mean 'bee'"),
        "explainer": ([one, *of_run, "--explainer", "gradcm"], 2, "Did you mean 'gradcam'"),
        "unfit": ([one, *of_run, "--explainer", "native"], 2, "LinearHead"),
        "option": ([one, *of_run, "--set", "explainer.mop=1"], 2, "Did you mean 'map'"),
        "set": ([one, *of_run, "--set", "head.x=1"], 2, "--set head.x=1"),
        "area": ([one, *of_run, "--occlude", "--cover-area", 0], 2, "above 0 and at most 1"),
        "area above": ([one, *of_run, "--occlude", "--cover-area", 1.5], 2, "above 0 and at most 1"),
        "area no number": ([one, *of_run, "--occlude", "--cover-area", "nan"], 2, "above 0 and at most 1"),
        "threshold": ([one, *of_run, "--occlude", "--cover-threshold", 2], 2, "--cover-threshold 2"),
        "both": ([one, *of_run, "--occlude", "--cover-threshold", 0.5, "--cover-area", 0.5], 2, "exclude each other"),
        "steps": ([one, *of_run, "--occlude", "--steps", 0], 2, "--steps"),
        "cover": ([one, *of_run, "--occlude", "--cover", "pink"], 2, "mean, blur, gray"),
        "steps alone": ([one, *of_run, "--steps", 2], 2, "add --occlude"),
        "cover alone": ([one, *of_run, "--cover", "blur"], 2, "add --occlude"),
        "a file as folder": ([one, *of_run, "--out", data / "train/ant/0.png"], 2, "name a folder"),
        "below a file": ([one, *of_run, "--out", data / "train/ant/0.png/x"], 1, "another folder with --out"),
        "with a set": ([one, *of_run, "--dataset", "demo"], 2, "IMAGES and --dataset exclude each other"),
        "with a split": ([one, *of_run, "--split", "test"], 2, "IMAGES and --split exclude each other"),
        "differ": (["--split", "test", *of_run, "--differ"], 2, "two runs"),
        "split": (["--split", "tset", *of_run], 2, "Did you mean 'test'"),
        "class": (["--class", "beee", *of_run], 2, "Did you mean 'bee'"),
        "device": ([one, *of_run, "--device", "gpu"], 2, "cuda"),
    }


@pytest.mark.parametrize("case", list(wrong_lines(Path(), Path())))
def test_a_wrong_command_line_is_one_clear_line_and_leaves_nothing(fgvc, bee_run, photos, tmp_path, case):
    arguments, code, words = wrong_lines(bee_run, tmp_path / "insects")[case]
    result = fgvc("explain", *arguments)
    assert result.exit_code == code, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("fgvc: error:")]
    assert words in line, line
    assert result.stdout == "" and "Traceback" not in result.stderr
    assert [path.name for path in photos.parent.iterdir()] == ["photos"]


def test_without_a_run_it_says_how_to_train_one(fgvc, photos):
    result = fgvc("explain", "photos/two.jpg")
    assert result.exit_code == 1 and "Train one with fgvc train" in result.stderr


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


@pytest.mark.parametrize("json_", [[], ["--json"]])
def test_a_full_disk_keeps_what_is_done(fgvc, bee_run, photos, monkeypatch, json_):
    Stops(OSError(28, "No space left on device"), monkeypatch)
    result = fgvc("explain", "photos", "--run", bee_run, *RANDOM, *json_)
    assert result.exit_code == 1 and "No space left to write two.explain.png" in result.stderr
    assert [path.name for path in photos.parent.iterdir() if path.is_file()] == ["one.explain.png"]
    if json_:
        assert [image["image"] for image in json.loads(result.stdout)["images"]] == ["photos/bee/one.png"]
    else:
        assert "picture: one.explain.png" in result.stdout


@pytest.mark.parametrize("json_", [[], ["--json"]])
def test_an_interruption_shows_what_is_done(fgvc, bee_run, photos, monkeypatch, json_):
    Stops(KeyboardInterrupt(), monkeypatch)
    result = fgvc("explain", "photos", "--run", bee_run, *RANDOM, *json_)
    assert result.exit_code == 130 and "interrupted after 1 of 2 images" in result.stderr
    assert "one.explain.png" in result.stdout and "two.explain.png" not in result.stdout
    if json_:
        assert len(json.loads(result.stdout)["images"]) == 1


def test_an_image_that_vanishes_before_it_is_drawn_is_left_out(fgvc, bee_run, photos, monkeypatch):
    real = panels.draw_panel

    def draw(explained: Any, cover: Any) -> Any:
        if explained.subject.name.endswith("one.png"):
            (photos / "bee/one.png").unlink()
        return real(explained, cover)

    monkeypatch.setattr(panels, "draw_panel", draw)
    result = fgvc("explain", "photos", "--run", bee_run, *RANDOM)
    assert result.exit_code == 3 and "left out: photos/bee/one.png: there is no such file" in result.stderr
    assert "picture: two.explain.png" in result.stdout


def test_figures_over_a_data_set_with_pictures_of_the_most_telling(fgvc, bee_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--run", "bee-run", "--split", "test", "--limit", 4, *RANDOM]  # whose map always marks something
    result = fgvc("explain", *arguments, "--occlude", "--out", "figures", "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary == json.loads((tmp_path / "figures/summary.json").read_text())
    pictures = sorted((tmp_path / "figures/gallery").iterdir())
    assert 0 < len(pictures) == len(summary["gallery"]) and all(p.name.endswith(".explain.png") for p in pictures)
    refused = fgvc("explain", *arguments, "--out", "figures")
    assert refused.exit_code == 2 and "--force" in refused.stderr
    (tmp_path / "figures/gallery/old.explain.png").touch()
    shown = fgvc("explain", *arguments, "--out", "figures", "--force", "--class", "bee")
    assert shown.exit_code == 0 and "pictures: " in shown.stdout and "next: fgvc explain " in shown.stdout
    assert not (tmp_path / "figures/gallery/old.explain.png").exists()
    command = next(line for line in shown.stdout.splitlines() if line.startswith("next: ")).split()[2:]
    assert fgvc(*command).exit_code == 0


@pytest.mark.parametrize("json_", [[], ["--json"]])
def test_figures_are_shown_even_if_drawing_is_interrupted(fgvc, bee_run, tmp_path, monkeypatch, json_):
    Stops(KeyboardInterrupt(), monkeypatch)
    arguments = ["--run", bee_run, "--split", "test", "--limit", 4, *RANDOM, "--out", tmp_path / "figures", *json_]
    result = fgvc("explain", *arguments)
    assert result.exit_code == 130
    if json_:
        assert json.loads(result.stdout) == json.loads((tmp_path / "figures/summary.json").read_text())
    else:
        assert "Faithfulness" in result.stdout
    assert len(list((tmp_path / "figures/gallery").iterdir())) == 1


def test_pictures_of_images_with_one_name_do_not_replace_each_other(fgvc, bee_run, tmp_path):
    for folder in sorted((tmp_path / "insects/test").iterdir()):
        first = sorted(folder.iterdir())[0]
        with Image.open(first) as image:
            image.rotate(90).save(first.with_suffix(".bmp"))  # ant/0.png and ant/0.bmp
    result = fgvc("explain", "--run", bee_run, "--split", "test", *RANDOM, "--out", tmp_path / "figures", "--json")
    assert result.exit_code == 0, result.stderr
    gallery = json.loads(result.stdout)["gallery"]
    stems = [entry["reason"] + Path(entry["key"]).with_suffix("").as_posix() for entry in gallery]
    assert len(set(stems)) < len(stems) == len(list((tmp_path / "figures/gallery").iterdir()))


def test_the_shell_completes_names(fgvc):
    from fgvc_cli.cli.completion import component_names

    assert {"gradcam", "gradcam++"} <= {name for name, _ in component_names("explainer")("grad")}
    text = fgvc("explain", "--help").stdout
    for panel in ("What is explained", "Occlusion test", "Over a dataset", "Computing", "Results"):
        assert panel in text
    assert "Example: fgvc explain photo.jpg --occlude --steps 2" in text
