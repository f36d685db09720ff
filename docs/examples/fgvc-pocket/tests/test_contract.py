import pytest

from fgvc_cli.testing import contract


@pytest.mark.parametrize("check", contract("backbone", "pocket", partners=False), ids=str)
def test_contract(check):
    check()
