"""Score a perfect model by comparing the prediction for a batch's first image with every label in the batch.

Run `python docs/examples/first_of_batch.py`; it only needs the standard library. docs/report.md explains it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

BATCH = 16


def per_image(predictions: Sequence[int], labels: Sequence[int]) -> int:
    """Count the images whose own prediction is their label."""
    return sum(predictions[i] == labels[i] for i in range(len(labels)))


def first_of_batch(predictions: Sequence[int], labels: Sequence[int], batch: int = BATCH) -> int:
    """Count the images whose label is the prediction for the first image of their batch."""
    return sum(predictions[i - i % batch] == labels[i] for i in range(len(labels)))


def in_class_order(sizes: Sequence[int]) -> list[int]:
    """Return the labels of a split sorted by class."""
    return [label for label, size in enumerate(sizes) for _ in range(size)]


def over_all_orders(choose: Callable[[Iterable[int]], int], small: int, large: int, size: int) -> int:
    """Return the minimum or maximum score of a perfect model over all orders of the classes.

    Args:
        choose: `min` or `max`.
        small: number of classes with `size` images.
        large: number of classes with one image more.
        size: number of images of a small class.
    """

    @cache
    def rest(small: int, large: int, start: int) -> int:
        """Score the rest of the split from image `start`; the score of a class depends only on its start."""
        scores = []
        if small:
            scores.append(_score(start, start + size) + rest(small - 1, large, start + size))
        if large:
            scores.append(_score(start, start + size + 1) + rest(small, large - 1, start + size + 1))
        return choose(scores) if scores else 0

    return rest(small, large, 0)


def _score(start: int, end: int) -> int:
    """Count the images of a class, from `start` to `end` (exclusive), whose batch begins with the same class."""
    return sum(i - i % BATCH >= start for i in range(start, end))


def show(title: str, sizes: Sequence[int]) -> None:
    """Print both scores of a perfect model."""
    labels = in_class_order(sizes)
    print(title)
    for name, count in (("its own", per_image), ("the first of its batch", first_of_batch)):
        right = count(labels, labels)
        print(f"  each image by the prediction for {name:<22} {right:>4}/{len(labels)} = {right / len(labels):>8.3%}")


def main() -> None:
    """Print the figures of docs/report.md."""
    show("Flowers-102: 102 classes of 10 images", [10] * 102)
    show("FGVC-Aircraft: 33 classes of 34 images, then 67 of 33", [34] * 33 + [33] * 67)
    show("FGVC-Aircraft: 67 classes of 33 images, then 33 of 34", [33] * 67 + [34] * 33)
    least, most = (over_all_orders(choose, small=67, large=33, size=33) for choose in (min, max))
    print(
        f"FGVC-Aircraft, whichever classes have 34: {least} to {most} of 3333, {least / 3333:.3%} to {most / 3333:.3%}"
    )


if __name__ == "__main__":
    main()
