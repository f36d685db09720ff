"""Contract tests for plugin authors: what every component of a kind must keep, checked in two lines.

    import pytest
    from fgvc_cli.testing import contract

    @pytest.mark.parametrize("check", contract("head", "bilinear"), ids=str)
    def test_contract(check):
        check()

The same checks run from the command line (`fgvc check-plugin NAME`), and on the built-in components. They need no
pytest, no GPU and no network.
"""

from fgvc_cli.testing.check import Check, ContractAdvice, ContractBroken, NotApplicable
from fgvc_cli.testing.examine import contract

__all__ = ["Check", "ContractAdvice", "ContractBroken", "NotApplicable", "contract"]
