"""fgvc's contract of every head."""

import pytest

from fgvc_cli.testing import contract

SMALL = {"stage_width": 8, "stage_channels": 16, "hidden_width": 8}


@pytest.mark.parametrize("check", contract("head", "pmg", SMALL), ids=str)
def test_contract(check):
    check()
