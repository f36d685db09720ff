"""What the names of folders mean: splits, and divisions of a class."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
GENERIC = frozenset(
    {"set", "data", "dataset", "images", "image", "imgs", "img", "photos", "pictures", "split", "samples"}
)
"""Words beside the usual name in the name of a split folder: `training_set`, `Test Images`, `train-data`."""
DIVISION = re.compile(
    r"(batch|session|part|day|week|set|cam|camera|seq|sequence|video|burst|roll|folder|dir|group|fold"
    r"|[a-z](?=[ ._-]*\d))?(e?s)?[ ._-]*\d[\d ._-]*"
    r"|(image|img|photo|picture|original|augmented|crop|cropped|raw|session|batch|set)s?",
    re.IGNORECASE,
)
"""Names of folders that divide the images of a class, such as `2021-05`, `session 3` or `crops`, not classes."""
NUMBER = re.compile(r"\d{1,3}")
"""Names of folders that may be classes nevertheless."""


def split_named(name: str) -> str | None:
    """Return the split that a name stands for, in upper or lower case: "test" for "Testing" and "test_set"."""
    words = words_of(name)
    found = {split for split, names in USUAL_NAMES.items() if any(word in names for word in words)}
    rest = [word for word in words if not any(word in names for names in USUAL_NAMES.values())]
    return found.pop() if len(found) == 1 and set(rest) <= GENERIC else None


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case; "trainset" and "testData" have two."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = [word for word in re.split(r"[\s._-]+", spaced.lower()) if word]
    return [part for word in words for part in _divided(word)]


def _divided(word: str) -> list[str]:
    for ending in ("set", "data", "images"):
        start = word.removesuffix(ending)
        if start != word and any(start in names for names in USUAL_NAMES.values()):
            return [start, ending]
    return [word]


def similar_names(names: Iterable[str]) -> str:
    """Describe the first two class names that differ only in case, Unicode form or blanks: they may be one class."""
    first_of: dict[str, str] = {}
    for name in names:
        other = first_of.setdefault(" ".join(unicodedata.normalize("NFKC", name).casefold().split()), name)
        if other != name:
            same = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other)
            how = " (their letters are composed and decomposed Unicode)" * same
            return f"'{other}' and '{name}' are two classes{how}; if they are one, use one spelling"
    return ""
