"""How a folder of images is laid out: which folders are splits, which are classes."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fgvc_cli.contracts.dataset import ImageFolder, scan_folder
from fgvc_cli.errors import FgvcError, did_you_mean
from fgvc_datasets.folder_names import DIVISION, NUMBER, USUAL_NAMES, split_named, words_of
from fgvc_datasets.options import FolderOptions

SHOWN = 5
"""Number of folders that a message lists."""


@dataclass
class Layout:
    """The splits of a folder.

    Attributes:
        splits: images by split and class folder, "train" first; a class folder may have no image.
        bases: by split, the folder that its keys are relative to.
        has_splits: whether there are split folders; else everything is "train".
        ignored: number of files that are no images, by suffix.
        notes: what was taken for what, where it is not plain.
        groups: by class, the folders between its split and its own, outermost first.
    """

    splits: dict[str, dict[str, list[Path]]] = field(default_factory=dict)
    bases: dict[str, Path] = field(default_factory=dict)
    has_splits: bool = True
    ignored: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)


def find_layout(folder: Path, options: FolderOptions) -> Layout:
    """Find the splits and classes of a folder.

    Raises:
        FgvcError: the folder does not exist, is a file, is empty, has no class folders, or mixes several layouts.
    """
    _check_folder(folder)
    layout = Layout()
    root = scan_folder(folder)
    layout.ignored = root.total_ignored()
    top = root if options.named else _descend(root, layout)
    splits = _split_folders(top, options, layout)
    if splits:
        known = {kid.path.name for kid in splits["train"].with_images} if "train" in splits else set()
        for name, each in splits.items():
            if name == "train" or not known & {kid.path.name for kid in each.with_images}:
                splits[name] = _descend(each, layout)
        _read_splits(splits, options, layout)
    else:
        _read_classes(top, options, layout)
    if "train" in layout.splits:
        _drop_unlabeled(layout)
    return layout


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        if schemes := [i for i, part in enumerate(folder.parts) if part.endswith(":") and len(part) > len("C:")]:
            url = "/".join([f"{folder.parts[schemes[0]]}/", *folder.parts[schemes[0] + 1 :]])
            raise FgvcError(f"{url} is a URL; index the shards there (fgvc data index {url}), and give the index")
        parent = folder.parent
        near = did_you_mean(folder.name, [path.name for path in parent.iterdir()]) if parent.is_dir() else ""
        raise FgvcError(f"{folder}: no such folder.{near}" if near else f"{folder}: no such folder")
    if not folder.is_dir():
        raise FgvcError(f"{folder} is a file; `data` takes a folder with one folder of images per class")


def _descend(folder: ImageFolder, layout: Layout) -> ImageFolder:
    """Return the folder itself, or the one in it that was meant if it holds all images in folders of its own."""
    top = folder
    while not top.images and len(kids := top.with_images) == 1:
        (kid,) = kids
        inner = kid.with_images
        names = [each.path.name for each in inner]
        if split_named(kid.path.name) or kid.images:
            break
        if all(DIVISION.fullmatch(name) and not NUMBER.fullmatch(name) for name in names):
            break
        top = kid
    if top is not folder:
        layout.notes.append(f"{folder.path}: reading {top.path.name}/ in it, the only folder with images")
    return top


def _split_folders(top: ImageFolder, options: FolderOptions, layout: Layout) -> dict[str, ImageFolder]:
    """Return the split folders, "train" first; folders with images but without classes are noted as unlabeled."""
    kids = top.with_images
    meant = {kid.path: split for kid in kids if (split := split_named(kid.path.name))} or _pairs(kids)
    found: dict[str, ImageFolder] = {}
    named = [value for value in options.named.values() if value is not None]
    for split in USUAL_NAMES:
        name = options.named.get(split)
        if name is not None:
            found[split] = _named_folder(top, split, name)
            continue
        candidates = [k for k in kids if meant.get(k.path) == split and k.with_images and k.path.name not in named]
        usual = [kid for kid in candidates if kid.path.name.lower() in USUAL_NAMES[split]]
        if len(candidates) > 1 and len(usual) != 1:
            names = " and ".join(kid.path.name for kid in candidates)
            raise FgvcError(f"{top.path} has {names}; choose one with `dataset.{split}`")
        if candidates:
            found[split] = usual[0] if usual else candidates[0]
    taken = {each.path for each in found.values()}
    others = [kid for kid in kids if kid.path not in taken and not any(kid.path in path.parents for path in taken)]
    if not found:
        if len(kids) > 1 and all(kid.path in meant for kid in kids) and len(set(meant.values())) > 1:
            raise FgvcError(_flat_splits(top, kids))
        return {}
    unlabeled = [kid for kid in others if kid.path in meant and not kid.with_images]
    for kid in unlabeled:
        layout.notes.append(_unlabeled(kid.path, len(kid.images)))
    _refuse_mixture(top, found, [kid for kid in others if kid not in unlabeled])
    unusual = [(split, kid) for split, kid in found.items() if kid.path.name.lower() not in USUAL_NAMES[split]]
    if unusual and not options.named:
        read = ", ".join(f"{kid.path.name}/ as {split}" for split, kid in unusual)
        layout.notes.append(f"{top.path}: read {read}")
    return found


def _pairs(kids: Sequence[ImageFolder]) -> dict[Path, str]:
    """Return the splits of folders that are named alike but for the usual names: `seg_train`, `seg_test`."""
    by_rest: dict[str, dict[Path, str]] = {}
    for kid in kids:
        words = words_of(kid.path.name)
        splits = [split for split, names in USUAL_NAMES.items() for word in words if word in names]
        if len(splits) == 1:
            rest = " ".join(word for word in words if word not in USUAL_NAMES[splits[0]])
            by_rest.setdefault(rest, {})[kid.path] = splits[0]
    return next((found for found in by_rest.values() if len(set(found.values())) > 1), {})


def _named_folder(top: ImageFolder, split: str, name: str) -> ImageFolder:
    path = top.path / name
    if not path.is_dir():
        near = did_you_mean(name, [each.path.name for each in top.folders])
        raise FgvcError(f"`dataset.{split}={name}`: {top.path} has no such folder.{near}")
    return next((each for each in top.folders if each.path == path), None) or scan_folder(path)


def _refuse_mixture(top: ImageFolder, splits: Mapping[str, ImageFolder], others: Sequence[ImageFolder]) -> None:
    if others:
        there = ", ".join(f"{each.path.name}/" for each in splits.values())
        raise FgvcError(
            f"{top.path} mixes split folders ({there}) with other folders of images "
            f"({', '.join(each.path.name for each in others[:SHOWN])}{', ...' if len(others) > SHOWN else ''}); move "
            "those away or into a split folder, or name the folder of a split with `dataset.train` (val, test)"
        )


def _read_splits(splits: Mapping[str, ImageFolder], options: FolderOptions, layout: Layout) -> None:
    depth = options.classes if options.classes != "auto" else _class_level(splits.get("train"))
    for name, each in splits.items():
        layout.splits[name] = _innermost(each, layout) if depth == "last" else _outermost(each)
        layout.bases[name] = each.path
        if each.images:
            layout.notes.append(f"{each.path}: {_images(len(each.images))} outside class folders ignored")
    _note_level(splits.get("train"), options, depth, layout)
    _note_empty(splits.values(), layout)


def _read_classes(top: ImageFolder, options: FolderOptions, layout: Layout) -> None:
    """Read class folders without split folders above them; they may have split folders in them."""
    if not top.with_images:
        raise FgvcError(_no_classes(top))
    if options.classes == "auto" and (inner := _splits_in_classes(top)):
        for split in USUAL_NAMES:
            if found := {name: each.all_images() for name, of in inner.items() if (each := of.get(split)) is not None}:
                layout.splits[split], layout.bases[split] = found, top.path
        names = ", ".join(layout.splits)
        layout.notes.append(f"{top.path}: the splits ({names}) are folders in the class folders, and are read as such")
        return
    layout.has_splits = False
    _read_splits({"train": top}, options, layout)
    _note_neighbors(top, layout)


def _splits_in_classes(top: ImageFolder) -> dict[str, dict[str, ImageFolder]]:
    """Return the split folders of each class folder; none unless all have only such folders, train among them."""
    found = {}
    for kid in top.with_images:
        by_split = {split: each for each in kid.with_images if (split := split_named(each.path.name))}
        if kid.images or len(by_split) < len(kid.with_images):
            return {}
        found[kid.path.name] = by_split
    return found if all("train" in by_split for by_split in found.values()) and len(found) > 1 else {}


def _class_level(train: ImageFolder | None) -> str:
    """Return which folders are classes: the "first" level, or the "last" (order/family/species)."""
    kids = [] if train is None else train.with_images
    leaves = [leaf for kid in kids for leaf in _leaves(kid)]
    if any(kid.images or len(kid.with_images) == 0 for kid in kids) or any(leaf.with_images for leaf in leaves):
        return "first"
    names = [unicodedata.normalize("NFC", leaf.path.name).casefold() for leaf in leaves]
    is_division = len(set(names)) < len(names) or all(DIVISION.fullmatch(name) for name in names)
    return "last" if len(leaves) > len(kids) and len(kids) > 0 and not is_division else "first"


def _leaves(folder: ImageFolder) -> Iterator[ImageFolder]:
    """Yield the folders that images are in, within a folder."""
    if folder.images:
        yield folder
    else:
        for each in folder.with_images:
            yield from _leaves(each)


def _outermost(folder: ImageFolder) -> dict[str, list[Path]]:
    return {each.path.name: each.all_images() for each in folder.folders}


def _innermost(folder: ImageFolder, layout: Layout) -> dict[str, list[Path]]:
    """Return the images of the innermost folders; two of the same name have the name above in parentheses.

    The groups of classes are those of the first split that has them, which is train if it has.
    """
    leaves = [leaf for each in folder.with_images for leaf in _leaves(each)]
    counts = Counter(leaf.path.name for leaf in leaves)
    names = [n if counts[n := leaf.path.name] == 1 else f"{n} ({leaf.path.parent.name})" for leaf in leaves]
    for name, leaf in zip(names, leaves, strict=True):
        groups = leaf.path.relative_to(folder.path).parts[:-1]
        if layout.groups.setdefault(name, groups) != groups:
            layout.notes.append(f"{leaf.path}: in {'/'.join(layout.groups[name]) or 'no folder'} in another split")
    return {name: leaf.all_images() for name, leaf in zip(names, leaves, strict=True)}


def _note_level(train: ImageFolder | None, options: FolderOptions, depth: str, layout: Layout) -> None:
    kids = [] if train is None or options.classes != "auto" else train.with_images
    inner = [each for kid in kids for each in kid.with_images]
    if not inner or train is None:
        return
    example = inner[0].path.relative_to(train.path).as_posix()
    if depth == "last":
        leaves = [leaf for kid in kids for leaf in _leaves(kid)]
        example = leaves[0].path.relative_to(train.path).as_posix()
        layout.notes.append(
            f"{train.path}: the {len(leaves)} innermost folders, such as {example}, are read as classes; "
            f"`dataset.classes=first` reads the {len(kids)} outer ones"
        )
    elif not all(DIVISION.fullmatch(each.path.name) for each in inner):
        layout.notes.append(
            f"{train.path}: its {len(kids)} folders are read as classes, with the folders in them, such as {example}; "
            "`dataset.classes=last` reads the innermost ones as classes"
        )


def _note_empty(splits: Iterable[ImageFolder], layout: Layout) -> None:
    for each in splits:
        empty = [kid.path.name for kid in each.folders if not kid.has_images]
        if empty:
            shown = ", ".join(empty[:8]) + (f" and {len(empty) - 8} more" if len(empty) > 8 else "")
            layout.notes.append(f"{each.path}: folders without images are ignored: {shown}")


def _note_neighbors(top: ImageFolder, layout: Layout) -> None:
    """Note other split folders beside a split folder that was given itself."""
    own, parent = split_named(top.path.name), top.path.parent
    if own is None:
        return
    beside = [path.name for path in parent.iterdir() if path.is_dir() and split_named(path.name) not in (None, own)]
    if beside:
        others = ", ".join(f"{name}/" for name in sorted(beside))
        layout.notes.append(f"{top.path} has {others} beside it; give {parent} to use them as splits")


def _drop_unlabeled(layout: Layout) -> None:
    """Leave out splits of which no folder is a class of train, if they have a single one: unlabeled images."""
    classes = {name for name, images in layout.splits["train"].items() if images}
    for split in [name for name in layout.splits if name != "train"]:
        found = {name: images for name, images in layout.splits[split].items() if images}
        if len(found) == 1 and not classes & found.keys() and len(classes) > 1:
            ((name, images),) = found.items()
            layout.notes.append(_unlabeled(layout.bases[split] / name, len(images)))
            del layout.splits[split], layout.bases[split]


def _unlabeled(folder: Path, images: int) -> str:
    return f"{folder}: {_images(images)} without class folders are not used; fgvc predict classifies them"


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def _flat_splits(top: ImageFolder, kids: Sequence[ImageFolder]) -> str:
    """Describe split folders without class folders; a table beside them may have the labels."""
    names = " and ".join(f"{kid.path.name}/" for kid in kids)
    tables = sorted(path.name for path in top.path.iterdir() if path.suffix.lower() in (".csv", ".tsv"))
    table = f"give {top.path / tables[0]} if it lists them" if tables else "or give a CSV file of path and label"
    return f"{top.path}: {names} have images but no class folders; sort the images into one folder per class, {table}"


def _no_classes(top: ImageFolder) -> str:
    """Describe a folder without class folders."""
    expected = "one folder of images per class is expected, directly in it or in train/, val/ and test/"
    if top.images:
        parent = top.path.parent
        beside = [path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")]
        meant = f"; if it is one of the classes in {parent}, give that" if len(beside) > 1 else ""
        return f"{top.path} has {_images(len(top.images))} but no class folders; {expected}{meant}"
    if next(top.path.rglob("*.tar"), None) is not None:
        return f"{top.path} contains tar files and no images; index them (fgvc data index), and give the index"
    is_empty = next(top.path.iterdir(), None) is None
    return f"{top.path} {'is empty' if is_empty else 'contains no images'}; {expected}"
