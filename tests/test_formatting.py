import pytest

from fgvc_cli.errors import UsageError
from fgvc_cli.formatting import bytes_text, count, parse_bytes, rate, ratio, share


@pytest.mark.parametrize(
    ("text", "amount"),
    [("0", 0), ("50GB", 50e9), ("1.5 TB", 1.5e12), ("512MiB", 2**29), ("12", 12), ("3kb", 3000), ("7B", 7)],
)
def test_amounts(text, amount):
    assert parse_bytes(text, "--cache-limit") == amount


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "5 apples", "1e9", "5GBs", "0x10", "1,5GB"])
def test_what_is_no_amount(text):
    with pytest.raises(UsageError, match="--cache-limit .*50GB"):
        parse_bytes(text, "--cache-limit")


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        *[(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (2.44e9, "2.4 GB"), (64e9, "64 GB"), (411.6e3, "412 kB")],
        *[(999_960, "1.0 MB"), (1.25e12, "1.2 TB"), (10**6, "1 MB")],
    ],
)
def test_amounts_as_text(amount, text):
    assert bytes_text(amount) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04123, "0.0412"), (0.9996, "1.00"), (5.128, "5.13"), (9.996, "10.0"), (99.96, "100"), (1250.4, "1250"),
     (0.0, "0")],
)  # fmt: skip
def test_rates_have_three_figures(value, text):
    assert rate(value) == text


def test_counts_ratios_and_shares():
    counts = [count(n) for n in (None, 0, 512, 381_700, 23_500_000, 12.34e9, 1.5e12)]
    assert counts == ["", "", "512", "382 k", "23.5 M", "12.3 G", "1.5 T"]
    assert [ratio(v) for v in (None, 0.987, 0.0123)] == ["", "0.99", "0.012"]
    assert [share(v) for v in (None, 0.987, 0.0123)] == ["", "99 %", "1.2 %"]
