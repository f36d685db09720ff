"""Rates, options, and going on from a saved state."""

from __future__ import annotations

import copy

import pytest
from torch import Tensor


def test_a_loaded_state_has_the_memory_format_of_its_parameter(make, given, parameters):
    """Fused kernels apply a contiguous momentum to the wrong entries of a channels-last weight."""
    optimizer = make(parameters)
    optimizer.step(given(parameters))
    state = copy.deepcopy(optimizer.state_dict())
    for entries in state["state"].values():  # as files keep them
        entries.update({name: v.contiguous() for name, v in entries.items() if isinstance(v, Tensor)})
    other = make(parameters)
    other.load_state_dict(state)
    convolution = parameters["conv.weight"]
    tensors = [v for v in other.optimizer.state[convolution].values() if isinstance(v, Tensor)]
    entries = [v for v in tensors if v.shape == convolution.shape]
    assert entries and not convolution.is_contiguous()
    assert {v.stride() for v in entries} == {convolution.stride()}


class TestRates:
    def test_head_lr_defaults_to_lr(self, make, parameters):
        assert make(parameters, lr=0.02).rates() == {"backbone": 0.02, "head": 0.02}
        assert make(parameters, lr=0.02, head_lr=0.5).rates() == {"backbone": 0.02, "head": 0.5}

    @pytest.mark.parametrize("decay_norms", [False, True])
    def test_set_rate_scales_the_options(self, make, parameters, decay_norms):
        optimizer = make(parameters, lr=0.02, head_lr=0.5, decay_norms=decay_norms)
        optimizer.set_rate(0.5)
        assert optimizer.rates() == {"backbone": 0.01, "head": 0.25}
        optimizer.set_rate(0.5)
        assert optimizer.rates() == {"backbone": 0.01, "head": 0.25}
        assert {g["lr"] for g in optimizer.optimizer.param_groups if g["part"] == "head"} == {0.25}

    def test_a_part_without_parameters_has_no_rate(self, make, parameters):
        head = {name: p for name, p in parameters.items() if name.startswith("classifier")}
        assert set(make(head).rates()) == {"head"}
