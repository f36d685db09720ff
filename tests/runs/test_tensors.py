import json

import pytest
import torch
from safetensors.torch import save_file

from fgvc_cli.errors import FgvcError
from fgvc_cli.runs import model_file


def test_tensors_of_any_layout_come_back(tmp_path):
    shared = torch.arange(6.0)
    given = {
        "last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "a": shared,
        "b": shared,
        "slice": shared[2:4],
        "transposed": torch.randn(3, 4).T,
        "empty": torch.empty(0),
        "other": torch.empty(0),
        "scalar": torch.tensor(3),
    }
    model_file.save(tmp_path / "x.safetensors", given, {"k": ["é", 1]})
    found, document = model_file.load(tmp_path / "x.safetensors")
    assert document == {"k": ["é", 1]} and found.keys() == given.keys()
    for name, value in given.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype


def test_a_state_of_any_shape_is_packed_and_unpacked():
    state = {
        "state": {0: {"step": torch.tensor(2.0), "n": 3}},
        "groups": [{"betas": (0.9, 0.99), "on": True, "x": None}],
    }
    found = {}
    document = json.loads(json.dumps(model_file.pack(state, found, "o")))
    back = model_file.unpack(document, found)
    assert back["groups"] == state["groups"] and isinstance(back["groups"][0]["betas"], tuple)
    assert (
        list(back["state"]) == [0]
        and back["state"][0]["n"] == 3
        and torch.equal(back["state"][0]["step"], found["o.state.0.step"])
    )


def test_what_has_no_form_in_a_file_is_refused():
    with pytest.raises(TypeError, match="o.f"):
        model_file.pack({"f": object()}, {}, "o")


def test_damaged_foreign_and_missing_files_are_named(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(FgvcError, match="does not exist"):
        model_file.load(path)
    path.write_bytes(b"not tensors at all, but long enough to look at")
    with pytest.raises(FgvcError, match="damaged"):
        model_file.load(path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(FgvcError, match="was not written by fgvc"):
        model_file.load(path)
    model_file.save(path, {"a": torch.ones(100)}, {})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(FgvcError, match="damaged"):
        model_file.load(path)


def test_a_damaged_description_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(1)}, path, metadata={model_file.KEY: '{"format": 1'})
    with pytest.raises(FgvcError, match="damaged: its metadata"):
        model_file.load_document(path)


def test_a_file_is_as_open_to_others_as_the_umask_says(tmp_path):
    path, plain = tmp_path / "x.safetensors", tmp_path / "plain"
    plain.touch()
    model_file.save(path, {"a": torch.ones(1)}, {})
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    path = tmp_path / "x.safetensors"
    model_file.save(path, {"a": torch.ones(1)}, {})

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(model_file, "save_file", full)
    with pytest.raises(FgvcError, match="No space left"):
        model_file.save(path, {"a": torch.zeros(1)}, {})
    assert model_file.load(path)[0]["a"].item() == 1
