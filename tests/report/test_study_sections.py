"""The page of a study."""

from __future__ import annotations

import pytest

from fgvc_cli.experiments.folder import FailedRun
from fgvc_cli.report.report import study_page


@pytest.fixture(scope="module")
def page(study_report, read_page):
    def make(*given, **more):
        return read_page(study_page(study_report(*given, **more)).html())

    whole = make()
    return lambda *given, **more: make(*given, **more) if given or more else whole


def test_the_lede_names_the_best_and_the_significance(page):
    lede = page().of_class("lede")[0].text
    assert lede.startswith("timm/resnet18 + linear + sgd is best") and "other 2 combinations are significantly" in lede
    assert "is best" not in page(["linear"]).of_class("lede")[0].text


def test_the_table_links_to_the_runs(page, study_report):
    document = page()
    table = document.of_class("comparison")[0]
    rows = table.one("tbody").all("tr")
    assert [row.one("a").text for row in rows] == [f"timm/resnet18 + {h} + sgd" for h in ("linear", "pim", "cmal")]
    targets = [row.one("a")["href"].lstrip("#") for row in rows]
    assert targets == ["run-1", "run-3", "run-5"], "each combination has two seeds"
    for target, head in zip(targets, ("linear", "pim", "cmal"), strict=True):
        assert f"{head} + sgd, seed 0" in document.by_id(target).text
    headings = [cell.text for cell in table.one("thead").all("th")]
    costs = ["parameters", "minutes", "images/s", "seeds"]
    assert headings == ["backbone + head + optimizer", "top-1", "gap to best", "group", "macro F1", *costs]
    first = study_report().comparison.tables[0].rows[0]
    assert f"{100 * first.top1.mean:.1f} ± 0.0" in rows[0].text and "2 seeds" in rows[0].text
    assert "Holm" in document.of_class("notes")[0].text


def test_accuracy_against_time_has_a_point_per_run(page):
    chart = page().by_id("costs").one("figure")
    paths = [(path.get("class") or "", path["d"]) for path in chart.all("path")]
    points = [d for name, d in paths if "large" in name and "M7 7" not in d]
    assert len(points) == 3 and all(path.count("M") == 2 for path in points)
    assert not [name for name, _ in paths if name.startswith("line")]
    description = chart.all("svg")[0]["aria-label"]
    assert "pim + sgd: " in description and "after 2.0" in description


def test_learning_curves_share_a_legend(page):
    curves = page().by_id("curves")
    assert len(curves.all("figure")) == 4
    for figure in curves.all("figure"):
        assert sum((path.get("class") or "").startswith("line") for path in figure.all("path")) == 3
    (legend,) = curves.of_class("legend")
    assert [item.text for item in legend.all("li")] == [f"timm/resnet18 + {h} + sgd" for h in ("linear", "pim", "cmal")]


def test_of_many_combinations_the_best_are_drawn(page):
    document = page([f"h{i:02}" for i in range(19)], 1)
    assert "The 3 combinations" in document.by_id("curves").text
    assert len(document.of_class("comparison")[0].one("tbody").all("tr")) == 19
    hollow = [path for path in document.by_id("costs").all("path") if "hollow" in (path.get("class") or "")]
    assert len(hollow) == 2 * 8, "the second eight have hollow points, in the plot and in the legend"


def test_failures_are_at_the_top(page):
    failed = [FailedRun("x-seed0", "resnet50", "<b>", "sgd", 0, "Out of memory with batches of 16.")]
    missing = page(failed=failed).of_class("missing")[0].text
    assert "resnet50 + <b> + sgd, seed 0" in missing and "Out of memory with batches of 16." in missing


def test_how_to_reproduce_it(page):
    section = page().by_id("reproduce").text
    assert "fgvc sweep --config runs/study/study.toml" in section and "seeds = [0, 1]" in section


def test_each_run_is_folded(page):
    runs = page().by_id("runs")
    folded = runs.of_class("folded")
    assert len(folded) == 6
    assert [h.text for h in folded[0].all("h3")] == ["1. timm/resnet18 + linear + sgd, seed 0"]
    assert "How to reproduce it" in [h.text for h in folded[0].all("h4")]
