"""Options of iNaturalist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgvc_cli import option


@dataclass(frozen=True)
class InatOptions:
    """Which of the yearly datasets, and what counts as a class."""

    version: Literal["2021", "2021_mini", "2019", "2018", "2017"] = option(
        "2021", "2021: 10,000 species, 2.7 million images; 2021_mini: 50 of each; 2019: 1,010; 2018: 8,142; 2017: 5,089"
    )
    level: Literal["species", "genus", "family", "order", "class", "phylum", "kingdom", "supercategory"] = option(
        "species", "what is told apart; supercategory: 2017 and 2018 only; 2017 has species and supercategory alone"
    )
