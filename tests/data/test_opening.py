from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fgvc_cli import DatasetSpec, settings
from fgvc_cli.contracts import Dataset, DatasetRequest, Split
from fgvc_cli.data import opening
from fgvc_cli.data.opening import open_dataset
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.options import NoOptions
from fgvc_cli.registry import Component
from fgvc_cli.registry.records import Origin


class Drawn(Dataset):
    name = "drawn"
    class_names = ("a", "b")

    def __init__(self, request: DatasetRequest, options: NoOptions) -> None:
        self.request = request
        request.note("drawn anew")
        for done in range(1, 6):
            request.progress("drawing", done, 5)

    def splits(self) -> tuple[str, ...]:
        return ("train",)

    def split(self, name: str) -> Split:
        return Split(name, [np.zeros((2, 2, 3), np.uint8)], [0], ["a"])


def component(monkeypatch: pytest.MonkeyPatch, made: object, reads_folder: bool = False) -> Component:
    spec = DatasetSpec("drawn", "nowhere:Drawn", reads_folder=reads_folder)
    found = Component(spec, Origin("fgvc-drawn", "1.0"))
    monkeypatch.setattr(Component, "load", lambda self: made)
    return found


@pytest.fixture
def fixed_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> settings.Settings:
    chosen = dataclasses.replace(settings.Settings(), data_root_given=tmp_path / "data", cache_given=tmp_path / "cache")
    monkeypatch.setattr(settings, "current", lambda: chosen)
    return chosen


def test_a_data_set_is_told_where_things_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fixed_settings: settings.Settings
) -> None:
    dataset = open_dataset(component(monkeypatch, Drawn, reads_folder=True), NoOptions(), tmp_path, 5)
    assert isinstance(dataset, Drawn)
    request = dataset.request
    assert (request.folder, request.root, request.cache, request.seed) == (
        tmp_path,
        fixed_settings.data_root,
        fixed_settings.cache,
        5,
    )


def test_folders_are_named_whole_wherever_the_program_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fixed_settings: settings.Settings
) -> None:
    chosen = dataclasses.replace(fixed_settings, data_root_given=Path("my data"), cache_given=Path("cache"))
    monkeypatch.setattr(settings, "current", lambda: chosen)
    monkeypatch.chdir(tmp_path)
    request = opening.request_for(None, 0)
    assert (request.root, request.cache) == (tmp_path / "my data", tmp_path / "cache")


def test_what_it_says_goes_to_standard_error_and_progress_to_a_bar(
    monkeypatch: pytest.MonkeyPatch, fixed_settings: settings.Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    events: list[object] = []

    class Bar:
        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            events.append("end")

        def advance(self, n: int) -> None:
            events.append(n)

    monkeypatch.setattr(opening.console, "progress", lambda what, total: events.append((what, total)) or Bar())
    open_dataset(component(monkeypatch, Drawn), NoOptions(), None, 0)
    assert events == [("drawing", 5), 1, 1, 1, 1, 1, "end"]
    captured = capsys.readouterr()
    assert captured.err == "drawn anew\n"
    assert captured.out == ""


def test_a_folder_too_few_or_too_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is made from a folder: name it with --data"):
        open_dataset(component(monkeypatch, Drawn, reads_folder=True), NoOptions(), None, 0)
    with pytest.raises(UsageError, match="takes no folder"):
        open_dataset(component(monkeypatch, Drawn), NoOptions(), tmp_path, 0)


def test_what_is_no_data_set(monkeypatch: pytest.MonkeyPatch, fixed_settings: settings.Settings) -> None:
    with pytest.raises(FgvcError, match="'drawn' of fgvc-drawn is broken: it gave a list"):
        open_dataset(component(monkeypatch, lambda request, options: []), NoOptions(), None, 0)
