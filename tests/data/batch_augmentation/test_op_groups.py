from __future__ import annotations

import numpy as np
import pytest

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.data.batch_augmentation import geometry
from fgvc_cli.data.batch_augmentation.draws import Draw, Draws, Kind, Op, Operation
from fgvc_cli.data.batch_augmentation.op_groups import KINDS, op_groups

FLIP, INVERT, ERASE = Op(Operation.FLIP), Op(Operation.INVERT), Op(Operation.ERASE, (1, 2, 3, 4))
SATURATE, SHARPEN = Op(Operation.SATURATION, (1.5,)), Op(Operation.SHARPNESS, (0.5,))
ROTATE, BACK = (Op(Operation.AFFINE, geometry.rotation(angle)) for angle in (30, -30))


def order_of(draws: list[Draw], merge: bool = False) -> list[list[Op]]:
    """Return the operations of each image, in the order of the groups."""
    got: list[list[Op]] = [[] for _ in draws]
    for group in op_groups(Draws.of(draws), merge):
        for image, operation, numbers in zip(group.images, group.operations, group.parameters, strict=True):
            assert KINDS[Operation(operation)] == group.kind
            got[image].append(Op(Operation(operation), tuple(numbers.tolist())))
    return got


def padded(notes: list[Op] | tuple[Op, ...]) -> list[Op]:
    return [Op(op.operation, (*op.parameters, *[0.0] * (6 - len(op.parameters)))) for op in notes]


@pytest.mark.parametrize("policy", ["autoaugment", "randaugment"])
def test_every_image_gets_its_operations_in_their_order(policy: str, drawn) -> None:
    options = AugmentOptions(policy=policy, color_jitter=0.4, blur=0.5, sharpen=0.5, erase=0.5, where="device")
    draws = drawn(options, 32, 64)
    assert order_of(draws) == [padded(draw.ops) for draw in draws]


def test_the_last_operation_of_every_image_is_one_group() -> None:
    draws = [
        Draw((FLIP, INVERT, ERASE)),
        Draw((SATURATE, ERASE)),
        Draw((ERASE,)),
        Draw((INVERT, SATURATE, ERASE)),
        Draw(),
    ]
    kinds = [group.kind for group in op_groups(Draws.of(draws))]
    assert kinds == [Kind.FLIP, Kind.LEVELS, Kind.BLEND, Kind.ERASE]


def test_few_groups_for_many_images(drawn) -> None:
    """Each kind as often as one image may need it; jitter draws the order of brightness and the others per image."""
    options = AugmentOptions(policy="autoaugment", color_jitter=0.4, blur=0.5, sharpen=0.5, erase=0.5, where="device")
    kinds = [group.kind for group in op_groups(Draws.of(drawn(options, 32, 64)))]
    assert [kinds.count(kind) for kind in (Kind.FLIP, Kind.NEAREST, Kind.BLUR, Kind.ERASE)] == [1, 1, 1, 1]
    assert len(kinds) <= 16


def test_merging_joins_consecutive_operations_and_the_flip() -> None:
    cases = {
        (FLIP, ROTATE): ["RESAMPLE"],
        (ROTATE, BACK): ["RESAMPLE"],
        (FLIP, INVERT, ROTATE, BACK, SHARPEN): ["INVERT", "RESAMPLE", "SHARPNESS"],
        (ROTATE, INVERT, BACK): ["RESAMPLE", "INVERT", "RESAMPLE"],
        (FLIP, INVERT): ["FLIP", "INVERT"],
        (FLIP, ROTATE, INVERT, BACK): ["RESAMPLE", "INVERT", "RESAMPLE"],
        (ROTATE, FLIP, INVERT): ["RESAMPLE", "INVERT", "FLIP"],
        (SATURATE, ERASE): ["SATURATION", "ERASE"],
    }
    merged = order_of([Draw(notes) for notes in cases], merge=True)
    assert [[op.operation.name for op in notes] for notes in merged] == list(cases.values())
    assert np.allclose(merged[1][0].parameters, [1, 0, 0, 0, 1, 0])
    a, b, _, d, e, _ = ROTATE.parameters
    assert np.allclose(merged[0][0].parameters, [-a, -b, 0, d, e, 0])  # the rotation applied to the mirrored image
    assert np.allclose(merged[5][0].parameters, [-a, -b, 0, d, e, 0])
    assert np.allclose(merged[5][2].parameters, BACK.parameters)  # mirrored once


def test_an_empty_batch() -> None:
    assert list(op_groups(Draws.of([]))) == []
    assert list(op_groups(Draws.of([Draw(), Draw()]), merge_geometry=True)) == []
