"""The accuracy of every class as one outline, from the worst class to the best, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from markupsafe import Markup

from fgvc_cli.reporting.templating import fragment, share


def skyline(accuracies: Sequence[float], mean: float) -> Markup:
    """Draw a bar a class side by side, lowest first.

    Args:
        accuracies: in [0, 1], one a class; at least one.
        mean: drawn as a line across.
    """
    ordered = sorted(accuracies)
    classes = len(ordered)
    below = sum(accuracy < mean for accuracy in ordered)
    never, always = sum(a == 0 for a in ordered), sum(a == 1 for a in ordered)
    described = (
        f"Accuracy of {classes} classes, sorted: from {share(ordered[0])} to {share(ordered[-1])}, the median at "
        f"{share(ordered[classes // 2])}. Never right: {never}; always right: {always}; below the mean of "
        f"{share(mean)}: {below}."
    )
    return fragment("skyline.html", path=_outline(ordered), classes=classes, mean=mean, described=described)


def _outline(ordered: Sequence[float]) -> str:
    """Return the outline as a path in a plot as wide as there are classes and 100 high; equal neighbours in one."""
    path, right = "M0 100", 0
    for height, equal in groupby(round(100 - 100 * accuracy, 1) for accuracy in ordered):
        right += len(list(equal))
        path += f"V{height:g}H{right}"
    return f"{path}V100z"
