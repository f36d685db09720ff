"""The tables of the documentation are those that docs/generate.py makes."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_generated_tables_are_up_to_date(capsys):
    generate = runpy.run_path(str(DOCS / "generate.py"))
    assert generate["main"](["--check"]) == 0, capsys.readouterr().out


def test_a_table_between_markers_is_replaced():
    generate = runpy.run_path(str(DOCS / "generate.py"))
    page = generate["filled"]("a\n<!-- options: head linear -->\nold\n<!-- end -->\nb\n")
    assert "old" not in page and "| `dropout` | float | `0.0`   |" in page
    assert generate["filled"](page) == page
