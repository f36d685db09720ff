from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fgvc_cli import DatasetSpec, progress, settings
from fgvc_cli.contracts import Dataset, DatasetRequest, Split
from fgvc_cli.data.opening import dataset_request, open_dataset
from fgvc_cli.data.splits import match_classes
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.options import NoOptions
from fgvc_cli.registry import Component
from fgvc_cli.registry.records import Origin

CLASSES = ("finch", "jay", "owl", "wren")


class Generated(Dataset):
    name = "generated"
    class_names = ("a", "b")

    def __init__(self, request: DatasetRequest, options: NoOptions) -> None:
        self.request = request
        request.note("generating images")
        for done in range(1, 6):
            request.progress("generating", done, 5)

    def splits(self) -> tuple[str, ...]:
        return ("train",)

    def split(self, name: str) -> Split:
        return Split(name, [np.zeros((2, 2, 3), np.uint8)], [0], ["a"])


def component(monkeypatch: pytest.MonkeyPatch, made: object, reads_folder: bool = False) -> Component:
    spec = DatasetSpec("generated", "nowhere:Generated", reads_folder=reads_folder)
    monkeypatch.setattr(Component, "load", lambda self: made)
    return Component(spec, Origin("fgvc-generated", "1.0"))


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings with folders relative to the current one."""
    monkeypatch.chdir(tmp_path)
    chosen = dataclasses.replace(settings.Settings(), data_root_given=Path("my data"), cache_given=Path("cache"))
    with settings.override(chosen):
        yield


def test_a_dataset_gets_absolute_folders_and_the_seed(monkeypatch, tmp_path, folders) -> None:
    dataset = open_dataset(component(monkeypatch, Generated, reads_folder=True), NoOptions(), tmp_path, 5)
    assert isinstance(dataset, Generated)
    request = dataset.request
    assert (request.folder, request.seed) == (tmp_path, 5)
    assert (request.root, request.cache) == (tmp_path / "my data", tmp_path / "cache")
    assert dataset_request(None, 0).folder is None


def test_notes_are_logged_and_progress_is_reported(monkeypatch, folders, caplog) -> None:
    events: list[object] = []

    class Bar:
        def advance(self, n: int = 1, text: str = "") -> None:
            events.append(n)

    @contextmanager
    def display(*what: object) -> Iterator[Bar]:
        events.append(what)
        yield Bar()
        events.append("end")

    monkeypatch.setattr(progress, "display", display)
    with caplog.at_level("INFO", "fgvc_cli"):
        open_dataset(component(monkeypatch, Generated), NoOptions(), None, 0)
    assert events == [("generating", 5, "images"), 1, 1, 1, 1, 1, "end"]
    assert [record.getMessage() for record in caplog.records] == ["generating images"]


def test_a_path_that_is_missing_or_not_taken(monkeypatch, tmp_path) -> None:
    with pytest.raises(UsageError, match="folder"):
        open_dataset(component(monkeypatch, Generated, reads_folder=True), NoOptions(), None, 0)
    with pytest.raises(UsageError, match="takes no folder"):
        open_dataset(component(monkeypatch, Generated), NoOptions(), tmp_path, 0)


def test_a_plugin_that_returns_no_dataset(monkeypatch, folders) -> None:
    with pytest.raises(FgvcError, match="'generated' of fgvc-generated==.* breaks its contract: .* a list"):
        open_dataset(component(monkeypatch, lambda request, options: []), NoOptions(), None, 0)


def split(labels: list[int]) -> Split:
    images = [np.zeros((2, 2, 3), np.uint8) for _ in labels]
    return Split("test", images, labels, [f"{i}.png" for i in range(len(labels))], origin="somewhere")


def test_labels_are_matched_by_class_name(caplog: pytest.LogCaptureFixture) -> None:
    matched = match_classes(split([0, 2, 2, 3]), CLASSES, ("wren", "owl", "tit", "finch"), ignore_unknown=False)
    assert list(matched.labels) == [3, 1, 1, 0]
    assert list(matched.keys) == ["0.png", "1.png", "2.png", "3.png"]
    assert (matched.name, matched.origin) == ("test", "somewhere")
    assert not caplog.records
    # a class without images does not count
    assert list(match_classes(split([0]), CLASSES, ("finch",), ignore_unknown=False).labels) == [0]


def test_unknown_classes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"2 classes of the test split: 'jay', 'owl'\. .*`ignore_unknown`"):
        match_classes(split([0, 1, 2, 3]), CLASSES, ("finch", "wren"), ignore_unknown=False)
    with pytest.raises(UsageError, match=r"1 class of .*'finch'\. Did you mean 'Finch'\?"):
        match_classes(split([0]), CLASSES, ("Finch", "wren"), ignore_unknown=False)


def test_unknown_classes_can_be_skipped(caplog: pytest.LogCaptureFixture) -> None:
    matched = match_classes(split([0, 1, 1, 3]), CLASSES, ("wren", "finch"), ignore_unknown=True)
    assert list(matched.labels) == [1, 0] and list(matched.keys) == ["0.png", "3.png"]
    assert "2 images" in caplog.text and "'jay'" in caplog.text
    with pytest.raises(FgvcError, match="test split"):
        match_classes(split([1, 1]), CLASSES, ("wren",), ignore_unknown=True)
