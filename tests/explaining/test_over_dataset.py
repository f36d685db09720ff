"""A study from end to end: a classifier of one patch, on folders of lamps and on the drawn birds."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from fgvc_cli.cli.explanation_tables import closing_lines, show_study
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.evaluation.images import SubjectRequest
from fgvc_cli.explaining import dataset
from fgvc_cli.explaining.dataset import study
from fgvc_cli.explaining.masking import Cover
from fgvc_cli.explaining.request import StudyRequest

QUARTER = Cover(area=0.25)
MIDDLE = (slice(2, 6), slice(2, 6))


def request(*models: Path, **more) -> StudyRequest:
    return StudyRequest(models, **{"explainers": ("knowing", "inverted"), "cover": QUARTER, "curve_steps": 8, **more})


def entry(done, name: str, run: Path | None = None) -> dict:
    entries = [e for e in done.summary["explainers"] if e["explainer"] == name]
    return next(e for e in entries if run is None or e["run"] == str(run.parent))


def test_figures_of_a_study_by_hand(run_of, registry, view) -> None:
    done = study(request(run_of()), registry, view)
    assert [e["explainer"] for e in done.summary["explainers"]] == ["knowing", "inverted", "random"]
    knowing, inverted = entry(done, "knowing"), entry(done, "inverted")
    assert knowing["images"] == 14 and knowing["right_images"] == 14
    # 6 lamps are lit whole, 4 by 9 of 16 pixels, and 4 are surely dark
    assert knowing["probability_before"] == pytest.approx((6 + 4 * 9 / 16 + 4) / 14, abs=1e-5)
    assert knowing["probability_after"] == pytest.approx(4 / 14, abs=1e-5)
    assert (knowing["flipped"], knowing["flipped_images"]) == (pytest.approx(10 / 14), 10)
    assert (knowing["survived"], knowing["survived_images"]) == (pytest.approx(4 / 14), 4)
    assert knowing["covered"] == pytest.approx((6 * 16 + 4 * 9) / 64 / 14)
    assert knowing["nothing_marked"] == 4
    share = 10 / 14
    assert knowing["standard_errors"]["flipped"] == pytest.approx(math.sqrt(share * (1 - share) / 13))
    assert (inverted["flipped"], inverted["survived"]) == (0, 1)
    assert inverted["average_drop"] == pytest.approx(10 / 14, abs=1e-5)  # the lit part is multiplied by 0
    assert knowing["average_drop"] == pytest.approx(0, abs=1e-5)
    assert knowing["pointing"] is None and knowing["pointing_images"] == 0  # nobody knows the parts


def test_the_map_that_knows_beats_the_random_one_and_the_inverted_one_loses(run_of, registry, view) -> None:
    done = study(request(run_of(), classes=("lit",)), registry, view)
    better, worse = entry(done, "knowing")["over_random"], entry(done, "inverted")["over_random"]
    assert better["deletion_auc"]["difference"] < -4 * better["deletion_auc"]["standard_error"]
    assert worse["deletion_auc"]["difference"] > 4 * worse["deletion_auc"]["standard_error"]
    assert better["flipped"]["difference"] > 0
    assert entry(done, "random")["over_random"] is None and entry(done, "random")["is_baseline"]
    lines = closing_lines(done)
    assert any(line.startswith("knowing beside a random map: deletion better") for line in lines)
    assert any(line.startswith("inverted beside a random map: deletion worse") for line in lines)


def test_files_have_a_line_an_image_and_a_line_a_class(run_of, registry, view) -> None:
    model = run_of()
    done = study(request(model), registry, view)
    assert done.folder == model.parent / "explanation" / "test"
    assert json.loads((done.folder / "summary.json").read_text()) == done.summary
    with (done.folder / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 14
    lit = next(row for row in rows if row["key"] == "lit/0.png" and row["explainer"] == "knowing")
    assert (lit["true"], lit["predicted"], lit["after"], lit["explained"]) == ("lit", "lit", "dark", "lit")
    assert (lit["flipped"], lit["survived"], lit["covered"], lit["pointing"]) == ("1", "0", "0.25", "")
    with (done.folder / "per_class.csv").open(newline="") as file:
        classes = {(row["explainer"], row["class"]): row for row in csv.DictReader(file)}
    assert len(classes) == 3 * 2  # "unseen" has no image
    assert classes["knowing", "lit"]["images"] == "10" and classes["knowing", "dark"]["survived"] == "1.0"
    again = study(request(model), registry, view)
    assert [e["deletion_auc"] for e in again.summary["explainers"]] == [
        e["deletion_auc"] for e in done.summary["explainers"]
    ]  # the random map too


def test_the_gallery_names_what_is_telling(run_of, registry, view) -> None:
    done = study(request(run_of(), telling=3), registry, view)
    drops = [telling for telling in done.gallery if telling.reason == "largest drop"]
    assert [telling.key for telling in drops] == ["lit/0.png", "lit/1.png", "lit/2.png"]
    assert drops[0].words == "true class from 100 to 0 % with 25 % covered"
    assert drops[0].file is not None and drops[0].file.is_file()
    # the dark ones survive, but nothing is marked there, and so nothing was covered
    assert not [telling for telling in done.gallery if telling.reason == "survived"]
    assert {telling.explainer for telling in done.gallery} == {"knowing"}
    assert done.summary["gallery"][0]["file"] == str(drops[0].file)


def test_the_gallery_names_what_survives_a_covering(run_of, registry, view) -> None:
    done = study(request(run_of(), telling=3, explainers=("inverted",)), registry, view)
    survived = [telling for telling in done.gallery if telling.reason == "survived"]
    assert len(survived) == 3 and all("25 % covered" in telling.words for telling in survived)


def test_steps_are_told_one_by_one(run_of, registry, view) -> None:
    done = study(request(run_of(), classes=("lit",), steps=3, cover=Cover(area=6 / 64), target="lit"), registry, view)
    steps = entry(done, "knowing")["steps"]
    assert [step["probability"] for step in steps] == pytest.approx(
        [(6 + 4 * 9 / 16) / 10, (6 * 10 + 4 * 3) / 160, 6 * 4 / 160, 0], abs=1e-5
    )
    assert [step["survived"] for step in steps] == [1, 0.6, 0, 0]
    assert [step["flipped"] for step in steps] == [0, 0.4, 1, 1]
    survivor = next(t for t in done.gallery if t.reason == "survived")
    assert survivor.words.startswith("true class survives 1 covering:")


def test_the_class_that_is_explained_can_be_named(run_of, registry, view) -> None:
    model = run_of()
    true = entry(study(request(model, target="true"), registry, view), "knowing")
    dark = entry(study(request(model, target="dark"), registry, view), "knowing")
    assert true["probability_before"] == pytest.approx((6 + 4 * 9 / 16 + 4) / 14, abs=1e-5)
    assert dark["probability_before"] == pytest.approx((4 * 7 / 16 + 4) / 14, abs=1e-5)
    assert dark["probability_after"] == pytest.approx(1, abs=1e-5)
    with pytest.raises(UsageError, match=r"--target lit2.*Did you mean 'lit'"):
        study(request(model, target="lit2"), registry, view)


def test_a_limit_says_what_it_takes(run_of, registry, view) -> None:
    done = study(request(run_of(), limit=6), registry, view)
    assert entry(done, "knowing")["images"] == 6
    assert done.summary["chosen"] == "3 of each of 2 classes, evenly apart"
    assert view.notes[0].startswith("images     6 of 14, test of ")
    rows = [row for row in csv.DictReader((done.folder / "images.csv").open()) if row["explainer"] == "knowing"]
    assert [row["key"] for row in rows] == [
        "dark/0.png", "lit/1.png", "dark/2.png", "lit/5.png", "dark/3.png", "lit/8.png",
    ]  # fmt: skip


def test_differ_takes_what_one_gets_right_and_the_other_wrong(run_of, registry, view) -> None:
    right, wrong = run_of("right"), run_of("wrong", patch=MIDDLE)
    done = study(request(right, wrong, differ=True), registry, view)
    rows = list(csv.DictReader((done.folder / "images.csv").open()))
    keys = [row["key"] for row in rows if row["explainer"] == "knowing" and row["run"] == str(right.parent)]
    # of the corner's 16 pixels the middle patch has 4 of its 16: it sees darkness everywhere
    assert keys == [*(f"lit/{i}.png" for i in range(6)), *(f"lit/{i}.png" for i in range(6, 10))]  # the surest first
    assert entry(done, "knowing", right)["right_images"] == 10 and entry(done, "knowing", wrong)["right_images"] == 0
    assert entry(done, "knowing", wrong)["survived"] is None
    limited = study(request(right, wrong, differ=True, limit=2, force=True), registry, view)
    assert limited.summary["images_chosen"] == 2 and "the first's surest first" in limited.summary["chosen"]
    with pytest.raises(FgvcError, match=r"--differ: no image is right.*gets 4 of 14 right"):
        study(request(wrong, right, differ=True), registry, view)
    with pytest.raises(UsageError, match="--differ compares two runs"):
        request(right, differ=True)


def test_runs_are_compared_by_the_names_of_their_classes(run_of, registry, view) -> None:
    here, there = run_of("here"), run_of("there", class_names=("dark", "LIT", "lit"))
    done = study(request(here, there, explainers=("knowing",)), registry, view)
    assert entry(done, "knowing", here)["right_images"] == 14
    assert entry(done, "knowing", there)["right_images"] == 4  # what it calls LIT is not "lit"
    stranger = run_of("stranger", class_names=("dark", "on", "off"))
    with pytest.raises(UsageError, match=r"--run .*stranger: 1 class of the test split is unknown.*'lit'"):
        study(request(here, stranger), registry, view)
    known = study(request(here, stranger, subject=SubjectRequest(ignore_unknown=True), force=True), registry, view)
    assert {e["images"] for e in known.summary["explainers"]} == {4}


def test_an_interruption_gives_what_is_done(run_of, registry, view, monkeypatch) -> None:
    measure, batches = dataset.measure, []

    def interrupted_measure(*arguments):
        batches.append(1)
        if len(batches) == 3:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(dataset, "measure", interrupted_measure)
    done = study(request(run_of()), registry, view)
    assert done.interrupted and done.summary["interrupted"]
    assert {e["images"] for e in done.summary["explainers"]} == {8}
    assert done.summary["images_chosen"] == 14
    with (done.folder / "images.csv").open(newline="") as file:
        classes = [row["true"] for row in csv.DictReader(file) if row["explainer"] == "knowing"]
    assert classes == ["dark", "lit"] * 4  # not the first classes alone
    assert "interrupted: the figures are of 8 of 14 images." in closing_lines(done)
    assert json.loads((done.folder / "summary.json").read_text())["interrupted"]


def test_an_interruption_before_the_first_batch_is_one(run_of, registry, view, monkeypatch) -> None:
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "measure", interrupted)
    model = run_of()
    with pytest.raises(KeyboardInterrupt):
        study(request(model), registry, view)
    assert not (model.parent / "explanation").exists()


def test_unreadable_images_are_named_and_the_rest_go_on(run_of, lamps, registry, view, capsys) -> None:
    (lamps / "test/lit/3.png").write_bytes(b"\x89PNG broken")
    done = study(request(run_of()), registry, view)
    assert [failure["key"] for failure in done.summary["failures"]] == ["lit/3.png"] and done.failed == 1
    assert entry(done, "knowing")["images"] == 13
    assert "left out, for they cannot be read (1): lit/3.png" in closing_lines(done)
    for file in (lamps / "test").rglob("*.png"):
        file.write_bytes(b"\x89PNG broken")
    with pytest.raises(FgvcError, match="None of the 14 images"):
        study(request(run_of("other")), registry, view)


def test_what_cannot_be_done_is_said_before_anything_is(run_of, registry, view, lamps) -> None:
    model = run_of()
    with pytest.raises(UsageError, match="refusing explains no classifier"):
        study(request(model, explainers=("knowing", "refusing")), registry, view)
    with pytest.raises(FgvcError, match="--class unseen: the test split has no image"):
        study(request(model, classes=("unseen",)), registry, view)
    with pytest.raises(UsageError, match=r"--class litt.*Did you mean 'lit'"):
        study(request(model, classes=("litt",)), registry, view)
    with pytest.raises(UsageError, match="--split tset"):
        study(request(model, subject=SubjectRequest(split="tset")), registry, view)
    with pytest.raises(UsageError, match="--limit 0"):
        request(model, limit=0)
    out = lamps / "train"
    with pytest.raises(UsageError, match="--force"):
        study(request(model, out=out), registry, view)
    assert not (model.parent / "explanation").exists()


@pytest.mark.parametrize("name", ["not-a-number", "too-high"])
def test_an_explainer_whose_maps_have_other_values_is_refused_at_once(run_of, registry, view, monkeypatch, name):
    measure, batches = dataset.measure, []
    monkeypatch.setattr(dataset, "measure", lambda *arguments: batches.append(1) or measure(*arguments))
    model = run_of()
    with pytest.raises(FgvcError, match=f"{name} breaks its contract: its maps have values outside"):
        study(request(model, explainers=("knowing", name)), registry, view)
    assert len(batches) == 1 and not (model.parent / "explanation").exists()


def test_the_bar_counts_every_pass(run_of, registry, view) -> None:
    study(request(run_of(), steps=3), registry, view)
    description, total, done = view.bars[-1]
    assert (description, done) == ("explaining", total)


def test_birds_are_pointed_at_where_their_boxes_are(run_of, ready, registry, view, monkeypatch) -> None:
    from fgvc_cli.data.opening import open_dataset
    from fgvc_cli.options import build

    component = registry.find("dataset", "demo")
    options = {"train": 1, "val": 1, "test": 2, "size": 32}
    demo = open_dataset(component, build(component.options_type(), options, "dataset"), None, 0)
    split, deciding = demo.split("test"), demo.deciding_parts()
    model = run_of()
    bird = ready(model_file=model, class_names=demo.class_names, side=32)
    monkeypatch.setattr(dataset, "load", lambda model_file, computing: bird)
    subject = SubjectRequest(dataset="demo", options=options)
    done = study(request(model, explainers=("center",), subject=subject), registry, view)
    expected, any_part = [], []
    for label, boxes in zip(split.labels, split.parts, strict=True):  # the map points at pixel (16, 16)
        hit = {name for name, (x0, y0, x1, y1) in boxes.items() if x0 <= 16 < x1 and y0 <= 16 < y1}
        expected.append(bool(hit & set(deciding[demo.class_names[label]])))
        any_part.append(bool(hit))
    assert 0 < sum(expected) < sum(any_part) < 24
    center = entry(done, "center")
    assert (center["pointing"], center["pointing_any"]) == pytest.approx((sum(expected) / 24, sum(any_part) / 24))
    assert center["pointing_images"] == 24
    with (done.folder / "images.csv").open(newline="") as file:
        rows = {row["key"]: row for row in csv.DictReader(file) if row["explainer"] == "center"}
    assert [rows[key]["pointing"] == "1" for key in split.keys] == expected
    x0, y0, x1, y1 = split.parts[0][deciding[demo.class_names[split.labels[0]]][0]]
    assert float(rows[split.keys[0]]["pointing_chance"]) >= (x1 - x0) * (y1 - y0) / 32**2 - 1e-6
    assert 0 < center["pointing_chance"] < center["pointing_chance_any"] < 1
    assert center["pointing_gain"] == pytest.approx(center["pointing"] - center["pointing_chance"])
    assert "pointing at deciding parts" in closing_lines(done)[0]


def test_tables_say_the_same_in_words(run_of, registry, view, capsys) -> None:
    done = study(request(run_of()), registry, view)
    show_study(done)
    text = capsys.readouterr().out
    assert "28.6 % ± 12.5 (4 of 14)" in text  # the true class survives, of those that were right
    assert "Most marked part covered (25 %, mean)" in text
    assert "14 of 14 images; maps of the predicted class" in text
    assert "Pointing game" not in text
    assert "largest drop: true class from 100 to 0 %" in " ".join(text.split())
    assert "knowing marks nothing at all in 4 images." in text


def test_what_is_said_of_several_runs_says_of_which(run_of, registry, view, capsys) -> None:
    first, second = run_of("first"), run_of("second")
    done = study(request(first, second), registry, view)
    lines = closing_lines(done)
    for name in (first.parent.name, second.parent.name):
        assert any(line.startswith(f"knowing, {name} beside a random map: ") for line in lines)
        assert any(line.startswith(f"knowing, {name} marks nothing at all in") for line in lines)
    show_study(done)
    assert f"Classes (knowing, {first.parent.name})" in capsys.readouterr().out


def test_what_is_the_same_is_not_worse(run_of, registry, view) -> None:
    done = study(request(run_of()), registry, view)
    over = entry(done, "knowing")["over_random"]
    over["deletion_auc"] = over["insertion_auc"] = {"difference": 0.0, "standard_error": 0.0}
    assert (
        "knowing beside a random map: deletion no clear difference (+0.000), insertion no clear difference"
        in (closing_lines(done)[0])
    )
