"""The largest batch that fits into memory."""

from __future__ import annotations

from collections.abc import Callable

from fgvc_cli.errors import FgvcError

STEP = 8
"""Batches are multiples of it, as a GPU's matrix units like them."""
MOST = 2**16


def largest_batch(fits: Callable[[int], bool], step: int = STEP, most: int = MOST) -> int:
    """Return the largest multiple of `step` up to `most` that fits, if whatever is smaller than a fit fits too.

    It doubles until one does not fit, then halves the interval between the last that did and the first that did not.

    Args:
        fits: tries a number of images.
        step: what the result is a multiple of, and the first number tried.
        most: tried, at most.

    Raises:
        FgvcError: not even `step` images fit.
    """
    good, bad = 0, step
    while bad <= most and fits(bad):
        good, bad = bad, 2 * bad
    bad = min(bad, most // step * step + step)  # what lies beyond `most` counts as too many
    while bad - good > step:
        middle = (good + bad) // 2 // step * step
        if fits(middle):
            good = middle
        else:
            bad = middle
    if not good:
        raise FgvcError(f"Out of memory: not even batches of {step} images fit. Try a smaller --image-size.")
    return good
