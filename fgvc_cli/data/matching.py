"""Images of another data set for a classifier that is trained already: classes are matched by name."""

from __future__ import annotations

from collections.abc import Sequence

from fgvc_cli.contracts import Split
from fgvc_cli.data.splits import listed, subset
from fgvc_cli.display import console
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean


def match_classes(
    split: Split, dataset_classes: Sequence[str], model_classes: Sequence[str], ignore_unknown: bool
) -> Split:
    """Return the split with labels that index the model's classes.

    Classes count only where the split has images of them. The split may lack classes of the model.

    Args:
        split: labels index `dataset_classes`.
        dataset_classes: names of the data set's classes.
        model_classes: names of the model's classes, in the order of its scores.
        ignore_unknown: leave out images of classes that the model does not know, and say so.

    Raises:
        UsageError: the split has classes that the model does not know, and they are not to be ignored.
        FgvcError: no image is left.
    """
    index_of = {name: index for index, name in enumerate(model_classes)}
    present = [dataset_classes[label] for label in sorted(set(split.labels))]
    unknown = [name for name in present if name not in index_of]
    if unknown and not ignore_unknown:
        near = did_you_mean(unknown[0], model_classes) if len(unknown) == 1 else ""
        raise UsageError(
            f"{len(unknown)} class{'' if len(unknown) == 1 else 'es'} of the {split.name} split "
            f"{'is' if len(unknown) == 1 else 'are'} unknown to this model: {listed(unknown)}.{near} "
            "Rename the folders as the model names its classes, or leave them out with --ignore-unknown."
        )
    kept = [i for i, label in enumerate(split.labels) if dataset_classes[label] in index_of]
    if not kept:
        raise FgvcError(f"No image of the {split.name} split is of a class that this model knows.")
    left_out = len(split) - len(kept)
    if left_out:
        console.warn(f"left out {left_out} images of classes unknown to this model: {listed(unknown)}.")
    matched = subset(split, kept, split.name, split.origin) if left_out else split
    labels = [index_of[dataset_classes[label]] for label in matched.labels]
    return Split(matched.name, matched.images, labels, matched.keys, matched.parts, matched.origin)
