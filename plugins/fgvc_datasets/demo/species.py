"""The species: the trait of each of their six parts.

The twelve species of `demo` form three groups of four. Within a group two parts vary, two traits each, so every species
has two siblings that differ from it in a single part; species of different groups differ in two parts or more. Those of
`demo_unknown` have the same traits in other combinations: three differ from one of `demo` in a single part, three in
two or more.
"""

from __future__ import annotations

from collections.abc import Mapping
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

UNKNOWN_SPECIES: dict[str, Traits] = {
    "Plain-winged-Finch": Traits("conical", "fan", "plain", "crested", "ring", "plain"),
    "Plain-eyed-Pintail": Traits("hooked", "pointed", "plain", "smooth", "plain", "spotted"),
    "Hooked-Plain-Warbler": Traits("hooked", "forked", "patch", "crested", "plain", "plain"),
    "Bar-winged-Thornbill": Traits("thin", "pointed", "bars", "crested", "ring", "plain"),
    "Ring-eyed-Fantail": Traits("thin", "fan", "plain", "smooth", "ring", "plain"),
    "Stripe-eyed-Grosbeak": Traits("conical", "pointed", "bars", "smooth", "stripe", "spotted"),
}
"""Species of `demo_unknown`."""

CLASS_NAMES: tuple[str, ...] = tuple(sorted(SPECIES))


def differing_parts(first: str, second: str, among: Mapping[str, Traits] = SPECIES) -> tuple[str, ...]:
    """Return the parts in which two species differ, in the order of `PARTS`."""
    a, b = among[first], among[second]
    return tuple(part for part in PARTS if getattr(a, part) != getattr(b, part))


def deciding_parts(species: str, among: Mapping[str, Traits] = SPECIES) -> tuple[str, ...]:
    """Return the parts that alone distinguish `species` from another one, in the order of `PARTS`.

    A part is deciding if another species differs in that part and in no other: without it, the species cannot be
    recognized.
    """
    differences = (differing_parts(species, other, among) for other in among if other != species)
    alone = {parts[0] for parts in differences if len(parts) == 1}
    return tuple(part for part in PARTS if part in alone)
