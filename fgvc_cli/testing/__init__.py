"""Contract tests for plugin authors: check a component against the contract of its kind in two lines.

    import pytest
    from fgvc_cli.testing import contract

    @pytest.mark.parametrize("check", contract("head", "bilinear"), ids=str)
    def test_contract(check):
        check()

`fgvc check-plugin NAME` runs the same checks. They need no pytest, no GPU and no network.
"""

from fgvc_cli.testing.check import Check, ContractError, ContractWarning, NotApplicable
from fgvc_cli.testing.runner import contract

__all__ = ["Check", "ContractError", "ContractWarning", "NotApplicable", "contract"]
