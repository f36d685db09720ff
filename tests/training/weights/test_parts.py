"""Weights from a file: reading it without running its code, and what backbone and head get of it."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fgvc_cli import FgvcError, HeadSpec
from fgvc_cli.contracts import (
    Backbone,
    BackboneInfo,
    CamLayer,
    Features,
    Head,
    MapInfo,
    Objective,
    Preprocessing,
    PublishedState,
    Reads,
    WeightsReport,
)
from fgvc_cli.registry.records import Component, Origin
from fgvc_cli.training.weights.checkpoint import read_weights
from fgvc_cli.training.weights.parts import TargetHead, load_file
from fgvc_heads.options import PimOptions
from fgvc_heads.pim.head import PimHead

HALF = (0.5, 0.5, 0.5)


class OneLayer(Backbone):
    """A backbone of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)
        self.info = BackboneInfo("one_layer", "convolutional", 32, (MapInfo(3, 1, (1, 1)),), 3, HALF, HALF)

    def forward(self, images: Tensor, reads: Reads) -> Features:
        raise NotImplementedError

    def prune(self, reads: Reads) -> None:
        raise NotImplementedError

    def cam_layer(self, map_index: int | None) -> CamLayer:
        raise NotImplementedError

    def load_weights(self, state: Mapping[str, Any]) -> WeightsReport:
        own = self.state_dict()
        if not own.keys() & state.keys():
            raise FgvcError("The weights are not for one_layer.")
        self.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)
        found = [name for name in own if name in state]
        return WeightsReport(
            tuple(found), tuple(n for n in state if n not in own), tuple(n for n in own if n not in state)
        )


@dataclass(frozen=True)
class TwoOptions:
    width: int = 4


class TwoLayers(Head):
    """A head whose method's public code calls the layers `their.body` and `their.top`, and the backbone `net`."""

    def __init__(self, backbone: BackboneInfo, classes: int, options: TwoOptions) -> None:
        super().__init__(backbone, classes, options)
        self.options = options
        self.body, self.top = nn.Linear(3, options.width), nn.Linear(options.width, classes)

    def reads(self, part: str | None = None) -> Reads:
        raise NotImplementedError

    def forward(self, features: Features, part: str | None = None) -> Tensor:
        raise NotImplementedError

    def objectives(self, images: Tensor, targets: Tensor) -> Generator[Objective, Any, None]:
        raise NotImplementedError

    def published(self, state: Mapping[str, Tensor]) -> PublishedState | None:
        if "their.top.weight" not in state:
            return None
        classes, width = state["their.top.weight"].shape
        own = {n.removeprefix("their."): v for n, v in state.items() if not n.startswith("net.")}
        net = {n.removeprefix("net."): v for n, v in state.items() if n.startswith("net.")}
        advice = f"the file was trained with --set head.width={width}" if width != self.options.width else ""
        return PublishedState(own, net, classes, advice, (HALF, HALF))


def in_place(classes: int = 5, width: int = 4, name: str = "two", mean: tuple[float, ...] = HALF) -> TargetHead:
    options = TwoOptions(width)
    head = TwoLayers(OneLayer().info, classes, options)
    component = Component(HeadSpec(name, "nowhere:TwoLayers"), Origin("fgvc-two", "1.0"))
    names = tuple(f"class{i}" for i in range(classes))
    return TargetHead(head, component, options, names, Preprocessing(32, 36, mean, HALF))


STATE = {"layer.weight": torch.full((3, 2), 5.0), "layer.bias": torch.zeros(3)}
BACKBONE_LINE = "backbone one_layer: 2 of 2 entries from the file"


def public_state(classes: int = 5, width: int = 4) -> dict[str, Tensor]:
    return {
        **{f"net.{name}": value for name, value in STATE.items()},
        "their.body.weight": torch.full((width, 3), 1.0),
        "their.body.bias": torch.full((width,), 2.0),
        "their.top.weight": torch.full((classes, width), 3.0),
        "their.top.bias": torch.full((classes,), 4.0),
    }


def save_run(path: Path, into: TargetHead, distribution: str = "fgvc-two", **changes: Any) -> None:
    """Write what a run's model file is, with that head."""
    head = {"name": into.component.spec.name, "distribution": distribution, "options": {"width": into.options.width}}
    document = {
        "format": 1,
        "components": {"head": head},
        "classes": list(into.class_names),
        "preprocessing": {"image_size": 32},
        **changes,
    }
    entries = {f"backbone.{n}": v for n, v in STATE.items()} | {
        f"head.{n}": v for n, v in into.head.state_dict().items()
    }
    save_file(entries, path, metadata={"fgvc": json.dumps(document)})


@pytest.mark.parametrize(
    "checkpoint",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model": {f"module.{name}": value for name, value in STATE.items()}, "optimizer": {"state": {}}},
        {"model_state_dict": STATE, "epoch": 3},
        {f"_orig_mod.{name}": value for name, value in STATE.items()},
        {f"_orig_mod.module.{name}": value for name, value in STATE.items()},
        {f"module._orig_mod.{name}": value for name, value in STATE.items()},
        {f"backbone.{name}": value for name, value in STATE.items()},
    ],
    ids=[
        "plain",
        "state_dict",
        "model of DataParallel",
        "model_state_dict",
        "compiled",
        "compiled DataParallel",
        "DataParallel of compiled",
        "backbone of a classifier",
    ],
)
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_files_in_the_forms_there_are(tmp_path: Path, checkpoint: dict, ending: str) -> None:
    path, backbone = tmp_path / f"weights{ending}", OneLayer()
    if ending == ".pt":
        torch.save(checkpoint, path)
    elif all(isinstance(value, Tensor) for value in checkpoint.values()):
        save_file(checkpoint, path)
    else:
        pytest.skip("safetensors holds tensors alone")
    assert load_file(path, backbone, in_place()) == [BACKBONE_LINE]
    assert backbone.layer.weight[0, 0] == 5


def test_a_file_that_fits_in_part_is_an_error_unless_requested(tmp_path: Path) -> None:
    torch.save({"layer.bias": torch.zeros(3), "neck.weight": torch.zeros(3)}, tmp_path / "part.pt")
    with pytest.raises(FgvcError, match=r"1 of its 2 entries match.*layer\.weight.*`train\.partial_weights=true`"):
        load_file(tmp_path / "part.pt", OneLayer(), in_place())
    assert load_file(tmp_path / "part.pt", OneLayer(), in_place(), partial=True) == [
        "backbone one_layer: 1 of 2 entries from the file; 1 are not in the file and stay random: layer.weight; "
        "1 of its entries do not belong to the backbone: neck.weight"
    ]


def test_a_deeper_network_is_not_loaded_in_part(tmp_path: Path) -> None:
    torch.save({**STATE, "layer.1.weight": torch.zeros(3), "other.weight": torch.zeros(3)}, tmp_path / "deep.pt")
    with pytest.raises(FgvcError, match=r"1 of the file are of further layers, such as layer\.1\.weight"):
        load_file(tmp_path / "deep.pt", OneLayer(), in_place())


def test_nan_is_refused(tmp_path: Path) -> None:
    torch.save({**STATE, "layer.bias": torch.tensor([0.0, float("nan"), 1.0])}, tmp_path / "nan.pt")
    with pytest.raises(FgvcError, match=r"1 of 3 values of layer\.bias are NaN"):
        load_file(tmp_path / "nan.pt", OneLayer(), in_place())


def test_a_file_that_the_head_recognizes_gives_both_their_weights(tmp_path: Path) -> None:
    torch.save({f"module.{name}": value for name, value in public_state().items()}, tmp_path / "public.pt")
    backbone, into = OneLayer(), in_place()
    lines = load_file(tmp_path / "public.pt", backbone, into)
    assert lines == ["head two: 4 of 4 entries from the file", BACKBONE_LINE]
    values = [p.unique().tolist() for p in into.head.parameters()]
    assert values == [[1], [2], [3], [4]] and backbone.layer.weight[0, 0] == 5


def test_what_depends_on_another_number_of_classes_stays_random_and_is_named(tmp_path: Path) -> None:
    torch.save(public_state(classes=9), tmp_path / "public.pt")
    into = in_place(classes=5)
    before = into.head.top.weight.clone()
    lines = load_file(tmp_path / "public.pt", OneLayer(), into)
    assert "2 of 4 entries" in lines[0] and "2 stay random" in lines[0] and lines[0].endswith(": top")
    assert "9 classes" in lines[0] and "5 here" in lines[0]
    assert torch.equal(into.head.top.weight, before) and into.head.body.weight.unique().tolist() == [1]


def test_another_shape_is_an_error_with_entry_shapes_and_option(tmp_path: Path) -> None:
    torch.save(public_state(width=7), tmp_path / "public.pt")
    with pytest.raises(FgvcError, match=r"public\.pt`: head two: body\.weight .* 7x3 .* 4x3 .* head\.width=7$"):
        load_file(tmp_path / "public.pt", OneLayer(), in_place())


def test_a_public_file_that_lacks_an_entry_of_the_head_is_refused(tmp_path: Path) -> None:
    state = public_state()
    del state["their.body.bias"]
    torch.save(state, tmp_path / "public.pt")
    with pytest.raises(FgvcError, match=r"head two: body\.bias is not in the file"):
        load_file(tmp_path / "public.pt", OneLayer(), in_place())


def test_a_counter_of_batches_may_be_missing(tmp_path: Path) -> None:
    """Old versions of torch had none in their batch norms; without it the statistics are the same."""
    torch.save({**public_state(), "their.norm.running_mean": torch.full((4,), 7.0)}, tmp_path / "public.pt")
    into = in_place()
    into.head.norm = nn.BatchNorm1d(4, affine=False)
    del into.head.norm.running_var
    (line, _) = load_file(tmp_path / "public.pt", OneLayer(), into)
    assert line == "head two: 5 of 6 entries from the file"
    assert into.head.norm.running_mean.unique().tolist() == [7.0]


def test_images_normalized_in_another_way_are_noted(tmp_path: Path) -> None:
    torch.save(public_state(), tmp_path / "public.pt")
    lines = load_file(tmp_path / "public.pt", OneLayer(), in_place(mean=(0.4, 0.5, 0.5)))
    assert "`train.mean=[0.5, 0.5, 0.5]`" in lines[-1] and "`train.std=[0.5, 0.5, 0.5]`" in lines[-1]


def test_entries_of_another_head_are_not_used(tmp_path: Path) -> None:
    entries = {f"backbone.{n}": v for n, v in STATE.items()} | {"fpn.a.weight": torch.ones(1), "z": torch.ones(1)}
    torch.save(entries, tmp_path / "other.pt")
    lines = load_file(tmp_path / "other.pt", OneLayer(), in_place())
    assert lines[0] == BACKBONE_LINE and "2 entries" in lines[1] and "fpn.a.weight" in lines[1]


def test_a_run_gives_the_same_head_its_weights(tmp_path: Path) -> None:
    source, into, other = in_place(), in_place(), in_place(classes=3)
    save_run(tmp_path / "model.safetensors", source)
    lines = load_file(tmp_path / "model.safetensors", OneLayer(), into)
    assert lines == ["head two: 4 of 4 entries from the file", BACKBONE_LINE]
    assert all(torch.equal(v, source.head.state_dict()[n]) for n, v in into.head.state_dict().items())
    before = other.head.top.weight.clone()
    (line, _) = load_file(tmp_path / "model.safetensors", OneLayer(), other)
    assert "2 stay random" in line and line.endswith(": top")
    assert torch.equal(other.head.body.weight, source.head.body.weight)
    assert torch.equal(other.head.top.weight, before)


def test_a_run_with_another_head_or_shape_or_classes_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_run(path, in_place(name="three"))
    lines = load_file(path, OneLayer(), in_place())
    assert lines == [BACKBONE_LINE, "the file's head three is not used: head two starts from random weights"]
    save_run(path, in_place(), distribution="another")  # its head of that name is another head
    lines = load_file(path, OneLayer(), in_place())
    assert lines == [BACKBONE_LINE, "the file's head two is not used: head two starts from random weights"]

    save_run(path, in_place(width=6), preprocessing={"image_size": 64})
    into = in_place()
    before = into.head.body.weight.clone()
    line = load_file(path, OneLayer(), into)[0]
    assert "random weights" in line and "(the run had head.width=6, `image_size=64`)" in line
    assert torch.equal(into.head.body.weight, before)

    save_run(path, in_place(), classes=["class0", "wren", "class2", "class3", "class4"])
    lines = load_file(path, OneLayer(), in_place())
    assert "'wren' for 'class1'" in lines[-1]


@pytest.mark.parametrize(
    "changes",
    [{"components": {}}, {"components": ["head"]}, {"components": {"head": {"name": "two"}}}, {"classes": 5}],
    ids=["no head", "a list", "no distribution", "a number for classes"],
)
def test_a_run_whose_description_is_damaged_is_refused_in_one_line(tmp_path: Path, changes: dict) -> None:
    save_run(tmp_path / "model.safetensors", in_place(), **changes)
    with pytest.raises(FgvcError, match="the file is damaged: its metadata"):
        load_file(tmp_path / "model.safetensors", OneLayer(), in_place())


class Trap:
    """What a whole pickled model is: an object whose making runs code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("trap-was-sprung").touch, ())


@pytest.mark.parametrize("holder", [lambda x: x, lambda x: {"model": x, "epoch": 3}])
@pytest.mark.parametrize("content", [Trap(), nn.Linear(2, 2)], ids=["trap", "module"])
def test_a_pickled_model_is_refused_unopened_with_the_safe_way(tmp_path, monkeypatch, holder, content) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(holder(content), "whole.pth")
    with pytest.raises(FgvcError) as caught:
        load_file(Path("whole.pth"), OneLayer(), in_place())
    said = str(caught.value)
    assert "whole.pth" in said and "(a pickled " in said and "\n" not in said
    assert "torch.save(net.state_dict(), 'whole-state.pt')" in said and "`weights=whole-state.pt`" in said
    assert not Path("trap-was-sprung").exists()
    if isinstance(content, nn.Module):
        assert "a pickled torch.nn.modules.linear.Linear" in said
        torch.save(content.state_dict(), "whole-state.pt")  # as it says
        assert set(read_weights(Path("whole-state.pt")).entries) == {"weight", "bias"}


@pytest.mark.parametrize("name", ["damaged.pt", "damaged.safetensors", "list.pt", "empty.pt", "foreign.pt"])
def test_files_that_are_of_no_use_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    contents = {"list.pt": [1, 2], "empty.pt": {"epoch": 1}, "foreign.pt": {"conv": torch.zeros(1)}}
    if name in contents:
        torch.save(contents[name], path)
    else:
        path.write_bytes(b"\x80\x02 these are no weights")
    with pytest.raises(FgvcError, match=f"{name}`:") as caught:
        load_file(path, OneLayer(), in_place())
    assert "\n" not in str(caught.value)


def test_a_pyramid_of_an_earlier_version_is_whole(tmp_path: Path) -> None:
    maps = (MapInfo(3, 4, (8, 8)), MapInfo(6, 8, (4, 4)))
    info = BackboneInfo("tokens", "transformer", 32, maps, 6, HALF, HALF)
    component = Component(HeadSpec("pim", "fgvc_heads.pim.head:PimHead"), Origin("fgvc-cli", "1.0"))

    def target(**upsampling: Any) -> TargetHead:
        options = PimOptions(fpn_size=8, num_selects=2, **upsampling)
        return TargetHead(PimHead(info, 5, options), component, options, ("a", "b", "c", "d", "e"), preprocessing)

    preprocessing = Preprocessing(32, 36, HALF, HALF)
    old, new = target(upsampling="bilinear"), target()
    head = {"name": "pim", "distribution": "fgvc-cli", "options": {"fpn_size": 8, "num_selects": 2}}
    of_run = {"components": {"head": head}, "classes": list("abcde"), "preprocessing": {"image_size": 32}}
    of_head = {f"head.{name}": value for name, value in old.head.state_dict().items()}
    entries = {f"backbone.{name}": value for name, value in STATE.items()} | of_head
    save_file(entries, tmp_path / "old.safetensors", metadata={"fgvc": json.dumps({"format": 1, **of_run})})
    lines = load_file(tmp_path / "old.safetensors", OneLayer(), new)
    count = len(old.head.state_dict())
    assert lines[0] == f"head pim: {count} of {count} entries from the file"
    assert all(torch.equal(value, old.head.state_dict()[name]) for name, value in new.head.state_dict().items())
