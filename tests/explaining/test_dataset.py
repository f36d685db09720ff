"""Dataset explanations from end to end: a classifier of one patch, on folders of lamps and on the demo birds."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from fgvc_cli.cli.explanation_tables import closing_lines, show_dataset_explanation
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.evaluation.split_selection import SplitRequest
from fgvc_cli.explaining import dataset
from fgvc_cli.explaining.dataset import DatasetExplanation, DatasetExplanationRequest
from fgvc_cli.explaining.masking import Masking
from fgvc_cli.explaining.statistics import ExplainerSummary

MIDDLE = (slice(2, 6), slice(2, 6))


@pytest.fixture
def explain(registry):
    """Function that explains the test split of runs."""

    def run(*models: Path, **more) -> DatasetExplanation:
        given = {"explainers": ("perfect", "inverted"), "masking": Masking(area=0.25), "curve_steps": 8, **more}
        return dataset.explain_dataset(DatasetExplanationRequest(models, **given), registry)

    return run


def entry(result: DatasetExplanation, name: str, model: Path | None = None) -> ExplainerSummary:
    return next(
        e
        for e in result.summary.explainers
        if e.explainer == name and model in (None, Path(e.run, "model.safetensors"))
    )


def rows(result: DatasetExplanation, file: str = "images.csv") -> list[dict[str, str]]:
    with (result.folder / file).open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_figures_are_those_computed_by_hand(run_of, explain) -> None:
    result = explain(run_of())
    assert [e.explainer for e in result.summary.explainers] == ["perfect", "inverted", "random"]
    perfect, inverted = entry(result, "perfect").totals, entry(result, "inverted").totals
    assert (perfect.images, perfect.right_images, perfect.nothing_marked) == (14, 14, 4)
    # 6 lamps are fully lit, 4 by 9 of 16 pixels, and 4 are dark
    assert perfect.means.probability_before == pytest.approx((6 + 4 * 9 / 16 + 4) / 14, abs=1e-5)
    assert perfect.means.probability_after == pytest.approx(4 / 14, abs=1e-5)
    assert (perfect.means.flipped, perfect.flipped_images) == (pytest.approx(10 / 14), 10)
    assert (perfect.means.survived, perfect.survived_images) == (pytest.approx(4 / 14), 4)
    assert perfect.means.covered == pytest.approx((6 * 16 + 4 * 9) / 64 / 14)
    fraction = 10 / 14
    assert perfect.standard_errors.flipped == pytest.approx(math.sqrt(fraction * (1 - fraction) / 13))
    assert (inverted.means.flipped, inverted.means.survived) == (0, 1)
    assert inverted.means.average_drop == pytest.approx(10 / 14, abs=1e-5)  # the lit part is multiplied by 0
    assert perfect.means.average_drop == pytest.approx(0, abs=1e-5)
    assert perfect.means.pointing is None and perfect.pointing_images == 0  # the parts are unknown


def test_a_perfect_map_beats_the_random_one_and_an_inverted_map_loses(run_of, explain) -> None:
    result = explain(run_of(), classes=("lit",))
    better, worse = entry(result, "perfect").over_random, entry(result, "inverted").over_random
    assert better["deletion_auc"].difference < -4 * better["deletion_auc"].standard_error
    assert worse["deletion_auc"].difference > 4 * worse["deletion_auc"].standard_error
    assert better["flipped"].difference > 0
    assert entry(result, "random").over_random is None and entry(result, "random").is_baseline
    lines = closing_lines(result)
    assert any(line.startswith("perfect ") and "deletion better" in line for line in lines)
    assert any(line.startswith("inverted ") and "deletion worse" in line for line in lines)


def test_the_files_have_a_row_per_image_and_per_class(run_of, explain) -> None:
    model = run_of()
    result = explain(model)
    assert result.folder == model.parent / "explanation" / "test"
    document = json.loads((result.folder / "summary.json").read_text())
    assert document == result.summary.as_json()
    assert {"run", "explainer", "images", "deletion_auc", "standard_errors", "steps", "over_random", "per_class"} < set(
        document["explainers"][0]
    )
    assert len(rows(result)) == 3 * 14
    lit = next(row for row in rows(result) if row["key"] == "lit/0.png" and row["explainer"] == "perfect")
    assert (lit["true"], lit["predicted"], lit["after"], lit["explained"]) == ("lit", "lit", "dark", "lit")
    assert (lit["flipped"], lit["survived"], lit["covered"], lit["pointing"]) == ("1", "0", "0.25", "")
    classes = {(row["explainer"], row["class"]): row for row in rows(result, "per_class.csv")}
    assert len(classes) == 3 * 2  # "unseen" has no image
    assert classes["perfect", "lit"]["images"] == "10" and classes["perfect", "dark"]["survived"] == "1.0"
    again = explain(model)
    assert again.summary.explainers == result.summary.explainers  # also of the random map


def test_the_gallery_has_the_largest_drops(run_of, explain) -> None:
    result = explain(run_of(), gallery=3)
    drops = [image for image in result.summary.gallery if image.reason == "largest drop"]
    assert [image.key for image in drops] == ["lit/0.png", "lit/1.png", "lit/2.png"]
    assert drops[0].words == "true class from 100 to 0 % with 25 % masked"
    assert drops[0].file is not None and drops[0].file.is_file()
    # the dark ones survive, but their maps are zero, so nothing was masked
    assert not [image for image in result.summary.gallery if image.reason == "survived"]
    assert {image.explainer for image in result.summary.gallery} == {"perfect"}


def test_each_step_has_its_own_means(run_of, explain, bars) -> None:
    result = explain(run_of(), classes=("lit",), steps=3, masking=Masking(area=6 / 64), target="lit")
    steps = entry(result, "perfect").steps
    assert [step.probability for step in steps] == pytest.approx(
        [(6 + 4 * 9 / 16) / 10, (6 * 10 + 4 * 3) / 160, 6 * 4 / 160, 0], abs=1e-5
    )
    assert [step.survived for step in steps] == [1, 0.6, 0, 0]
    assert [step.flipped for step in steps] == [0, 0.4, 1, 1]
    survivor = next(image for image in result.summary.gallery if image.reason == "survived")
    assert survivor.words.startswith("true class survives 1 step:")
    description, total, advanced = bars[-1]
    assert (description, sum(advanced)) == ("explaining", total)


def test_the_target_can_be_any_class(run_of, explain) -> None:
    model = run_of()
    true = entry(explain(model, target="true"), "perfect").totals.means
    dark = entry(explain(model, target="dark"), "perfect").totals.means
    assert true.probability_before == pytest.approx((6 + 4 * 9 / 16 + 4) / 14, abs=1e-5)
    assert dark.probability_before == pytest.approx((4 * 7 / 16 + 4) / 14, abs=1e-5)
    assert dark.probability_after == pytest.approx(1, abs=1e-5)
    with pytest.raises(UsageError, match=r"target=lit2.*Did you mean 'lit'"):
        explain(model, target="lit2")


def test_a_limit_is_balanced_across_classes(run_of, explain, caplog) -> None:
    caplog.set_level("INFO", "fgvc_cli")
    result = explain(run_of(), limit=6)
    assert entry(result, "perfect").totals.images == 6
    assert result.summary.chosen.startswith("3 of each of 2 classes")
    assert "6 of 14, test of " in caplog.text
    assert [row["key"] for row in rows(result) if row["explainer"] == "perfect"] == [
        "dark/0.png", "lit/1.png", "dark/2.png", "lit/5.png", "dark/3.png", "lit/8.png",
    ]  # fmt: skip


def test_differ_selects_images_that_only_the_first_run_gets_right(run_of, explain) -> None:
    right, wrong = run_of("right"), run_of("wrong", patch=MIDDLE)
    result = explain(right, wrong, differ=True)
    keys = [row["key"] for row in rows(result) if row["explainer"] == "perfect" and row["run"] == str(right.parent)]
    # the middle patch has 4 of the corner's 16 pixels: it predicts dark everywhere
    assert keys == [*(f"lit/{i}.png" for i in range(6)), *(f"lit/{i}.png" for i in range(6, 10))]  # by confidence
    first, second = (entry(result, "perfect", model).totals for model in (right, wrong))
    assert (first.right_images, second.right_images, second.means.survived) == (10, 0, None)
    limited = explain(right, wrong, differ=True, limit=2, force=True)
    assert limited.summary.images_chosen == 2 and "confident first" in limited.summary.chosen
    with pytest.raises(FgvcError, match=r"differ.*4 of 14 right"):
        explain(wrong, right, differ=True)
    with pytest.raises(UsageError, match="differ"):
        explain(right, differ=True)


def test_classes_of_runs_are_matched_by_name(run_of, explain) -> None:
    here, there = run_of("here"), run_of("there", class_names=("dark", "LIT", "lit"))
    result = explain(here, there, explainers=("perfect",))
    assert entry(result, "perfect", here).totals.right_images == 14
    assert entry(result, "perfect", there).totals.right_images == 4  # its LIT is not "lit"
    stranger = run_of("stranger", class_names=("dark", "on", "off"))
    with pytest.raises(UsageError, match=r"stranger.*1 class.*'lit'"):
        explain(here, stranger)
    known = explain(here, stranger, split=SplitRequest(ignore_unknown=True), force=True)
    assert {e.totals.images for e in known.summary.explainers} == {4}


def test_an_interruption_keeps_what_was_measured(run_of, explain, monkeypatch) -> None:
    measure, batches = dataset.measure_batch, []

    def interrupted(*arguments):
        batches.append(1)
        if len(batches) == 3:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(dataset, "measure_batch", interrupted)
    result = explain(run_of())
    assert result.summary.interrupted and result.summary.images_chosen == 14
    assert {e.totals.images for e in result.summary.explainers} == {8}
    classes = [row["true"] for row in rows(result) if row["explainer"] == "perfect"]
    assert classes == ["dark", "lit"] * 4  # not only the first classes
    assert any("8 of 14 images" in line for line in closing_lines(result))


def test_an_interruption_before_the_first_batch_leaves_nothing(run_of, explain, monkeypatch) -> None:
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "measure_batch", interrupted)
    model = run_of()
    with pytest.raises(KeyboardInterrupt):
        explain(model)
    assert not (model.parent / "explanation").exists()


def test_unreadable_images_are_reported_and_skipped(run_of, lamps, explain) -> None:
    (lamps / "test/lit/3.png").write_bytes(b"\x89PNG broken")
    result = explain(run_of())
    assert list(result.summary.failures) == ["lit/3.png"]
    assert entry(result, "perfect").totals.images == 13
    assert any("(1): lit/3.png" in line for line in closing_lines(result))
    for file in (lamps / "test").rglob("*.png"):
        file.write_bytes(b"\x89PNG broken")
    with pytest.raises(FgvcError, match="none of the 14 images"):
        explain(run_of("other"))


def test_impossible_requests_are_refused_before_anything_is_written(run_of, explain, lamps) -> None:
    model = run_of()
    for error, words, more in (
        (UsageError, "refusing explains no classifier", {"explainers": ("perfect", "refusing")}),
        (FgvcError, "class=unseen.*test", {"classes": ("unseen",)}),
        (UsageError, "class=litt.*Did you mean 'lit'", {"classes": ("litt",)}),
        (UsageError, "tset.*Did you mean 'test'", {"split": SplitRequest(split="tset")}),
        (UsageError, "limit=0", {"limit": 0}),
        (UsageError, "force", {"out": lamps / "train"}),
    ):
        with pytest.raises(error, match=words):
            explain(model, **more)
    assert not (model.parent / "explanation").exists()


def test_an_explainer_with_maps_out_of_range_is_refused_at_once(run_of, explain, monkeypatch):
    measure, batches = dataset.measure_batch, []
    monkeypatch.setattr(dataset, "measure_batch", lambda *arguments: batches.append(1) or measure(*arguments))
    model = run_of()
    with pytest.raises(FgvcError, match="'too-high' of .* breaks its contract"):
        explain(model, explainers=("perfect", "too-high"))
    assert len(batches) == 1 and not (model.parent / "explanation").exists()


def test_pointing_at_the_boxes_of_birds(run_of, ready, explain, registry, monkeypatch) -> None:
    from fgvc_cli.data.opening import open_dataset
    from fgvc_cli.options import build

    component = registry.find("dataset", "demo")
    options = {"train": 1, "val": 1, "test": 2, "size": 32}
    demo = open_dataset(component, build(component.options_type(), options, "dataset"), None, 0)
    split, deciding = demo.split("test"), demo.deciding_parts()
    model = run_of()
    bird = ready(model_file=model, class_names=demo.class_names, side=32)
    monkeypatch.setattr(dataset, "load", lambda model_file, inference: bird)
    result = explain(model, explainers=("center",), split=SplitRequest(dataset="demo", options=options))
    expected, any_part = [], []
    for label, boxes in zip(split.labels, split.parts, strict=True):  # the map points at pixel (16, 16)
        hit = {name for name, (x0, y0, x1, y1) in boxes.items() if x0 <= 16 < x1 and y0 <= 16 < y1}
        expected.append(bool(hit & set(deciding[demo.class_names[label]])))
        any_part.append(bool(hit))
    assert 0 < sum(expected) < sum(any_part) < 24
    center = entry(result, "center").totals
    assert (center.means.pointing, center.means.pointing_any) == pytest.approx((sum(expected) / 24, sum(any_part) / 24))
    assert center.pointing_images == 24
    of_center = {row["key"]: row for row in rows(result) if row["explainer"] == "center"}
    assert [of_center[key]["pointing"] == "1" for key in split.keys] == expected
    x0, y0, x1, y1 = split.parts[0][deciding[demo.class_names[split.labels[0]]][0]]
    assert float(of_center[split.keys[0]]["pointing_chance"]) >= (x1 - x0) * (y1 - y0) / 32**2 - 1e-6
    assert 0 < center.means.pointing_chance < center.means.pointing_chance_any < 1
    assert center.means.pointing_gain == pytest.approx(center.means.pointing - center.means.pointing_chance)
    assert "pointing at deciding parts" in closing_lines(result)[0]


def test_the_tables_show_the_figures(run_of, explain, capsys) -> None:
    show_dataset_explanation(explain(run_of()))
    text = " ".join(capsys.readouterr().out.split())
    assert "28.6 % ± 12.5 (4 of 14)" in text  # the true class survives, of the images classified correctly
    assert "(masked: 25 %, mean)" in text and "14 of 14 images" in text
    assert "Pointing game" not in text
    assert "largest drop: true class from 100 to 0 %" in text
