"""fgvc's contract of every explainer."""

import pytest

from fgvc_cli.testing import contract

# Score-CAM takes a forward pass per channel, which takes minutes on large backbones.
CHECKS = [
    *contract("explainer", "scorecam", {"batch_size": 64}, partners=False),
    *contract("explainer", "kpcacam"),
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_contract(check):
    check()
