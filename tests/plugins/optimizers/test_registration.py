"""The built-in optimizers as the host finds them."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import fgvc_optimizers
from fgvc_cli.contracts import Optimizer
from fgvc_cli.options import describe

SPECS = {spec.name: spec for spec in fgvc_optimizers.fgvc_optimizers()}


def named(target: str):
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_targets_and_options_exist_and_every_option_says_what_it_does(name):
    assert issubclass(named(SPECS[name].target), Optimizer)
    options = describe(named(SPECS[name].options))
    assert options and all(option.help for option in options)


def test_registering_and_describing_takes_no_torch():
    modules = {spec.options.partition(":")[0] for spec in SPECS.values()}
    code = f"import sys, fgvc_optimizers, {', '.join(sorted(modules))}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
