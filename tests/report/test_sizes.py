"""Size limits of a page: 450 kB for a run, 10 MB for 20 runs."""

from __future__ import annotations

import pytest

from fgvc_cli.report.examples import IMAGES
from fgvc_cli.report.pictures import MAX_BYTES
from fgvc_cli.report.report import runs_page, study_page

RUN, STUDY = 450_000, 10_000_000


def size(reports) -> int:
    return len(runs_page(reports).html().encode())


def test_the_pictures_of_these_tests_are_of_the_largest_size(examples):
    (uri,) = {tile.picture.uri for example in examples().panels for tile in example.tiles}
    assert MAX_BYTES * 0.7 < len(uri) * 3 / 4 < MAX_BYTES * 1.01


@pytest.mark.parametrize(("classes", "images"), [(12, 25), (1000, 5)])
def test_a_run_with_the_largest_pictures_is_small(run_report, recorded, scored, classes, images):
    report = run_report(record=recorded(classes=classes, epochs=300), scores=scored(classes, images))
    assert len(report.examples.mistakes) == len(report.examples.panels) == IMAGES
    assert size([report]) < RUN


def test_a_study_of_twenty_runs_is_small(study_report, examples):
    study = study_report([f"head-{i}" for i in range(20)], seeds=1, examples=examples(), classes=200, epochs=100)
    page = study_page(study).html()
    assert len(study.runs) == 20 and page.count("data:image") > 20 * 2 * IMAGES and len(page.encode()) < STUDY
