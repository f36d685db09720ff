from __future__ import annotations

import re

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from fgvc_backbones.checkpoints import read_published
from fgvc_backbones.naming import TORCHVISION
from fgvc_cli import FgvcError, UsageError
from fgvc_cli.contracts import Classifier, Preprocessing, Reads
from fgvc_cli.registry import get_registry
from fgvc_cli.training.weights.checkpoint import read_weights
from fgvc_cli.training.weights.choice import apply, choose
from fgvc_cli.training.weights.parts import TargetHead, load_file


def published_state(model: str, **arguments: object) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return timm.create_model(model, num_classes=11, **arguments).state_dict()


def test_a_state_dict_is_loaded_without_its_classifier(build) -> None:
    backbone, state = build("timm/test_resnet"), published_state("test_resnet")
    report = backbone.load_weights(state)
    assert torch.equal(backbone.model.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])
    assert report.missing == () and report.unknown == ()
    assert "layer1.0.conv1.weight" in report.loaded and "fc.weight" not in report.loaded


def test_position_embeddings_are_resized(build) -> None:
    backbone, state = build("timm/test_vit", 96), published_state("test_vit")
    assert state["pos_embed"].shape == (1, 101, 64)
    report = backbone.load_weights(state)
    assert "pos_embed" in report.loaded and backbone.model.pos_embed.shape == (1, 37, 64)
    same_size = build("timm/test_vit", 160)
    same_size.load_weights(state)
    assert torch.equal(same_size.model.pos_embed, state["pos_embed"])
    torch.testing.assert_close(
        backbone.model.pos_embed[:, 1:].mean(dim=1), state["pos_embed"][:, 1:].mean(dim=1), atol=0.01, rtol=0
    )


def test_swins_relative_position_tables_are_resized_to_another_window(build) -> None:
    state = published_state("swin_tiny_patch4_window7_224")
    backbone = build("swin_t", 64)
    backbone.prune(Reads((0, 1)))
    table = "layers.0.blocks.0.attn.relative_position_bias_table"
    assert state[table].shape == (13 * 13, 3)
    report = backbone.load_weights(state)
    assert backbone.model.layers[0].blocks[0].attn.relative_position_bias_table.shape == (15 * 15, 3)
    assert report.missing == () and report.unknown == () and table in report.loaded
    assert torch.equal(backbone.model.layers[1].blocks[1].attn.qkv.weight, state["layers.1.blocks.1.attn.qkv.weight"])


def test_original_swin_checkpoints_load_after_pruning(build) -> None:
    published = published_state("swin_tiny_patch4_window7_224")
    original = {}
    for name, value in published.items():  # it merges at the end of a stage, and keeps its buffers
        stage = re.match(r"layers\.(\d)\.downsample", name)
        moved = name if stage is None else name.replace(stage[0], f"layers.{int(stage[1]) - 1}.downsample")
        original[moved.replace("head.fc.", "head.")] = value
    original["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    original["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    backbone = build("swin_t", 224, maps="published")
    backbone.prune(Reads((0, 1, 2, 3)))
    report = backbone.load_weights(original)
    assert report.missing == () and report.unknown == ()
    own = backbone.model.state_dict()
    assert "layers.3.downsample.reduction.weight" in own and "norm.weight" not in own
    assert all(torch.equal(value, published[name]) for name, value in own.items())


def test_unknown_and_missing_entries_are_named(build) -> None:
    state = published_state("test_resnet")
    del state["layer1.0.conv1.weight"]
    report = build("timm/test_resnet").load_weights({**state, "extra.weight": torch.zeros(1)})
    assert report.unknown == ("extra.weight",) and report.missing == ("layer1.0.conv1.weight",)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"something.else": torch.zeros(3)},
            r"none of the 1 entries.*something\.else.*conv1\.0\.weight",
        ),
        ({}, "no backbone entries"),
        ({"conv1.0.weight": torch.zeros(1, 2), "fc.bias": torch.zeros(3)}, "conv1.0.weight has shape 1x2"),
        ({"epoch": 3}, "none of the 1 entries"),
    ],
)
def test_weights_of_another_model_are_rejected_in_one_line(build, state, message: str) -> None:
    with pytest.raises(FgvcError, match=message) as caught:
        build("timm/test_resnet").load_weights(state)
    assert "\n" not in str(caught.value)


def test_weights_in_the_hubs_cache_are_found_and_read(build, hub_cache) -> None:
    backbone, state = build("timm/test_resnet"), published_state("test_resnet")
    assert backbone.pretrained().cached is None
    file = hub_cache("test_resnet.r160_in1k", state)
    weights = backbone.pretrained()
    assert weights.name == "test_resnet.r160_in1k" and weights.cached == file
    assert weights.url.endswith("/timm/test_resnet.r160_in1k/resolve/main/model.safetensors")
    backbone.load_weights(backbone.fetch(weights))
    assert torch.equal(backbone.model.layer4[0].conv1.weight, state["layer4.0.conv1.weight"])


def test_weights_in_torch_hubs_cache_are_found_and_read(build, hub_cache, tmp_path) -> None:
    backbone = build("timm/resnet18.tv_in1k")
    state = published_state("resnet18")
    address = timm.get_pretrained_cfg("resnet18.tv_in1k").url
    file = tmp_path / "torch" / "checkpoints" / address.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(state, file)
    assert backbone.pretrained().cached == file
    assert torch.equal(backbone.fetch(backbone.pretrained())["fc.weight"], state["fc.weight"])


def test_a_damaged_cached_file_is_named(build, hub_cache) -> None:
    backbone = build("timm/test_resnet")
    file = hub_cache("test_resnet.r160_in1k", {"a": torch.zeros(1)})
    file.write_bytes(b"not safetensors")
    with pytest.raises(FgvcError, match=r"model\.safetensors cannot be read; delete it"):
        read_published(backbone.pretrained())


def test_a_failed_download_is_reported_in_one_line(build, hub_cache, monkeypatch, capfd) -> None:
    def fail(*args: object) -> str:
        raise ConnectionError("connection reset\nwith a long tail")

    backbone = build("timm/test_resnet")
    monkeypatch.setattr("fgvc_backbones.checkpoints.hf_hub_download", fail)
    with pytest.raises(FgvcError, match=r"test_resnet.r160_in1k: the download failed \(connection reset\)"):
        backbone.fetch(backbone.pretrained())
    assert capfd.readouterr() == ("", "")


def test_tags(build, hub_cache) -> None:
    backbone = build("timm/resnet18")
    assert backbone.pretrained("tv_in1k").name == "resnet18.tv_in1k"
    assert backbone.pretrained("resnet18.tv_in1k").name == "resnet18.tv_in1k"
    with pytest.raises(UsageError, match=r"no weights 'tv_in2k'\. Did you mean 'tv_in1k'"):
        backbone.pretrained("tv_in2k")


def test_a_tag_with_another_normalization_is_rejected_with_the_remedy(build, hub_cache) -> None:
    backbone = build("timm/tf_efficientnet_b0.aa_in1k")
    with pytest.raises(UsageError, match=r"use `backbone=timm/tf_efficientnet_b0\.ap_in1k`"):
        backbone.pretrained("ap_in1k")


def test_the_host_loads_cached_weights_and_weights_of_a_run(build, hub_cache, tmp_path) -> None:
    backbone, state = build("timm/test_resnet"), published_state("test_resnet")
    hub_cache("test_resnet.r160_in1k", state)
    choice = choose(backbone, "imagenet", offline=True)
    assert "test_resnet.r160_in1k (1.5 MB, apache-2.0), from the local cache" in choice.text
    assert apply(choice, backbone).missing == ()
    save_file(
        {f"backbone.{name}": value for name, value in backbone.state_dict().items()}, tmp_path / "run.safetensors"
    )
    other = build("timm/test_resnet", 96)
    assert choose(other, str(tmp_path / "run.safetensors"), offline=True).file == str(tmp_path / "run.safetensors")
    entries = read_weights(tmp_path / "run.safetensors").entries
    report = other.load_weights({name.removeprefix("backbone."): value for name, value in entries.items()})
    assert report.missing == () and torch.equal(other.model.conv1[0].weight, state["conv1.0.weight"])


@pytest.mark.parametrize("prefix", ["net.", "timm_model.", "model.", "a.backbone."])
def test_a_prefix_of_the_names_is_found(build, prefix: str) -> None:
    state = published_state("test_resnet")
    given = {f"{prefix}{name}": value for name, value in state.items()} | {"loss.center": torch.zeros(3)}
    report = build("timm/test_resnet").load_weights(given)
    assert report.missing == () and report.unknown == () and torch.equal(report.classifier[0], state["fc.weight"])


def test_two_networks_in_one_state_dict_are_not_guessed(build) -> None:
    state = published_state("test_resnet")
    given = {f"{net}.{name}": value for name, value in state.items() for net in ("student", "teacher")}
    with pytest.raises(FgvcError, match="`weights=FILE#student` or `weights=FILE#teacher`"):
        build("timm/test_resnet").load_weights(given)


PAIRS = [
    pytest.param(name, marks=[] if name == "mobilenetv2_100" else pytest.mark.slow)
    for name in (*TORCHVISION, "resnet18", "resnext50_32x4d", "densenet121")
    if not any(size in name for size in ("large", "_base_patch4", "_base_patch32", "convnext_base", "_b3", "_b4"))
]


@pytest.mark.parametrize("architecture", PAIRS)
@torch.no_grad()
def test_torchvisions_weights_give_its_logits(build, architecture: str) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(TORCHVISION.get(architecture, architecture), weights=None).eval()
    for name, value in theirs.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point() and value.ndim < 2:
            value.add_(0.1 * torch.randn_like(value))  # ones and zeros could be swapped
        elif "table" in name or "embedding" in name:
            value.normal_()
    size = 224 if "patch" in architecture else 64
    backbone, state = build(f"timm/{architecture}", size), theirs.state_dict()
    report = backbone.load_weights({f"net.{name}": value for name, value in state.items()})
    assert report.missing == () and report.unknown == ()
    images = torch.randn(1, 3, size, size)
    assert torch.equal(torch.nn.functional.linear(backbone.model(images), *report.classifier), theirs(images))


@torch.no_grad()
def test_a_timm_classifier_keeps_its_scores_under_a_linear_head(build, tmp_path) -> None:
    state = published_state("test_resnet")
    torch.save({"state_dict": state, "args": object}, tmp_path / "own.pth")
    backbone, component = build("timm/test_resnet"), get_registry().find("head", "linear")
    names = tuple("abcdefghijk")
    preprocessing = Preprocessing(64, 64, backbone.info.mean, backbone.info.std)
    head = component.make(backbone=backbone.info, classes=11, options=component.options_type())
    lines = load_file(tmp_path / "own.pth", backbone, TargetHead(head, component, None, names, preprocessing))
    assert "a, b, ..., k" in lines[0]
    reference = timm.create_model("test_resnet", num_classes=11).eval()
    reference.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64)
    classifier = Classifier(backbone, head, names, preprocessing).eval()
    torch.testing.assert_close(classifier(images), reference(images))
