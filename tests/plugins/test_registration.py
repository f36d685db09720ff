"""The built-in packages as the host finds them: every target exists, every option says what it does, all are light."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from fgvc_cli import contracts
from fgvc_cli.options import describe
from fgvc_cli.registry import get_registry

CONTRACTS = {
    "backbone": contracts.Backbone,
    "head": contracts.Head,
    "optimizer": contracts.Optimizer,
    "dataset": contracts.Dataset,
    "explainer": contracts.Explainer,
}
COMPONENTS = [c for kind in CONTRACTS for c in get_registry().components(kind) if c.builtin]


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda c: f"{c.kind}-{c.name}")
def test_targets_and_options_exist_and_every_option_says_what_it_does(component):
    assert issubclass(component.load(), CONTRACTS[component.kind])
    options = describe(component.options_type())
    assert bool(options) == bool(component.spec.options) and all(option.help for option in options)


def test_registering_and_describing_takes_no_torch():
    modules = {c.spec.options.partition(":")[0] for c in COMPONENTS if c.spec.options} | {
        c.spec.target.partition(".")[0].partition(":")[0] for c in COMPONENTS
    }
    assert {"fgvc_heads", "fgvc_optimizers", "fgvc_backbones", "fgvc_datasets", "fgvc_explainers"} <= modules
    code = f"import sys, {', '.join(sorted(modules))}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert import_module("torch")  # it is there to be imported
