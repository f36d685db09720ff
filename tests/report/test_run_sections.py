"""The content of a run's section."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fgvc_cli.evaluation.split_selection import SplitRequest
from fgvc_cli.report.detail_sections import (
    ALL_SHOWN,
    EXTREMES,
    MAX_CLASSES,
    MAX_EPOCHS,
    classes_section,
    confusion_section,
    curves_section,
    mistakes_section,
    occlusion_section,
)
from fgvc_cli.report.examples import ReportRequest
from fgvc_cli.report.run_sections import commands, reproducing_section, result, summary_section
from fgvc_cli.runs.results import ClassMetrics, TrainMetrics, ValMetrics


def facts(section, read_page) -> dict[str, str]:
    rows = read_page(section.body).all("tr")
    return {row.one("th").text: row.one("td").text for row in rows}


def test_the_result_has_accuracy_standard_error_and_chance(run_report, scored, read_page):
    report = run_report(scores=scored(4, 100, top1=0.5, top5=0.9, notes=["An old evaluation."]))
    page = read_page(result(report))
    lede = page.of_class("lede")[0].text
    assert all(text in lede for text in ("50.0 % of 400 test images", "2.5 %", "8.3 %"))
    origin = page.of_class("origin")[0].text
    assert "test of demo, drawn (seed 0)" in origin and "An old evaluation." in origin
    statistics = {d.one("dt").text: d.of_class("value")[0].text for d in page.one("dl").all("div")}
    assert statistics["top-5"] == "90.0 %" and statistics["images"] == "400"


def test_other_splits_and_missing_parts(run_report, scored, recorded, read_page):
    report = run_report(
        scores=scored(3, 5, split="val"), record=recorded(classes=3, epochs=0), missing=["The images are gone."]
    )
    text = read_page(result(report)).text
    assert "validation images" in text and "The images are gone." in text and "not trained" in text
    assert "top-5" not in text and "no evaluation" in read_page(result(run_report(scores=None))).text


def test_the_summary_has_the_facts(recorded, read_page):
    sam = {"name": "sam", "distribution": "fgvc-cli", "version": "0.1.0", "options": {"rho": 0.05}}
    made = recorded(stopped_early=True, best_epoch=7, processes=2)
    made.summary.components.update(
        optimizer={**sam, "base": made.summary.components["optimizer"]},
        head={**made.summary.components["head"], "distribution": "fgvc-bilinear", "version": "2.0"},
    )
    found = facts(summary_section(made, ""), read_page)
    assert found["optimizer"] == "sam over sgd" and found["options"] == "rho 0.05, lr 0.03, nesterov yes"
    assert found["head"] == "linear (fgvc-bilinear 2.0)" and found["backbone"] == "timm/resnet18"
    assert found["parameters"] == "11.2 M backbone + 6.16 k head = 11.2 M"
    assert found["epochs"] == "10, stopped early; best: 7" and found["processes"] == "2"
    assert (found["images"], found["batch size"], found["time"]) == ("train 768, test 300", "16", "5:12, 40 images/s")
    assert found["versions"] == "fgvc-cli 0.1.0, torch 2.14.1, python 3.11.7" and "path" not in found


@pytest.mark.parametrize("text", ["dataset = [", "dataset = 3\ntrain = 'x'"])
def test_a_damaged_configuration_is_shown(recorded, run_report, read_page, text):
    made = recorded(config=text)
    assert "batch size" not in facts(summary_section(made, ""), read_page) and made.dataset == "demo"
    page = read_page(reproducing_section(run_report(record=made), "").body)
    assert page.one("pre").text == " ".join(text.split())


def test_the_users_own_data_is_named_after_its_folder(recorded, read_page):
    made = recorded(config="[dataset]\ndata = '/photos/my birds'\n", dataset={"name": "folder"})
    assert made.title == "timm/resnet18 + linear on my birds"
    assert facts(summary_section(made, ""), read_page)["path"] == "/photos/my birds"


def test_learning_curves_and_their_values(recorded, read_page):
    page = read_page(curves_section(recorded(epochs=10), "").body)
    titles = [caption.text for caption in page.all("figcaption")]
    assert titles[0].startswith("Loss") and titles[1].startswith("Top-1")
    assert "validation: from 2.480 in epoch 1 to 1.400 in epoch 10" in page.all("svg")[0]["aria-label"]
    rows = [[cell.text for cell in row.all("th", "td")] for row in page.one("tbody").all("tr")]
    assert len(rows) == 10 and rows[-1][:5] == ["10 (best)", "1.000", "1.400", "80.0 %", "60.0 %"]


def test_of_many_epochs_the_table_has_some_and_the_best(recorded, read_page):
    made = recorded(epochs=500)
    made.epochs[122] = replace(made.epochs[122], val=ValMetrics(5, 1.0, 0.99))
    page = read_page(curves_section(made, "").body)
    numbers = [row.one("th").text for row in page.one("tbody").all("tr")]
    assert len(numbers) <= MAX_EPOCHS + 1 and {"1", "123 (best)", "500"} <= set(numbers)


def test_missing_metrics(recorded, read_page):
    made = recorded(epochs=3)
    made.epochs[:] = [replace(line, train=TrainMetrics(5, {"objective": 1.0}), val=None) for line in made.epochs]
    assert not read_page(curves_section(made, "").body).of_class("chart")
    made.epochs[0] = replace(made.epochs[0], val=ValMetrics(5, None, 0.5))
    assert len(read_page(curves_section(made, "").body).of_class("chart")) == 1, "the loss was not finite"
    assert "not trained" in read_page(curves_section(recorded(epochs=0), "").body).text


def names_in(table) -> list[str]:
    return [row.one("th").text for row in table.one("tbody").all("tr")]


def test_few_classes_are_all_shown_worst_first(scored, read_page):
    page = read_page(classes_section(scored(ALL_SHOWN, 20), "").body)
    bars = page.one("table").of_class("bar")
    accuracies = [float(cell.text.split(" ")[0]) for cell in bars]
    assert len(accuracies) == ALL_SHOWN and accuracies == sorted(accuracies)
    assert [int(cell["class"].split(" w")[1]) for cell in bars] == pytest.approx(accuracies, abs=0.5)
    assert not page.of_class("skyline") and not page.all("details")


def test_of_many_classes_the_extremes_are_shown(scored, read_page):
    page = read_page(classes_section(scored(200, 20), "").body)
    worst, best, every = page.all("table")
    assert [len(names_in(table)) for table in (worst, best, every)] == [EXTREMES, EXTREMES, 200]
    assert names_in(worst) == names_in(every)[:EXTREMES] and names_in(best) == names_in(every)[: -EXTREMES - 1 : -1]
    assert every in page.one("details").all() and page.of_class("skyline")


def test_a_very_long_list_of_classes_is_cut(scored, read_page):
    page = read_page(classes_section(scored(MAX_CLASSES + 100, 2), "").body)
    assert len(names_in(page.all("table")[2])) == MAX_CLASSES
    assert "400 classes of 500" in page.one("summary").text and "per_class.csv" in page.one("details").text


def test_classes_without_images_are_listed_separately(scored, read_page):
    found = scored(3, 5)
    found.summary.per_class.append(ClassMetrics("rare", 0))
    page = read_page(classes_section(found, "").body)
    assert "rare" not in page.one("table").text and "rare" in page.one("details").text


@pytest.mark.parametrize(("classes", "kind"), [(2, "confusion"), (16, "confusion"), (17, "matrix"), (300, "matrix")])
def test_the_matrix_is_a_table_of_few_classes_and_an_image_of_many(scored, read_page, classes, kind):
    page = read_page(confusion_section(scored(classes, 8), "").body)
    assert [len(page.of_class(name)) for name in ("confusion", "matrix")] == [kind == "confusion", kind == "matrix"]
    assert page.of_class("pairs")


def test_without_mistakes_or_images(scored, examples):
    found = scored(["ant", "bee"], 4)
    right = [replace(p, predicted=p.true) for p in found.predictions]
    summary = replace(found.summary, most_confused=[])
    section = confusion_section(replace(found, predictions=right, summary=summary), "")
    assert '<table class="pairs">' not in section.body and section.subtitle == "0 mistakes"
    nothing = replace(examples(), mistakes=[], panels=[])
    assert all("<figure" not in make(nothing, "").body for make in (mistakes_section, occlusion_section))


def test_examples_name_classes_and_files(examples, read_page):
    page = read_page(mistakes_section(examples(2), "").body)
    caption = page.all("figure")[0].one("figcaption").text
    assert all(text in caption for text in ("Predicted bee", "true class ant", "ant/1.png"))
    occlusion = occlusion_section(examples(2), "")
    assert "2 of 2 images" in occlusion.subtitle
    caption = read_page(occlusion.body).all("figcaption")[0].text
    assert all(text in caption for text in ("wrong", "ant", "The decision survived.", "ant/1.png"))


def test_commands_repeat_the_request(run_report, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    split = SplitRequest("final", Path("other photos"), None, {"test": "final", "strict": True}, True)
    request = ReportRequest(split, "layercam", {"map": 0}, images=3)
    report = run_report(request=request, image_files={"a": Path("a b.png")})
    options = "--split final --data 'other photos' --set dataset.test=final --set dataset.strict=true --ignore-unknown"
    run = "runs/20261123-demo-resnet18-linear-sgd"
    explainer = "--explainer layercam --set explainer.map=0"
    assert [command for _, command in commands(report)] == [
        f"fgvc train --config {run}/config.toml",
        f"fgvc evaluate {run} {options}",
        f"fgvc explain 'a b.png' --run {run} --occlude --steps 3 {explainer}",
        f"fgvc report {run} {options} {explainer} --images 3",
    ]
    plain = [command for _, command in commands(run_report())]
    assert plain == [f"fgvc train --config {run}/config.toml", f"fgvc evaluate {run}", f"fgvc report {run}"]
