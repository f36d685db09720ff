"""The twelve species: the trait of each of their six parts.

The species form three groups of four. Within a group two parts vary, two traits each, so every species has two
siblings that differ from it in a single part; species of different groups differ in two parts or more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PARTS: tuple[str, ...] = ("beak", "tail", "wing", "crest", "eye", "breast")


@dataclass(frozen=True)
class Traits:
    """The appearance of each part of a bird; nothing else depends on the species."""

    beak: Literal["conical", "hooked", "thin"]
    tail: Literal["fan", "forked", "pointed"]
    wing: Literal["plain", "bars", "patch"]
    crest: Literal["crested", "smooth"]
    eye: Literal["plain", "ring", "stripe"]
    breast: Literal["plain", "spotted"]


SPECIES: dict[str, Traits] = {
    # beak and wing vary
    "Bar-winged-Finch": Traits("conical", "fan", "bars", "crested", "ring", "plain"),
    "Patch-winged-Finch": Traits("conical", "fan", "patch", "crested", "ring", "plain"),
    "Bar-winged-Shrike": Traits("hooked", "fan", "bars", "crested", "ring", "plain"),
    "Patch-winged-Shrike": Traits("hooked", "fan", "patch", "crested", "ring", "plain"),
    # tail and eye vary
    "Ring-eyed-Forktail": Traits("hooked", "forked", "plain", "smooth", "ring", "spotted"),
    "Stripe-eyed-Forktail": Traits("hooked", "forked", "plain", "smooth", "stripe", "spotted"),
    "Ring-eyed-Pintail": Traits("hooked", "pointed", "plain", "smooth", "ring", "spotted"),
    "Stripe-eyed-Pintail": Traits("hooked", "pointed", "plain", "smooth", "stripe", "spotted"),
    # crest and breast vary
    "Crested-Plain-Warbler": Traits("thin", "forked", "patch", "crested", "plain", "plain"),
    "Crested-Spotted-Warbler": Traits("thin", "forked", "patch", "crested", "plain", "spotted"),
    "Smooth-Plain-Warbler": Traits("thin", "forked", "patch", "smooth", "plain", "plain"),
    "Smooth-Spotted-Warbler": Traits("thin", "forked", "patch", "smooth", "plain", "spotted"),
}

CLASS_NAMES: tuple[str, ...] = tuple(sorted(SPECIES))


def differing_parts(first: str, second: str) -> tuple[str, ...]:
    """Return the parts in which two species differ, in the order of `PARTS`."""
    a, b = SPECIES[first], SPECIES[second]
    return tuple(part for part in PARTS if getattr(a, part) != getattr(b, part))


def deciding_parts(species: str) -> tuple[str, ...]:
    """Return the parts that alone distinguish `species` from another one, in the order of `PARTS`.

    A part is deciding if another species differs in that part and in no other: without it, the species cannot be
    recognized.
    """
    differences = (differing_parts(species, other) for other in CLASS_NAMES if other != species)
    alone = {parts[0] for parts in differences if len(parts) == 1}
    return tuple(part for part in PARTS if part in alone)
