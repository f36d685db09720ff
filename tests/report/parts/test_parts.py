"""What the parts of a run's section say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fgvc_cli.evaluation.split_selection import SplitRequest
from fgvc_cli.report.detail_sections import (
    CLASSES_LISTED,
    EPOCHS_LISTED,
    EXTREME,
    SHOWN,
    classes_section,
    confusion_section,
    curves_section,
    mistakes_section,
    most_confused,
    occlusion_section,
)
from fgvc_cli.report.examples import ReportRequest
from fgvc_cli.report.predictions import confused
from fgvc_cli.report.run_sections import commands, reproducing_section, result, summary_section
from fgvc_cli.runs.results import ClassMetrics, TrainMetrics, ValMetrics


def facts(section, read_page) -> dict[str, str]:
    rows = read_page(section.body).all("tr")
    return {row.one("th").text: row.one("td").text for row in rows}


def test_the_sentence_has_the_accuracy_its_error_and_chance(run_report, scored, read_page):
    report = run_report(scored=scored(4, 100, top1=0.5, top5=0.9, notes=["The figures are old."]))
    page = read_page(result(report))
    said = page.of_class("lede")[0].text
    assert (
        said == "Of 400 test images, 50.0 % are classified rightly (standard error 2.5 %), where guessing gets 8.3 %."
    )
    assert page.of_class("origin")[0].text == "Split: test of demo, drawn (seed 0) . The figures are old."
    statistics = {d.one("dt").text: d.of_class("value")[0].text for d in page.one("dl").all("div")}
    assert statistics["top-5"] == "90.0 %" and statistics["images"] == "400"


def test_other_splits_are_named_and_what_is_missing_is_said(run_report, scored, recorded, read_page):
    report = run_report(
        scored=scored(3, 5, split="val"), recorded=recorded(classes=3, epochs=0), missing=["The images are gone."]
    )
    text = read_page(result(report)).text
    assert "validation images" in text and "The images are gone." in text and "was not trained here" in text
    assert "top-5" not in text, "with so few classes it says nothing"
    assert "No split of this run was scored" in read_page(result(run_report(scored=None))).text


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
    assert (found["images"], found["batch"], found["time"]) == ("train 768, test 300", "16 images", "5:12, 40 images/s")
    assert found["versions"] == "fgvc-cli 0.1.0, torch 2.14.1, python 3.11.7" and "where" not in found


def test_a_damaged_configuration_is_shown_and_says_nothing(recorded, run_report, read_page):
    for text in ("dataset = [", "dataset = 3\ntrain = 'x'"):
        made = recorded(config=text)
        assert "batch" not in facts(summary_section(made, ""), read_page) and made.dataset == "demo"
        assert read_page(reproducing_section(run_report(recorded=made), "").body).one("pre").text == text.replace(
            "\n", " "
        )


def test_a_data_set_of_ones_own_goes_by_its_folder(recorded, read_page):
    made = recorded(config="[dataset]\ndata = '/photos/my birds'\n", dataset={"name": "folder"})
    assert made.title == "timm/resnet18 + linear on my birds"
    assert facts(summary_section(made, ""), read_page)["where"] == "/photos/my birds"


def test_curves_are_there_with_their_figures(recorded, read_page):
    page = read_page(curves_section(recorded(epochs=10), "").body)
    titles = [caption.text for caption in page.all("figcaption")]
    assert titles[:2] == ["Loss (cross entropy, nats)", "Top-1 accuracy, %"]
    assert "validation: from 2.480 in epoch 1 to 1.400 in epoch 10" in page.all("svg")[0]["aria-label"]
    rows = [[cell.text for cell in row.all("th", "td")] for row in page.one("tbody").all("tr")]
    assert len(rows) == 10 and rows[-1][:5] == ["10 (best)", "1.000", "1.400", "80.0 %", "60.0 %"]


def test_of_many_epochs_the_table_has_some_and_the_best(recorded, read_page):
    made = recorded(epochs=500)
    made.epochs[122] = replace(made.epochs[122], val=ValMetrics(5, 1.0, 0.99))
    page = read_page(curves_section(made, "").body)
    numbers = [row.one("th").text for row in page.one("tbody").all("tr")]
    assert len(numbers) <= EPOCHS_LISTED + 1 and {"1", "123 (best)", "500"} <= set(numbers)


def test_without_scores_in_training_or_without_epochs_that_is_said(recorded, read_page):
    made = recorded(epochs=3)
    made.epochs[:] = [replace(line, train=TrainMetrics(5, {"objective": 1.0}), val=None) for line in made.epochs]
    assert "there is no curve" in read_page(curves_section(made, "").body).text
    made.epochs[0] = replace(made.epochs[0], val=ValMetrics(5, None, 0.5))
    page = read_page(curves_section(made, "").body)
    assert len(page.of_class("chart")) == 1, "accuracy, for the loss was not finite"
    assert "was not trained here" in read_page(curves_section(recorded(epochs=0), "").body).text


def names_in(table) -> list[str]:
    return [row.one("th").text for row in table.one("tbody").all("tr")]


def test_few_classes_are_all_shown_worst_first(scored, read_page):
    page = read_page(classes_section(scored(SHOWN, 20), "").body)
    table = page.one("table")
    shares = [float(cell.text.split(" ")[0]) for cell in table.of_class("bar")]
    assert len(shares) == SHOWN and shares == sorted(shares)
    bars = [int(cell["class"].split(" w")[1]) for cell in table.of_class("bar")]
    assert bars == pytest.approx(shares, abs=0.5)
    assert not page.of_class("skyline") and not page.all("details")


def test_of_many_classes_the_worst_and_the_best_are_shown_and_all_on_demand(scored, read_page):
    page = read_page(classes_section(scored(200, 20), "").body)
    worst, best, every = page.all("table")
    assert [len(names_in(table)) for table in (worst, best, every)] == [EXTREME, EXTREME, 200]
    assert names_in(worst) == names_in(every)[:EXTREME] and names_in(best) == names_in(every)[: -EXTREME - 1 : -1]
    assert every in page.one("details").all() and page.of_class("skyline")


def test_a_very_long_list_is_cut_and_says_so(scored, read_page):
    page = read_page(classes_section(scored(CLASSES_LISTED + 100, 2), "").body)
    assert len(names_in(page.all("table")[2])) == CLASSES_LISTED
    assert page.one("summary").text == "The worst 400 classes of 500" and "per_class.csv" in page.one("details").text


def test_classes_without_images_are_named_apart(scored, read_page):
    found = scored(3, 5)
    found.summary.per_class.append(ClassMetrics("rare", 0))
    page = read_page(classes_section(found, "").body)
    assert (
        "rare" not in page.one("table").text and page.one("details").text == "1 class has no image in this split rare"
    )


@pytest.mark.parametrize(("classes", "tag"), [(2, "table"), (16, "table"), (17, "img"), (300, "img")])
def test_the_matrix_is_a_table_of_few_classes_and_a_picture_of_many(scored, read_page, classes, tag):
    page = read_page(confusion_section(scored(classes, 8), "").body)
    assert len(page.of_class("confusion")) == (tag == "table") and len(page.all("img")) == (tag == "img")
    assert page.of_class("pairs")


def test_confused_pairs_are_counted_as_fgvc_evaluate_does(scored, read_page):
    pairs = most_confused(confused(scored(6, 30).predictions))
    images = [pair.images for pair in pairs]
    assert images == sorted(images, reverse=True) and all(p.share == pytest.approx(p.images / 30) for p in pairs)


def test_without_a_mistake_that_is_said(scored, examples, read_page):
    found = scored(["ant", "bee"], 4)
    right = [replace(p, predicted=p.true) for p in found.predictions]
    section = confusion_section(replace(found, predictions=right), "")
    assert "No image is taken for another class" in section.body and section.said == "0 mistakes"
    nothing = replace(examples(), mistakes=[], panels=[])
    assert "There is none to show" in mistakes_section(nothing, "").body
    assert "There is no image to show" in occlusion_section(nothing, "").body


def test_pictures_say_what_they_show(examples, read_page):
    page = read_page(mistakes_section(examples(2), "").body)
    figure = page.all("figure")[0]
    assert figure.one("figcaption").text == "Taken for bee , is ant . ant/1.png"
    assert [tile.of_class("title")[0].text for tile in figure.of_class("tile")] == [
        "photograph",
        "heat map",
        "heat map",
    ]
    occlusion = occlusion_section(examples(2), "")
    assert occlusion.said == "the decision survives in 2 of 2 images"
    page = read_page(occlusion.body)
    assert page.all("figcaption")[0].text == "wrong The true class is ant . The decision survived. ant/1.png"


def test_commands_ask_for_what_was_asked_for(run_report, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    subject = SplitRequest("final", Path("other photos"), None, {"test": "final", "strict": True}, True)
    request = ReportRequest(subject, "layercam", {"map": 0}, images=3)
    report = run_report(request=request, files={"a": Path("a b.png")})
    asked = "--split final --data 'other photos' --set dataset.test=final --set dataset.strict=true --ignore-unknown"
    run = "runs/20261123-demo-resnet18-linear-sgd"
    explaining = "--explainer layercam --set explainer.map=0"
    assert [command for _, command in commands(report)] == [
        f"fgvc train --config {run}/config.toml",
        f"fgvc evaluate {run} {asked}",
        f"fgvc explain 'a b.png' --run {run} --occlude --steps 3 {explaining}",
        f"fgvc report {run} {asked} {explaining} --images 3",
    ]
    plain = [command for _, command in commands(run_report())]
    assert plain == [f"fgvc train --config {run}/config.toml", f"fgvc evaluate {run}", f"fgvc report {run}"]
