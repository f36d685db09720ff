"""Images that files and folders name, and files that are no images."""

from __future__ import annotations

import pytest

from fgvc_cli.data.inputs import find_inputs, note_ignored


def test_files_that_are_no_images_are_counted_by_suffix(tmp_path, caplog) -> None:
    caplog.set_level("INFO", "fgvc_cli")
    for name in ("a.jpg", "IMG_1.CR2", "sub/IMG_2.cr2", "IMG_3", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found, failures = find_inputs([tmp_path])
    assert [path.name for path in found] == ["a.jpg"] and not failures
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "4 files" in record.message
    assert "2 .cr2, 1 without suffix, 1 .txt" in record.message and "raw" in record.message


@pytest.mark.parametrize(("ignored", "level"), [({".txt": 2, "": 1}, "INFO"), ({".nef": 1}, "WARNING"), ({}, None)])
def test_photographs_among_them_are_a_warning(ignored, level, caplog) -> None:
    caplog.set_level("INFO", "fgvc_cli")
    note_ignored("photos", ignored)
    assert [record.levelname for record in caplog.records] == ([] if level is None else [level])
