"""Group the draws of a batch so that one kind of operation runs on many images at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fgvc_cli.data.batch_augmentation import geometry
from fgvc_cli.data.batch_augmentation.draws import MAX_PARAMETERS, Draws, Kind, Operation, OpGroup

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
    """Yield op groups that together apply to each image its operations in order.

    Each group takes all images whose next operation is of its kind. Few groups with many images each are best, because
    launching a small computation takes a device about as long as a large one.
    """
    operations, parameters = draws.operations.numpy(), draws.parameters.numpy()
    if merge_geometry:
        operations, parameters = _merge_affine(operations, parameters)
    rows = np.arange(len(operations))
    kinds = np.pad(_KIND_OF[operations], ((0, 0), (0, 1)))  # NONE after the last
    position = np.zeros(len(rows), dtype=np.int64)
    left = np.bincount(kinds.ravel(), minlength=len(Kind))
    while left[1:].any():
        kind = _next_kind(kinds[rows, position], (kinds != Kind.NONE).sum(axis=1) - position, left)
        images = np.flatnonzero(kinds[rows, position] == kind)
        images = images[np.argsort(operations[images, position[images]], kind="stable")]
        yield OpGroup(kind, images, operations[images, position[images]], parameters[images, position[images]])
        position[images] += 1
        left[kind] -= len(images)


def _next_kind(following: np.ndarray, remaining: np.ndarray, left: np.ndarray) -> Kind:
    """Choose a kind that no image needs again later, or else the most frequent next kind of the slowest images.

    Args:
        following: B, kind of each image's next operation.
        remaining: B, number of operations that each image still needs.
        left: number of operations of each kind still to apply.
    """
    ready = np.bincount(following, minlength=len(Kind))
    for kind in list(Kind)[1:]:
        if ready[kind] and ready[kind] == left[kind]:
            return kind
    return Kind(int(np.bincount(following[remaining == remaining.max()]).argmax()))


def _merge_affine(operations: np.ndarray, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge each image's consecutive affine operations in draws (B,T and B,T,6).

    A flip is deferred to the first of them, because it commutes with every color operation; without one it stays.
    """
    operations, parameters = operations.copy(), parameters.copy()
    for row in np.flatnonzero((operations == Operation.AFFINE).any(axis=1)):
        ops: list[tuple[int, Sequence[float]]] = []
        flip: geometry.Matrix | None = None
        for operation, numbers in zip(operations[row].tolist(), parameters[row].tolist(), strict=True):
            if operation == Operation.FLIP:
                flip = geometry.FLIP
            elif operation == Operation.AFFINE and ops and ops[-1][0] == Operation.RESAMPLE:
                ops[-1] = (Operation.RESAMPLE, geometry.compose(ops[-1][1], numbers))
            elif operation == Operation.AFFINE:
                ops.append((Operation.RESAMPLE, numbers if flip is None else geometry.compose(flip, numbers)))
                flip = None
            elif operation:
                ops.append((operation, numbers))
        if flip is not None:  # no affine operation follows it
            ops.append((Operation.FLIP, [0.0] * MAX_PARAMETERS))
        operations[row] = 0
        for column, (operation, numbers) in enumerate(ops):
            operations[row, column], parameters[row, column] = operation, numbers
    return operations, parameters
