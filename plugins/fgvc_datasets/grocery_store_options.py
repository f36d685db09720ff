"""Options of the Grocery Store dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgvc_cli import option


@dataclass(frozen=True)
class GroceryStoreOptions:
    """Which of the two published sets of classes is used."""

    level: Literal["fine", "coarse"] = option("fine", "classes: 81 fine (Royal-Gala) or 43 coarse (Apple)")
