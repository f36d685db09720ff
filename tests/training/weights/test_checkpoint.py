"""What a file of weights is taken for: by what it begins with, whatever its name, and in any damaged state."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import warnings
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict
from datetime import datetime
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from fgvc_cli import FgvcError
from fgvc_cli.training.weights.checkpoint import read_weights, split_key


class Mode(Enum):
    FAST = 1


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


@pytest.mark.parametrize(
    "options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}], ids=["zip", "legacy", "4"]
)
def test_what_training_scripts_save_beside_the_weights_is_no_obstacle(tmp_path: Path, options: dict) -> None:
    parameter = nn.Parameter(STATE["layer.weight"])
    parameter.tag = "a parameter with attributes"
    checkpoint = {
        "args": Namespace(lr=0.1, out=Path("runs")),
        "best": np.float64(93.1),
        "history": np.arange(3),
        "date": datetime.now(),
        "options": defaultdict(dict, {"a": {1, 2}}),
        "counts": Counter("aab"),
        "cause": Mode.FAST,
        "function": os.path.join,
        "types": (torch.float16, torch.Size([2]), torch.device("cpu"), 1j),
        "state_dict": defaultdict(list, OrderedDict({**STATE, "layer.weight": parameter})),
    }
    torch.save(checkpoint, tmp_path / "last.pth.tar", **options)
    entries = read_weights(tmp_path / "last.pth.tar").entries
    assert entries.keys() == STATE.keys() and all(torch.equal(entries[name], STATE[name]) for name in STATE)


class Touch:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch sprung",)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_beside_the_weights_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save) -> None:
    monkeypatch.chdir(tmp_path)
    save({"model": STATE, "hook": Touch()}, tmp_path / "made.pt")
    assert torch.equal(read_weights(tmp_path / "made.pt").entries["layer.weight"], STATE["layer.weight"])
    assert not Path("sprung").exists()


def test_a_pickle_cannot_change_what_it_calls(tmp_path: Path) -> None:
    """`BUILD` sets attributes of any object on the stack, here the defaults of a function of torch."""
    attack = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(N}(X\x0c\x00\x00\x00__defaults__K\x01utb."
    (tmp_path / "made.pt").write_bytes(attack)
    before = torch._utils._rebuild_tensor_v2.__defaults__
    with pytest.raises(FgvcError):
        read_weights(tmp_path / "made.pt")
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before


def test_torchscript_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Linear(2, 2))
    scripted.save(tmp_path / "scripted.pt")
    with pytest.raises(FgvcError, match=r"TorchScript.*net\.state_dict\(\)"):
        read_weights(tmp_path / "scripted.pt")


def test_averaged_weights_are_preferred_and_named(tmp_path: Path) -> None:
    averaged = {f"module.{name}": value + 1 for name, value in STATE.items()} | {"n_averaged": torch.tensor(3)}
    path = tmp_path / "two.pt"
    torch.save({"model": STATE, "model_ema": averaged, "optimizer": {"x": {"exp_avg": torch.ones(1)}}}, path)
    file = read_weights(path)
    assert torch.equal(file.entries["layer.weight"], STATE["layer.weight"] + 1)
    assert "'model_ema'" in file.notes[0] and f"`weights={path}#model`" in file.notes[0]
    assert torch.equal(read_weights(path, "model").entries["layer.weight"], STATE["layer.weight"])


def test_of_two_state_dicts_none_is_guessed_and_a_key_chooses(tmp_path: Path) -> None:
    path = tmp_path / "two.pt"
    torch.save({"student": {"net": STATE}, "teacher": STATE}, path)
    with pytest.raises(FgvcError, match=rf"`weights={path}#student.net` or `weights={path}#teacher`"):
        read_weights(path)
    assert read_weights(*map_key(f"{path}#student.net")).entries.keys() == STATE.keys()
    with pytest.raises(FgvcError, match="no state dict 'pupil'; it has: student.net, teacher"):
        read_weights(path, "pupil")


def test_a_key_may_be_the_prefix_of_one_network(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": {f"{net}.{n}": v for net in ("student", "teacher") for n, v in STATE.items()}}, tmp_path / "a"
    )
    assert read_weights(tmp_path / "a", "teacher").entries.keys() == STATE.keys()


def map_key(text: str) -> tuple[Path, str]:
    path, key = split_key(text)
    return Path(path), key


def test_shards_are_read_by_their_index(tmp_path: Path) -> None:
    names = [f"model-0000{k}-of-00002.safetensors" for k in (1, 2)]
    for name, (entry, value) in zip(names, STATE.items(), strict=True):
        (tmp_path / name).write_bytes(save({entry: value}))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict(zip(STATE, names, strict=True))}))
    assert read_weights(index).entries.keys() == STATE.keys()
    with pytest.raises(FgvcError, match=r"one of 2 shards.*`weights=model\.safetensors\.index\.json`"):
        read_weights(tmp_path / names[0])
    (tmp_path / names[1]).unlink()
    with pytest.raises(FgvcError, match=f"{names[1]} is missing"):
        read_weights(index)
