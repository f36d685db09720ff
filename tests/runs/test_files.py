import errno

import pytest

from fgvc_cli import files
from fgvc_cli.errors import FgvcError


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})

    def fail():
        with files.replacing(path) as beside:
            beside.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(FgvcError, match="No space left to write .*a.json"):
        fail()
    assert files.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_not_a_number_is_not_written(tmp_path):
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_damaged_and_missing_json_are_named(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(FgvcError, match="bad.json is damaged"):
        files.read_json(tmp_path / "bad.json")
    with pytest.raises(FgvcError, match="none.json"):
        files.read_json(tmp_path / "none.json")


def test_what_is_no_object_is_told_with_the_remedy(tmp_path):
    for text in ("[]", "{"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(FgvcError, match=r"bad\.json is damaged: .* Delete it"):
            files.read_object(tmp_path / "bad.json", files.DELETE_ADVICE)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FgvcError, match="Cannot write"):
        files.write_text(tmp_path / "file" / "a", "text")


def test_lines_are_appended(tmp_path):
    path = tmp_path / "m.jsonl"
    files.append_line(path, {"a": 1})
    files.append_line(path, {"a": 2})
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n'
