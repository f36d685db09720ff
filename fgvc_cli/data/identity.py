"""What identifies the data of a run, and what has changed since."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fgvc_cli.contracts import Dataset, EncodedImage, Split
from fgvc_cli.data.splits import NAMES_SHOWN, quoted_names
from fgvc_cli.errors import FgvcError
from fgvc_cli.formatting import counted

DIGEST_BYTES = 8
"""Length of the digests per class, which only tell apart the versions of one class."""

FIELDS_AT_ONCE = 12288
"""Fields that are hashed in one call, three per image."""


@dataclass(frozen=True)
class SplitIdentity:
    """The images of one split of a dataset.

    Attributes:
        sha256: of the key, the class and the size in bytes of each file (of the pixels, for arrays), in order.
        counts: number of images by class, for classes that have any.
        digests: of the images of each class, independent of their order and of the class's name.
        groups: digest of the keys and groups of images, in order; empty without groups.
    """

    sha256: str
    counts: Mapping[str, int]
    digests: Mapping[str, str]
    groups: str = ""

    @classmethod
    def of(cls, split: Split, class_names: Sequence[str]) -> SplitIdentity:
        """Return the identity of a split; its files are not read."""
        whole = hashlib.sha256()
        by_class: dict[str, list[bytes]] = defaultdict(list)
        names = [normal(name) for name in class_names]
        prefixes, encoded = [f"{name}/" for name in names], [_encoded(name) for name in names]
        fields: list[bytes] = []
        for image, label, key in zip(split.images, split.labels, split.keys, strict=True):
            name, text, content = names[label], normal(key), _content(image)
            fields += (_bytes(text), encoded[label], content)
            by_class[name].append(b"%b\0%b" % (_bytes(text.removeprefix(prefixes[label])), content))
            if len(fields) >= FIELDS_AT_ONCE:
                whole.update(b"\0".join([*fields, b""]))
                fields.clear()
        whole.update(b"\0".join([*fields, b""]) if fields else b"")
        digests = {
            name: hashlib.blake2b(b"\0".join(sorted(images)), digest_size=DIGEST_BYTES).hexdigest()
            for name, images in by_class.items()
        }
        groups = hashlib.sha256()
        for key, group in zip(split.keys, split.groups or (), strict=False):
            groups.update(b"\0".join([_encoded(key), _encoded(group), b""]))
        counts = {name: len(images) for name, images in by_class.items()}
        return cls(whole.hexdigest(), counts, digests, groups.hexdigest() if split.groups is not None else "")

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        counts, digests = dict(self.counts), dict(self.digests)
        groups = {"groups_sha256": self.groups} if self.groups else {}
        return {"images": sum(counts.values()), "sha256": self.sha256, "counts": counts, "digests": digests, **groups}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> SplitIdentity:
        """Undo `as_json`."""
        counts = {str(name): int(count) for name, count in document["counts"].items()}
        digests = {str(name): str(digest) for name, digest in document["digests"].items()}
        return cls(str(document["sha256"]), counts, digests, str(document.get("groups_sha256", "")))


@dataclass(frozen=True)
class DataIdentity:
    """The classes and the images of a dataset, before images are held out for validation.

    Attributes:
        classes: names in the order of the labels.
        splits: by name; empty if an older version recorded the run.
        fingerprint: the dataset's own digest of its images, if it has one: all that older versions recorded of them.
        changes: changes that training went on with, if any: "after epoch 3: 2 images added to train".
    """

    classes: tuple[str, ...]
    splits: Mapping[str, SplitIdentity]
    fingerprint: str = ""
    changes: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def of(cls, dataset: Dataset, splits: Collection[str] | None = None) -> DataIdentity:
        """Return the identity of a dataset, or of some of its splits."""
        wanted = [name for name in dataset.splits() if splits is None or name in splits]
        found = {name: SplitIdentity.of(dataset.split(name), dataset.class_names) for name in wanted}
        return cls(tuple(dataset.class_names), found, _fingerprint(dataset.identity()))

    @classmethod
    def recorded(cls, document: Mapping[str, Any]) -> DataIdentity | None:
        """Return the identity in the metadata of a model file or of a state, or None if it has none.

        Raises:
            FgvcError: it is damaged.
        """
        try:
            if "data" in document:
                return cls.from_json(document["data"])
            if "classes" in document and "dataset" in document:
                return cls(tuple(map(str, document["classes"])), {}, _fingerprint(document["dataset"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FgvcError(f"the recorded identity of the data is damaged ({error})") from error
        return None

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "classes": list(self.classes),
            "splits": {name: split.as_json() for name, split in self.splits.items()},
            "fingerprint": self.fingerprint,
            "changes": list(self.changes),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> DataIdentity:
        """Undo `as_json`.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: something is missing or has another type.
        """
        splits = {str(name): SplitIdentity.from_json(split) for name, split in document["splits"].items()}
        classes, changes = (tuple(map(str, document[name])) for name in ("classes", "changes"))
        return cls(classes, splits, str(document["fingerprint"]), changes)

    @property
    def training_digest(self) -> str:
        """A digest of the classes and of all images but those of the test split."""
        splits = [f"{name} {split.sha256}" for name, split in sorted(self.splits.items()) if name != "test"]
        return hashlib.sha256("\0".join([*map(normal, self.classes), "", *splits]).encode(errors="replace")).hexdigest()

    def changes_to(self, now: DataIdentity, splits: Collection[str] | None = None) -> list[str]:
        """Return what differs, in words; only in some splits, if `splits` names them."""
        classes, renamed = _class_changes(self, now)
        if not self.splits:
            known = bool(self.fingerprint and now.fingerprint)
            return classes or ["its files differ"] * (known and self.fingerprint != now.fingerprint)
        found = list(classes)
        for name in dict.fromkeys((*self.splits, *now.splits)):
            if splits is not None and name not in splits:
                continue
            before, after = self.splits.get(name), now.splits.get(name)
            if before is None or after is None:
                found.append(f"split '{name}' was {'added' if before is None else 'removed'}")
            elif before.sha256 != after.sha256:
                found += _split_changes(name, before, after, renamed) or ([] if classes else [_reordered(name)])
            elif before.groups != after.groups and before.groups and after.groups:
                found.append(f"the groups (`group_by`) of images in {name} changed")
        return found


def normal(name: str) -> str:
    """Return a name in the Unicode form that it is compared in: file systems differ in it."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _encoded(name: str) -> bytes:
    return _bytes(normal(name))


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _content(image: Path | str | EncodedImage | np.ndarray) -> bytes:
    """Return a file's size in bytes, or a digest of pixels; b"missing" if the file does not exist."""
    if isinstance(image, np.ndarray):
        return hashlib.blake2b(image.tobytes(), digest_size=DIGEST_BYTES).digest()
    if isinstance(image, EncodedImage):
        return str(image.size).encode()
    try:
        return str(os.stat(image).st_size).encode()  # noqa: PTH116, called for 100,000 files
    except OSError:
        return b"missing"


def _fingerprint(identity: Mapping[str, Any]) -> str:
    return str(identity.get("names_sha256") or identity.get("rows_sha256") or "")


def _class_changes(before: DataIdentity, after: DataIdentity) -> tuple[list[str], dict[str, str]]:
    """Return the changes of the classes, and the new names of renamed ones: those that have the same images."""
    old, new = list(map(normal, before.classes)), list(map(normal, after.classes))
    gone, come = [n for n in old if n not in set(new)], [n for n in new if n not in set(old)]
    images = {name: _images_of(name, after) for name in come}
    renamed: dict[str, str] = {}
    for name in gone:
        own = _images_of(name, before)
        same = [other for other in come if own and images[other] == own and other not in renamed.values()]
        if same:
            renamed[name] = same[0]
    found = [f"class '{name}' was renamed '{renamed[name]}'" for name in list(renamed)[:NAMES_SHOWN]]
    unknown = "removed" if before.splits else "renamed or removed"
    for names, what in (
        ([name for name in gone if name not in renamed], unknown),
        ([name for name in come if name not in renamed.values()], "added"),
    ):
        if names:
            found.append(f"class{'es' if len(names) > 1 else ''} {quoted_names(names)} {_were(len(names))} {what}")
    return found or ["the order of the classes changed"] * (old != new), renamed


def _images_of(name: str, data: DataIdentity) -> dict[str, str]:
    return {split: each.digests[name] for split, each in data.splits.items() if name in each.digests}


def _split_changes(split: str, before: SplitIdentity, after: SplitIdentity, renamed: Mapping[str, str]) -> list[str]:
    """Return the changes of the images in a split, by kind."""
    added: Counter[str] = Counter()
    removed: Counter[str] = Counter()
    replaced = []
    old_names = {renamed.get(name, name): name for name in before.counts}
    for name in dict.fromkeys((*old_names, *after.counts)):
        old = before.counts.get(old_names.get(name, name), 0)
        new = after.counts.get(name, 0)
        if old == new and before.digests[old_names[name]] != after.digests[name]:
            replaced.append(name)
        added[name], removed[name] = max(0, new - old), max(0, old - new)
    found = []
    for counts, text in ((+added, "added to"), (+removed, "removed from")):
        if counts:
            images, classes = counts.total(), quoted_names(list(counts))
            found.append(f"{counted(images, 'image')} {_were(images)} {text} {split} ({classes})")
    if replaced:
        found.append(f"images of {quoted_names(replaced)} in {split} were replaced or edited")
    return found


def _reordered(split: str) -> str:
    return f"the order of the images in {split} changed"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
