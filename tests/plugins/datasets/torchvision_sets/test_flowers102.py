from __future__ import annotations

import pytest
from torchvision.datasets import Flowers102

from fgvc_cli.errors import FgvcError


@pytest.fixture
def written(sets):
    case = sets.case("flowers102")
    truth = sets.write(case)
    sets.expect(case, truth)
    return truth


def test_class_names_are_the_real_ones_in_the_published_order(sets, written):
    names = sets.open("flowers102").class_names
    assert names == tuple(Flowers102.classes) and len(set(names)) == 102


def test_the_reports_splits_are_swapped_only_on_request(sets, written):
    official, report = sets.open("flowers102"), sets.open("flowers102", splits="report")
    assert report.splits() == ("train", "val", "test")
    for ours, theirs in (("train", "test"), ("val", "val"), ("test", "train")):
        assert report.split(ours).keys == official.split(theirs).keys
        assert report.split(ours).labels == official.split(theirs).labels
    warning = "as in the June 2024 report: not comparable with the literature"
    assert report.split("train").origin == f"the official test split, {warning}"
    assert report.split("test").origin == f"the official train split, {warning}"
    assert report.split("val").origin == "official"
    assert report.identity()["splits"] == "report" and official.identity()["splits"] == "official"


def test_a_list_with_another_checksum_is_rejected(sets):
    sets.case("flowers102").write(sets.root / "flowers-102")
    lists = sets.root / "flowers-102" / "imagelabels.mat"
    with pytest.raises(FgvcError, match=rf"{lists}: not the published file: .*delete it and prepare"):
        sets.open("flowers102")
