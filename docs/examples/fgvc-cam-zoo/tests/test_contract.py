"""What every explainer must keep."""

import pytest

from fgvc_cli.testing import contract

# Score-CAM takes a forward pass for each channel of an image: on large backbones that is minutes.
CHECKS = [
    *contract("explainer", "scorecam", {"batch_size": 64}, partners=False),
    *contract("explainer", "eigencam"),
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_contract(check):
    check()
