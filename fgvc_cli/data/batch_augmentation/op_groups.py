"""Group the draws of a batch so that one kind of operation runs on many images at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fgvc_cli.data.batch_augmentation import geometry
from fgvc_cli.data.batch_augmentation.draws import PARAMETERS, Draws, Kind, Operation, OpGroup

KINDS = {
    Operation.NONE: Kind.NONE,
    Operation.FLIP: Kind.FLIP,
    Operation.AFFINE: Kind.NEAREST,
    Operation.RESAMPLE: Kind.BILINEAR,
    Operation.POSTERIZE: Kind.LEVELS,
    Operation.SOLARIZE: Kind.LEVELS,
    Operation.INVERT: Kind.LEVELS,
    Operation.BRIGHTNESS: Kind.LEVELS,
    Operation.AUTOCONTRAST: Kind.LEVELS,
    Operation.EQUALIZE: Kind.LEVELS,
    Operation.SATURATION: Kind.BLEND,
    Operation.CONTRAST: Kind.BLEND,
    Operation.SHARPNESS: Kind.SHARPNESS,
    Operation.BLUR: Kind.BLUR,
    Operation.ERASE: Kind.ERASE,
}

_KIND_OF = np.array([KINDS[operation] for operation in Operation], dtype=np.uint8)


def op_groups(draws: Draws, merge_geometry: bool = False) -> Iterator[OpGroup]:
    """Give the turns that do to each image its operations in their order.

    In a turn one kind is done to all images whose next operation it is. There should be few turns with many images
    each, for a device takes about as long to start a small computation as a large one.

    Args:
        draws: of the batch.
        merge_geometry: put an image's consecutive geometric operations into one bilinear resampling.
    """
    operations, parameters = draws.operations.numpy(), draws.parameters.numpy()
    if merge_geometry:
        operations, parameters = merged(operations, parameters)
    rows = np.arange(len(operations))
    kinds = np.pad(_KIND_OF[operations], ((0, 0), (0, 1)))  # NONE after the last
    position = np.zeros(len(rows), dtype=np.int64)
    left = np.bincount(kinds.ravel(), minlength=len(Kind))
    while left[1:].any():
        kind = _next_kind(kinds[rows, position], (kinds != Kind.NONE).sum(axis=1) - position, left)
        images = np.flatnonzero(kinds[rows, position] == kind)
        yield OpGroup(kind, images, operations[images, position[images]], parameters[images, position[images]])
        position[images] += 1
        left[kind] -= len(images)


def _next_kind(following: np.ndarray, remaining: np.ndarray, left: np.ndarray) -> Kind:
    """Choose a kind that no image will need later on, or else what most of those need that have most to come.

    Args:
        following: B, the kind that each image is ready for.
        remaining: B, how many operations each still needs.
        left: how many operations of each kind are still to be done.
    """
    ready = np.bincount(following, minlength=len(Kind))
    for kind in list(Kind)[1:]:
        if ready[kind] and ready[kind] == left[kind]:
            return kind
    return Kind(int(np.bincount(following[remaining == remaining.max()]).argmax()))


def merged(operations: np.ndarray, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the draws (B,T and B,T,6) with each image's consecutive affine operations as one.

    A flip waits for the first of them: it changes places with every operation on colors. Without one it stays a flip.
    """
    operations, parameters = operations.copy(), parameters.copy()
    for row in np.flatnonzero((operations == Operation.AFFINE).any(axis=1)):
        notes: list[tuple[int, Sequence[float]]] = []
        waiting: geometry.Matrix | None = None
        for operation, numbers in zip(operations[row].tolist(), parameters[row].tolist(), strict=True):
            if operation == Operation.FLIP:
                waiting = geometry.FLIP
            elif operation == Operation.AFFINE and notes and notes[-1][0] == Operation.RESAMPLE:
                notes[-1] = (Operation.RESAMPLE, geometry.composed(notes[-1][1], numbers))
            elif operation == Operation.AFFINE:
                whole = numbers if waiting is None else geometry.composed(waiting, numbers)
                notes.append((Operation.RESAMPLE, whole))
                waiting = None
            elif operation:
                notes.append((operation, numbers))
        if waiting is not None:  # there was no affine operation after it
            notes.append((Operation.FLIP, [0.0] * PARAMETERS))
        operations[row] = 0
        for column, (operation, numbers) in enumerate(notes):
            operations[row, column], parameters[row, column] = operation, numbers
    return operations, parameters
