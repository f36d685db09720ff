from __future__ import annotations

import pytest

from fgvc_cli.scoring.results import images_text


@pytest.mark.parametrize(
    ("data", "origin", "text"),
    [
        (None, "official", "test of cub200, official"),
        ("/photos", "", "test of /photos"),
    ],
)
def test_figures_name_their_split_and_how_it_came_about(data: str | None, origin: str, text: str) -> None:
    summary = {"split": "test", "dataset": {"name": "cub200", "data": data}, "origin": origin}
    assert images_text(summary) == text
