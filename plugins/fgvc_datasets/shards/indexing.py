"""Read the headers of tar files, and write where each image is and of which class."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fgvc_cli.contracts.dataset import IMAGE_SUFFIXES
from fgvc_cli.errors import FgvcError
from fgvc_datasets.folder_names import USUAL_NAMES, words_of
from fgvc_datasets.shards.index import Index
from fgvc_datasets.shards.store import expanded, filesystem, is_url

LABEL_FIELDS = ("label", "class", "class_name", "category", "species")
"""Fields of a sample's JSON file that may be its class."""

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def write_index(source: str, out: Path | None, classes: Path | None, progress: Callable[[str, int, int], None]) -> Path:
    """Index shards, and return the path of the index.

    The class of an image is the content of its `.cls` file, a field of its `.json` file, or the name of the folder that
    it is in. Numbers index `classes`, if given. Shards are of the split that their name or their folder names, else of
    "train".

    Args:
        source: folder or URL of tar files, or their names with a range, such as "train-{000000..000099}.tar".
        out: the index; None: `index.shards` in the folder, or in the working directory for a URL.
        classes: file with a class name per line, or a JSON list.
        progress: called with the progress.

    Raises:
        FgvcError: there are no shards, one is damaged or compressed, or a sample has no image or no class.
    """
    base, names = find_shards(source)
    known = None if classes is None else read_classes(classes)
    members = frozenset(known or ())
    fs, root = filesystem(base)
    rows: list[tuple[np.ndarray, ...]] = []
    labels: dict[str, int] = {}
    sizes: list[int] = []
    for number, name in enumerate(names):
        progress("indexing shards", number, len(names))
        path = f"{root}/{name}"
        try:
            sizes.append(int(fs.size(path)))
            with fs.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
                found = list(_samples(tar, name, sizes[-1]))
        except tarfile.ReadError as error:
            packed = " (compressed files cannot be indexed; use plain .tar)" if name.endswith("gz") else ""
            raise FgvcError(f"{name}: damaged or truncated, or no tar file: {error}{packed}") from error
        except (OSError, ValueError) as error:
            raise FgvcError(f"{name} cannot be read: {error}") from error
        texts = [_class_name(text, known, members, f"{name}/{image.name}") for image, text in found]
        encoded = [image.name.encode("utf-8", "surrogateescape") for image, _ in found]
        rows.append((
            np.full(len(found), number, np.int32),
            np.array([image.offset_data for image, _ in found], np.int64),
            np.array([image.size for image, _ in found], np.int64),
            np.array([labels.setdefault(text, len(labels)) for text in texts], np.int32),
            np.frombuffer(b"".join(encoded), np.uint8),
            np.array([len(each) for each in encoded], np.int64),
        ))  # fmt: skip
    progress("indexing shards", len(names), len(names))
    shard, offset, size, label, joined, lengths = (np.concatenate(column) for column in zip(*rows, strict=True))
    if not len(shard):
        raise FgvcError(f"{source}: no image in {len(names)} shards")
    ordered = list(known) if known is not None else _ordered(labels)
    position = {text: index for index, text in enumerate(ordered)}
    renumbered = np.array([position[text] for text in labels], np.int32)[label]
    out = out or (Path("index.shards") if is_url(base) else Path(base) / "index.shards")
    place = base if is_url(base) else _relative(Path(base), out)
    splits = tuple(map(split_of, names))
    Index(
        tuple(ordered), place, tuple(names), splits, tuple(sizes), shard, offset, size, renumbered, joined,
        np.cumsum(lengths, dtype=np.int64),
    ).save(out)  # fmt: skip
    return out


def find_shards(source: str) -> tuple[str, list[str]]:
    """Return the folder or URL of shards, and their names below it in order.

    Raises:
        FgvcError: there are none, or the place cannot be reached.
    """
    parent, _, last = source.rpartition("/")
    match = RANGE.search(last)
    if match:
        before, after, digits = last[: match.start()], last[match.end() :], len(match[1])
        numbers = range(int(match[1]), int(match[2]) + 1)
        return expanded(parent or "."), [f"{before}{number:0{digits}}{after}" for number in numbers]
    if source.endswith(".tar"):
        return expanded(parent or "."), [last]
    base = expanded(source.rstrip("/"))
    fs, root = filesystem(base)
    try:
        found = sorted(str(path) for path in fs.find(root) if str(path).endswith(".tar"))
    except Exception as error:
        raise FgvcError(f"{source} cannot be listed: {error or type(error).__name__}") from error
    if not found:
        there = "has no .tar files" if fs.exists(root) else "does not exist"
        raise FgvcError(f"{source} {there}; give a folder or URL of shards, or their names: 'train-{{000..099}}.tar'")
    return base, [path[len(root.rstrip("/")) + 1 :] for path in found]


def split_of(name: str) -> str:
    """Return the split that the name of a shard, or of a folder that it is in, names; else "train"."""
    for part in reversed(PurePosixPath(name).parts):
        words = words_of(part.removesuffix(".tar"))
        found = [split for split, usual in USUAL_NAMES.items() if any(word in usual for word in words)]
        if len(found) == 1:
            return found[0]
    return "train"


def read_classes(path: Path) -> tuple[str, ...]:
    """Return class names: a JSON list, or one per line.

    Raises:
        FgvcError: the file cannot be read, or has a name twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    except (OSError, ValueError) as error:
        raise FgvcError(f"`classes={path}` cannot be read: {error}") from error
    cleaned = tuple(str(name).strip() for name in names if str(name).strip())
    if len(set(cleaned)) < len(cleaned) or not cleaned:
        raise FgvcError(f"`classes={path}` names {'a class twice' if cleaned else 'no class'}")
    return cleaned


def _samples(tar: tarfile.TarFile, shard: str, size: int) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """Yield the image of each sample, and the text of its class: files whose names are the same up to the first dot.

    Args:
        tar: the shard.
        shard: its name, for messages.
        size: its size in bytes.
    """
    end = 0
    images: dict[str, tarfile.TarInfo] = {}
    texts: dict[str, str] = {}
    for member in tar:
        end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE if member.isfile() else end
        path = PurePosixPath(member.name)
        if not member.isfile() or path.name.startswith((".", "_")):
            continue
        stem, _, suffix = path.name.partition(".")
        key, suffix = str(path.with_name(stem)), f".{suffix.lower()}"
        if f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES:
            if key in images:
                raise FgvcError(f"{shard}: the sample '{key}' has two images, {images[key].name} and {member.name}")
            images[key] = member
        elif suffix in (".cls", ".json"):
            content = tar.extractfile(member)
            text = b"" if content is None else content.read()
            texts[key] = _label(text, suffix, f"{shard}/{member.name}") or texts.get(key, "")
    if size < end + tarfile.BLOCKSIZE:  # tarfile takes the end of the file for the end of the archive
        raise FgvcError(f"{shard} is truncated: {size} bytes, without the end of the archive")
    if lone := next((key for key in texts if key not in images), None):
        raise FgvcError(f"{shard}: the sample '{lone}' has no image")
    for key, image in images.items():
        label = texts.get(key) or PurePosixPath(key).parent.name
        if not label:
            raise FgvcError(f"{shard}: the sample '{key}' has no class: no {key}.cls, class in {key}.json, or folder")
        yield image, label


def _label(content: bytes, suffix: str, name: str) -> str:
    try:
        if suffix == ".cls":
            return content.decode().strip()
        document: Any = json.loads(content)
    except ValueError as error:
        raise FgvcError(f"{name}: not text in UTF-8, or not JSON: {error}") from error
    fields = document if isinstance(document, dict) else {}
    return next((str(fields[name]).strip() for name in LABEL_FIELDS if isinstance(fields.get(name), str | int)), "")


def _class_name(text: str, known: tuple[str, ...] | None, members: frozenset[str], image: str) -> str:
    if known is None or text in members:
        return text
    if text.isdecimal() and int(text) < len(known):
        return known[int(text)]
    raise FgvcError(f"{image}: the class '{text}' is none of the {len(known)} classes")


def _ordered(labels: dict[str, int]) -> list[str]:
    """Sort class names, by value if all are numbers."""
    return sorted(labels, key=int) if all(text.isdecimal() for text in labels) else sorted(labels)


def _relative(base: Path, out: Path) -> str:
    """Return a folder relative to that of the index, if it is below it, so that both can be moved together."""
    folder = out.absolute().parent
    return str(base.relative_to(folder)) if base.is_relative_to(folder) else str(base)
