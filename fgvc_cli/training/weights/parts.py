"""Load a weights file into backbone and head: which entries belong where, and which were loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fgvc_cli.contracts import Backbone, Head, Preprocessing, PublishedState, WeightsReport
from fgvc_cli.errors import FgvcError
from fgvc_cli.formatting import expanded
from fgvc_cli.options import as_toml
from fgvc_cli.registry import Component
from fgvc_cli.runs.model_file import not_finite
from fgvc_cli.training.weights.checkpoint import WeightsFile, read_weights, split_key

MAX_WRONG = 0.1
"""Part of a backbone's entries that may be missing, or of other layers, in weights that are meant for it."""


PARTIAL = ", or load what matches with `train.partial_weights=true`"


@dataclass(frozen=True)
class TargetHead:
    """A head to load weights into.

    Attributes:
        head: with random weights.
        component: its component.
        options: its options dataclass.
        class_names: in the order of its scores.
        preprocessing: of its images.
    """

    head: Head
    component: Component
    options: Any
    class_names: tuple[str, ...]
    preprocessing: Preprocessing

    @property
    def title(self) -> str:
        """Name of the head in messages."""
        return f"head {self.component.spec.name}"


@dataclass(frozen=True)
class Parts:
    """Entries of a weights file, split into backbone and head.

    Attributes:
        backbone: entries of the backbone, with published names or its own.
        head: entries of the head, with its own names; None if the file has none for it.
        classes: number of classes in the file; 0 if unknown.
        strict: whether an entry of the head with another shape is an error; otherwise the head keeps random weights.
        advice: what would make them fit, or what else differs.
        notes: further lines for the user.
    """

    backbone: Mapping[str, Tensor]
    head: Mapping[str, Tensor] | None = None
    classes: int = 0
    strict: bool = False
    advice: str = ""
    notes: tuple[str, ...] = ()


def load_file(file: str | Path, backbone: Backbone, into: TargetHead, partial: bool = False) -> list[str]:
    """Load a weights file into a backbone, and into its head if the file has weights for it.

    The head gets weights from a run's model file with the same head, and from a state dict saved by the public code of
    its method, if the head recognizes it. Entries whose shape depends on the number of classes stay random if it
    differs. A linear head also gets the classifier of a state dict with as many classes.

    Args:
        file: its path, or `path#key` for one of several state dicts in it.
        backbone: with random weights.
        into: the head.
        partial: whether to load a file that lacks many of the backbone's entries.

    Returns:
        Which entries were loaded, in lines for the user.

    Raises:
        FgvcError: the file is unusable or does not fit the backbone or the head.
    """
    path, key = split_key(str(file))
    try:
        read = read_weights(expanded(path), key)
        parts = _split(read, into)
        lines = [] if parts.head is None else _load_head(parts, into)
        report = load_state(backbone, parts.backbone, partial)
        if parts.head is None:
            lines += _load_classifier(report, into)
        if wrong := not_finite(into.head):
            raise FgvcError(f"{into.title}: {wrong}")
    except FgvcError as error:
        raise FgvcError(f"`weights={file}`: {error}") from error
    return [*lines, _backbone_line(backbone.info.name, report), *read.notes, *parts.notes]


def load_backbone(file: str, backbone: Backbone) -> WeightsFile:
    """Load a weights file into a backbone without a head; return its entries of the backbone.

    Args:
        file: its path, or `path#key` for one of several state dicts in it.
        backbone: with random weights.

    Raises:
        FgvcError: the file is unusable or does not fit the backbone.
    """
    path, key = split_key(file)
    try:
        read = read_weights(expanded(path), key)
        entries = _under("backbone.", read.entries) or read.entries
        report = load_state(backbone, entries, advice="")
    except FgvcError as error:
        raise FgvcError(f"{file}: {error}") from error
    return replace(read, entries=entries, notes=(_backbone_line(backbone.info.name, report), *read.notes))


def load_state(
    backbone: Backbone, state: Mapping[str, Tensor], partial: bool = False, advice: str = PARTIAL
) -> WeightsReport:
    """Load a state dict into a backbone and check that it is of this network.

    Args:
        backbone: with random weights.
        state: with published names, or those of the backbone.
        partial: whether to load a state dict of which much does not match.
        advice: end of the error if much does not match.

    Raises:
        FgvcError: it does not fit, has values that are not finite, or, unless `partial`, more than a tenth of the
            backbone's entries are missing or more than a tenth are of further layers of the same modules.
    """
    report = backbone.load_weights(state)
    if damage := not_finite(backbone):
        raise FgvcError(f"backbone {backbone.info.name}: {damage}")
    if partial:
        return report
    own = len(report.loaded) + len(report.missing)
    modules = {name.partition(".")[0] for name in (*report.loaded, *report.missing)}
    deeper = [name for name in report.unknown if name.partition(".")[0] in modules]
    for wrong, what in ((report.missing, "are missing"), (deeper, "of the file are of further layers")):
        if len(wrong) > MAX_WRONG * own:
            raise FgvcError(
                f"the weights are not for {backbone.info.name}: {len(report.loaded)} of its {own} entries match and "
                f"{len(wrong)} {what}, such as {wrong[0]}; choose another backbone or file{advice}"
            )
    return report


def _load_classifier(report: WeightsReport, into: TargetHead) -> list[str]:
    """Load the classifier of the file into a linear head if it has as many classes."""
    layer = into.head.embedding_layer()
    if report.classifier is None or layer is None:
        return []
    weight, bias = report.classifier
    if weight.shape != layer.weight.shape:
        return [f"{into.title} starts from random weights: the file has {len(weight)} classes, not {len(layer.weight)}"]
    layer.load_state_dict({"weight": weight, "bias": bias})
    names = into.class_names
    order = f"{names[0]}, {names[1]}, ..., {names[-1]}" if len(names) > 3 else ", ".join(names)
    return [f"{into.title}: the file's classifier; its {len(names)} classes are taken to be, in this order, {order}"]


def _split(file: WeightsFile, into: TargetHead) -> Parts:
    """Split the entries into those of the backbone and those of the head."""
    published = into.head.published(file.entries)
    if published is not None:
        notes = _normalization_note(published, into.preprocessing)
        return Parts(published.backbone, published.head, published.classes, True, published.advice, notes)
    if file.description is not None:
        try:
            return _of_run(file.description, file.entries, into)
        except (KeyError, TypeError, AttributeError) as error:
            raise FgvcError(f"the file is damaged: its metadata cannot be read ({error})") from error
    of_backbone = _under("backbone.", file.entries)
    if not of_backbone:
        return Parts(file.entries)
    others = [name for name in file.entries if not name.startswith("backbone.")]
    if not others:
        return Parts(of_backbone)
    note = f"{len(others)} entries of the file do not belong to {into.title} and are not used, such as {others[0]}"
    return Parts(of_backbone, notes=(note,))


def _of_run(description: Mapping[str, Any], entries: Mapping[str, Tensor], into: TargetHead) -> Parts:
    """Split a run's model file; its head is used if it is the same component."""
    of_backbone, of_head = _under("backbone.", entries), _under("head.", entries)
    record = description["components"]["head"]
    if (record["distribution"], record["name"]) != (into.component.distribution, into.component.spec.name):
        note = f"the file's head {record['name']} is not used: {into.title} starts from random weights"
        return Parts(of_backbone, notes=(note,))
    here = as_toml(into.options)
    different = [f"head.{key}={value}" for key, value in record["options"].items() if here.get(key) != value]
    size = description["preprocessing"]["image_size"]
    if size != into.preprocessing.image_size:
        different.append(f"`image_size={size}`")
    advice = f"the run had {', '.join(different)}" if different else ""
    notes = []
    classes = description["classes"]
    if len(classes) == len(into.class_names) and tuple(classes) != into.class_names:
        pair = next((a, b) for a, b in zip(classes, into.class_names, strict=True) if a != b)
        notes.append(
            f"the classes in the file have other names, such as '{pair[0]}' for '{pair[1]}'; their weights are loaded"
        )
    return Parts(of_backbone, of_head, len(classes), advice=advice, notes=tuple(notes))


def _normalization_note(published: PublishedState, here: Preprocessing) -> tuple[str, ...]:
    if published.normalization is None or published.normalization == (here.mean, here.std):
        return ()
    mean, std = (f"[{', '.join(f'{value:g}' for value in values)}]" for values in published.normalization)
    return (f"the file was trained with another normalization: `train.mean={mean}`, `train.std={std}`",)


def _load_head(parts: Parts, into: TargetHead) -> list[str]:
    given, own = parts.head or {}, into.head.state_dict()
    sides = (parts.classes, len(into.class_names))
    resized = getattr(into.head, "resizable", ()) if sides[0] == sides[1] else ()
    differing = [n for n, value in own.items() if n in given and given[n].shape != value.shape and n not in resized]
    by_classes = [name for name in differing if _only_by_classes(given[name].shape, own[name].shape, sides)]
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    trouble = [
        *(
            f"{n} has shape {_shape(given[n])} in the file and {_shape(own[n])} here"
            for n in differing
            if n not in by_classes
        ),
        *(f"{name} is not in the file" for name in missing if parts.strict),
    ]
    if trouble and parts.strict:
        advice = parts.advice or "it is incomplete, or from another backbone, image size or options"
        raise FgvcError(f"{into.title}: {trouble[0]}: {advice}")
    if trouble:
        why = f" ({parts.advice})" if parts.advice else ""
        return [f"{into.title} starts from random weights: {trouble[0]}{why}"]
    loaded = {name: given[name] for name in own if name in given and name not in by_classes}
    into.head.load_state_dict(loaded, strict=False)  # which may change the modules of the head
    own = into.head.state_dict()
    missing = [name for name in missing if name in own]
    line = f"{into.title}: {len(loaded)} of {len(own)} entries from the file"
    if by_classes:
        line += f"; {len(by_classes)} stay random, for {sides[0]} classes in the file and {sides[1]} here: "
        line += ", ".join(dict.fromkeys(name.rpartition(".")[0] or name for name in by_classes))
    line += _clause("are not in the file and stay random", missing)
    line += _clause("of its entries do not belong to the head", [name for name in given if name not in own])
    return [line, parts.advice] if parts.strict and parts.advice else [line]


def _backbone_line(name: str, report: WeightsReport) -> str:
    line = f"backbone {name}: {len(report.loaded)} of {len(report.missing) + len(report.loaded)} entries from the file"
    line += _clause("are not in the file and stay random", report.missing)
    return line + _clause("of its entries do not belong to the backbone", report.unknown)


def _clause(words: str, names: Sequence[str]) -> str:
    """Return the number of entries and the first names, or nothing."""
    more = ", ..." if len(names) > 3 else ""
    return f"; {len(names)} {words}: {', '.join(names[:3])}{more}" if names else ""


def _only_by_classes(there: torch.Size, here: torch.Size, classes: tuple[int, int]) -> bool:
    """Return whether two shapes differ only in dimensions that count classes."""
    return len(there) == len(here) and all(a == b or (a, b) == classes for a, b in zip(there, here, strict=True))


def _under(prefix: str, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in entries.items() if name.startswith(prefix)}


def _shape(tensor: Tensor) -> str:
    return "x".join(str(side) for side in tensor.shape) or "scalar"
