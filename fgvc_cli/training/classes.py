"""Add classes to a fitted run without training."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from fgvc_cli import files
from fgvc_cli.contracts import FittedHead, Split
from fgvc_cli.contracts.dataset import find_images, visible_folders
from fgvc_cli.data.splits import quoted_names
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.registry import Registry
from fgvc_cli.runs.folder import Run, check_out, new_run
from fgvc_cli.runs.model_file import CALIBRATION, read_metadata, read_taxonomy, save_classifier
from fgvc_cli.scoring.features import FeatureSettings, FrozenBackbone, split_features
from fgvc_cli.scoring.model import InferenceSettings, load, run_of
from fgvc_cli.specs import HeadSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AddedClasses:
    """A run with more classes.

    Attributes:
        run: the new run.
        images: number of images by new class.
        classes: number of classes, the new ones included.
        failures: why an image could not be read, by its path.
    """

    run: Run
    images: Mapping[str, int]
    classes: int
    failures: Mapping[str, str] = field(default_factory=dict)


def add_classes(
    model_file: Path,
    folders: Sequence[Path],
    inference: InferenceSettings,
    registry: Registry,
    out: Path | None = None,
    force: bool = False,
) -> AddedClasses:
    """Add classes to the classifier of a fitted run, and write it as a new run; the old one stays as it is.

    Args:
        model_file: of the run.
        folders: each a class, named like the folder, or a folder of such folders.
        inference: how to compute the features.
        registry: for the names of heads that can do it.
        out: folder of the new run; None: a new one in the runs folder.
        force: whether `out` may hold another run, which is replaced.

    Raises:
        UsageError: the head cannot add classes, a class exists or is given twice, or `out` may not be used.
        FgvcError: a folder has no image, or none of a class can be read.
    """
    old = run_of(model_file)
    if out is not None:
        if out.resolve() in (old.resolve(), model_file.resolve().parent):
            raise UsageError(f"`out={out}` is the run itself, which stays as it is; choose another folder")
        check_out(out, force)
    ready = load(model_file, inference)
    classifier, head = ready.classifier, ready.classifier.head
    metadata = read_metadata(model_file)
    if not isinstance(head, FittedHead) or type(head).add_classes is FittedHead.add_classes:
        able = [c.name for c in registry.components("head") if isinstance(c.spec, HeadSpec) and _can_add(c.load())]
        raise UsageError(
            f"head {metadata['components']['head']['name']} must be trained again to know another class; runs of "
            f"{' and '.join(able)} can add classes"
        )
    found = find_classes(folders)
    if known := [name for name in found if name in classifier.class_names]:
        raise UsageError(f"the run already has {quoted_names(known)}; rename the folder")
    names = (*classifier.class_names, *found)
    images = [(image, len(classifier.class_names) + i) for i, paths in enumerate(found.values()) for image in paths]
    split = Split("images", [i for i, _ in images], [label for _, label in images], [str(i) for i, _ in images])
    frozen = FrozenBackbone(classifier.backbone, head.reads(), classifier.preprocessing)
    with ready.memory_explained():
        settings = FeatureSettings(ready.precision, ready.batch_size, ready.workers, cache="off")
        features = split_features(frozen, split, None, settings)
    added = features.labeled(classifier.device)
    counts = torch.bincount(added.labels.cpu(), minlength=len(names))[-len(found) :].tolist()
    if empty := [name for name, count in zip(found, counts, strict=True) if not count]:
        raise FgvcError(f"no image of {quoted_names(empty)} can be read")
    head.add_classes(added, len(names))
    images_added = dict(zip(found, counts, strict=True))
    history = [*metadata.get("added", []), images_added]
    if metadata.pop(CALIBRATION, None) is not None:
        logger.warning("the calibration of the run is for its former classes: calibrate the new run (fgvc calibrate)")
    with new_run(out, force, old.name, "classes") as run:
        if (old / "config.toml").is_file():
            shutil.copyfile(old / "config.toml", run.config_file)
        taxonomy = read_taxonomy(model_file)
        grown = {} if taxonomy is None else {"taxonomy": taxonomy.with_classes(list(found)).as_json()}
        save_classifier(run.model_file, classifier, {**metadata, "classes": list(names), "added": history, **grown})
        if Run(old).finished:  # metrics of the old classes are not those of this classifier
            chance = 1 / len(names)
            summary = replace(
                Run(old).summary, run=run.name, classes=len(names), chance=chance, train=None, val=None, test=None
            )
            files.write_json(run.summary_file, summary.as_json())
    return AddedClasses(run, images_added, len(names), features.failures)


def find_classes(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the images of each class: of a folder with images, or of each folder in it that has some.

    Raises:
        UsageError: a class is given twice.
        FgvcError: a folder does not exist or has no image.
    """
    found: dict[str, list[Path]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise FgvcError(f"{folder} is not a folder of images")
        images = find_images(folder)
        direct = any(image.parent == folder for image in images)
        classes = [folder] if direct else [below for below in visible_folders(folder) if find_images(below)]
        if not classes:
            raise FgvcError(f"no image in {folder}")
        for each in classes:
            if not any(image.parent == each for image in find_images(each)):  # such as train/ of a dataset
                raise FgvcError(f"{each} has folders of images in place of images; name it, to add each of them")
            name = each.name if each.is_symlink() else each.resolve().name  # resolved: "." has no name
            if name in found:
                raise UsageError(f"class '{name}' is given twice")
            found[name] = find_images(each)
    if not found:
        raise UsageError("name a folder of images for each class to add")
    return found


def _can_add(target: object) -> bool:
    return (
        isinstance(target, type) and issubclass(target, FittedHead) and target.add_classes is not FittedHead.add_classes
    )
