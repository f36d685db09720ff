"""What a file of weights is taken for: by what it begins with, whatever its name, and in any damaged state."""

from __future__ import annotations

import gzip
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from fgvc_cli import FgvcError
from fgvc_cli.training.weights_file import read_weights

STATE = {"layer.weight": torch.ones(3, 2), "layer.bias": torch.zeros(3)}


def torch_bytes(content: object, tmp_path: Path, **options: bool) -> bytes:
    torch.save(content, tmp_path / "made", **options)
    return (tmp_path / "made").read_bytes()


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "model"])
@pytest.mark.parametrize("form", ["safetensors", "zip", "pickle"])
def test_its_beginning_tells_the_form_not_its_name(tmp_path: Path, name: str, form: str) -> None:
    old = {"_use_new_zipfile_serialization": False} if form == "pickle" else {}
    content = save(STATE) if form == "safetensors" else torch_bytes(STATE, tmp_path, **old)
    (tmp_path / name).write_bytes(content)
    assert read_weights(tmp_path / name).entries.keys() == STATE.keys()


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "model"])
@pytest.mark.parametrize(
    "content", [b"", b"hello world\n" * 20, gzip.compress(save(STATE))], ids=["empty", "text", "gz"]
)
def test_what_is_neither_is_called_so(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FgvcError, match=r"^this is neither a safetensors file nor a torch checkpoint"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("form", ["zip", "pickle", "safetensors"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_half_a_file_is_one_clear_line(tmp_path: Path, form: str, share: float) -> None:
    old = {"_use_new_zipfile_serialization": False} if form == "pickle" else {}
    whole = save(STATE) if form == "safetensors" else torch_bytes(STATE, tmp_path, **old)
    (tmp_path / "half.pt").write_bytes(whole[: max(4, int(share * len(whole)))])
    with pytest.raises(FgvcError) as caught:
        read_weights(tmp_path / "half.pt")
    assert "\n" not in str(caught.value) and "()" not in str(caught.value)


def test_a_pickle_of_python_alone_is_refused_without_further_noise(tmp_path: Path) -> None:
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"a": object()}, protocol=4))
    with warnings.catch_warnings(record=True) as noise, pytest.raises(FgvcError, match="more than tensors"):
        read_weights(tmp_path / "plain.pkl")
    assert not noise


@pytest.mark.parametrize(
    "checkpoint",
    [
        {"net": STATE, "acc": 0.9, "epoch": 3},
        {"state_dict": {"model": STATE}},
        {"params": STATE, "optimizer": {"state": {0: {"momentum": torch.ones(1)}}, "param_groups": [{"lr": 0.1}]}},
    ],
    ids=["under a name of its own", "under two names", "beside an optimizer"],
)
def test_the_only_state_dict_in_a_checkpoint_is_found(tmp_path: Path, checkpoint: dict) -> None:
    torch.save(checkpoint, tmp_path / "made.pt")
    assert read_weights(tmp_path / "made.pt").entries.keys() == STATE.keys()


def test_of_two_state_dicts_none_is_guessed_and_the_keys_are_named(tmp_path: Path) -> None:
    torch.save({"student": STATE, "teacher": STATE}, tmp_path / "two.pt")
    with pytest.raises(FgvcError, match="student, teacher"):
        read_weights(tmp_path / "two.pt")
