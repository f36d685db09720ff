"""Rates, options, and going on from a saved state."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from fgvc_cli import UsageError
from fgvc_cli.options import build
from fgvc_optimizers.options import AdamWOptions, SgdOptions


def through_files(state, at="state"):
    """A state as files keep it: tensors contiguous and by name, the rest as JSON. Returns (JSON text, tensors)."""
    tensors: dict[str, Tensor] = {}

    def flatten(value, at):
        if isinstance(value, Tensor):
            tensors[at] = value.detach().clone(memory_format=torch.contiguous_format)
            return {"tensor": at}
        if isinstance(value, dict):
            return {"dict": [[key, flatten(v, f"{at}.{key}")] for key, v in value.items()]}
        if isinstance(value, list | tuple):
            return {"list": [flatten(v, f"{at}.{i}") for i, v in enumerate(value)]}
        return value

    return json.dumps(flatten(state, at)), tensors


def from_files(text, tensors):
    def raise_up(value):
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        if kind == "tensor":
            return tensors[content]
        return {k: raise_up(v) for k, v in content} if kind == "dict" else [raise_up(v) for v in content]

    return raise_up(json.loads(text))


def test_goes_on_bit_for_bit(make, given, parameters):
    optimizer = make(parameters, lr=0.02, head_lr=0.2, decay_norms=False)
    for seed in range(3):
        optimizer.set_rate(1 / (seed + 1))
        optimizer.step(given(parameters, seed, without=("norm.weight",)))
    resumed = {name: nn.Parameter(p.detach().clone()) for name, p in parameters.items()}
    other = make(resumed, lr=0.02, head_lr=0.2, decay_norms=False)
    other.load_state_dict(from_files(*through_files(optimizer.state_dict())))
    assert other.rates() == optimizer.rates()
    for seed in range(3, 6):
        for one, its in ((optimizer, parameters), (other, resumed)):
            one.set_rate(0.3)
            one.step(given(its, seed))
        for name, parameter in parameters.items():
            assert torch.equal(parameter, resumed[name]), name


def test_a_loaded_state_lies_in_memory_as_its_parameter(make, given, parameters):
    """Fused kernels apply a contiguous momentum to the wrong entries of a channels-last weight."""
    optimizer = make(parameters)
    optimizer.step(given(parameters))
    other = make(parameters)
    other.load_state_dict(from_files(*through_files(optimizer.state_dict())))
    convolution = parameters["conv.weight"]
    entries = [v for v in other.optimizer.state[convolution].values() if v.shape == convolution.shape]
    assert entries and not convolution.is_contiguous()
    assert {v.stride() for v in entries} == {convolution.stride()}


def test_a_loaded_state_is_not_shared(make, given, parameters):
    optimizer, other = make(parameters), make(parameters)
    optimizer.step(given(parameters))
    state = optimizer.state_dict()
    other.load_state_dict(state)
    before = json.dumps([v.tolist() for entries in state["state"].values() for v in entries.values() if v.ndim])
    other.step(given(parameters, seed=1))
    assert before == json.dumps([v.tolist() for e in state["state"].values() for v in e.values() if v.ndim])


def test_the_state_is_plain_data(make, given, parameters):
    optimizer = make(parameters)
    optimizer.step(given(parameters))
    text, tensors = through_files(optimizer.state_dict())
    assert tensors and all(t.dtype == torch.float32 for t in tensors.values())
    assert '"params"' in text  # json.dumps would have refused anything that is no plain data


class TestRates:
    def test_the_head_follows_the_backbone_unless_told(self, make, parameters):
        assert make(parameters, lr=0.02).rates() == {"backbone": 0.02, "head": 0.02}
        assert make(parameters, lr=0.02, head_lr=0.5).rates() == {"backbone": 0.02, "head": 0.5}

    def test_a_head_may_learn_alone(self, make, given, parameters):
        before = parameters["conv.weight"].detach().clone()
        make(parameters, lr=0.0, head_lr=0.1).step(given(parameters))
        assert torch.equal(parameters["conv.weight"], before)

    @pytest.mark.parametrize("decay_norms", [False, True])
    def test_set_rate_scales_the_options_never_the_last_rate(self, make, parameters, decay_norms):
        optimizer = make(parameters, lr=0.02, head_lr=0.5, decay_norms=decay_norms)
        optimizer.set_rate(0.5)
        assert optimizer.rates() == {"backbone": 0.01, "head": 0.25}
        optimizer.set_rate(0.5)
        assert optimizer.rates() == {"backbone": 0.01, "head": 0.25}
        assert {g["lr"] for g in optimizer.optimizer.param_groups if g["part"] == "head"} == {0.25}

    def test_a_rate_of_zero_moves_nothing(self, make, given, parameters):
        before = [p.detach().clone() for p in parameters.values()]
        optimizer = make(parameters)
        optimizer.set_rate(0.0)
        optimizer.step(given(parameters))
        assert all(torch.equal(p, old) for p, old in zip(parameters.values(), before, strict=True))

    def test_a_part_without_parameters_is_left_out(self, make, parameters):
        head = {name: p for name, p in parameters.items() if name.startswith("classifier")}
        assert set(make(head).rates()) == {"head"}


@pytest.mark.parametrize(
    ("options", "values", "message"),
    [
        (SgdOptions, {"lr": -1}, "optimizer.lr=-1: must be at least 0"),
        (SgdOptions, {"momentum": 1.0}, "optimizer.momentum=1.0: must be at least 0.0 and at most 0.9999"),
        (SgdOptions, {"nesterov": 1}, "expected true or false"),
        (SgdOptions, {"betas": [0.9, 0.99]}, "no such option"),
        (AdamWOptions, {"betas": [0.9]}, r"optimizer: betas=\[0.9\]: give two numbers"),
        (AdamWOptions, {"betas": [0.9, 1.0]}, "must be at least 0.0 and at most 0.999999"),
    ],
)
def test_refuses(options, values, message):
    with pytest.raises(UsageError, match=message):
        build(options, values, "optimizer")


def test_options_read_from_toml_values():
    assert build(SgdOptions, {"head_lr": 0.01}, "optimizer").head_lr == 0.01
    assert build(SgdOptions, {"head_lr": "none"}, "optimizer").head_lr is None
    assert build(AdamWOptions, {"betas": [0.9, 0.99]}, "optimizer").betas == (0.9, 0.99)
