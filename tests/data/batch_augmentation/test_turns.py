from __future__ import annotations

import numpy as np
import pytest

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.data.batch_augmentation import geometry
from fgvc_cli.data.batch_augmentation.draws import Draw, Draws, Kind, Note, Operation
from fgvc_cli.data.batch_augmentation.op_groups import KINDS, op_groups

FLIP, INVERT, ERASE = Note(Operation.FLIP), Note(Operation.INVERT), Note(Operation.ERASE, (1, 2, 3, 4))
SATURATE, SHARPEN = Note(Operation.SATURATION, (1.5,)), Note(Operation.SHARPNESS, (0.5,))
TURN, BACK = (Note(Operation.AFFINE, geometry.rotation(angle)) for angle in (30, -30))


def order_of(draws: list[Draw], merge: bool = False) -> list[list[Note]]:
    """Return what each image gets, in the order of the turns."""
    got: list[list[Note]] = [[] for _ in draws]
    for turn in op_groups(Draws.of(draws), merge):
        for image, operation, numbers in zip(turn.images, turn.operations, turn.parameters, strict=True):
            assert KINDS[Operation(operation)] == turn.kind
            got[image].append(Note(Operation(operation), tuple(numbers.tolist())))
    return got


def padded(notes: list[Note] | tuple[Note, ...]) -> list[Note]:
    return [Note(note.operation, (*note.parameters, *[0.0] * (6 - len(note.parameters)))) for note in notes]


@pytest.mark.parametrize("policy", ["autoaugment", "randaugment"])
def test_every_image_gets_its_operations_in_their_order(policy: str, drawn) -> None:
    options = AugmentOptions(policy=policy, color_jitter=0.4, blur=0.5, sharpen=0.5, erase=0.5, where="device")
    draws = drawn(options, 32, 64)
    assert order_of(draws) == [padded(draw.notes) for draw in draws]


def test_what_ends_every_image_is_done_once() -> None:
    draws = [
        Draw((FLIP, INVERT, ERASE)),
        Draw((SATURATE, ERASE)),
        Draw((ERASE,)),
        Draw((INVERT, SATURATE, ERASE)),
        Draw(),
    ]
    kinds = [turn.kind for turn in op_groups(Draws.of(draws))]
    assert kinds == [Kind.FLIP, Kind.LEVELS, Kind.BLEND, Kind.ERASE]


def test_few_turns_do_for_many_images(drawn) -> None:
    """Each kind as often as one image may need it: jitter draws anew in which order brightness and the others come."""
    options = AugmentOptions(policy="autoaugment", color_jitter=0.4, blur=0.5, sharpen=0.5, erase=0.5, where="device")
    kinds = [turn.kind for turn in op_groups(Draws.of(drawn(options, 32, 64)))]
    assert [kinds.count(kind) for kind in (Kind.FLIP, Kind.NEAREST, Kind.BLUR, Kind.ERASE)] == [1, 1, 1, 1]
    assert len(kinds) <= 16


def test_merging_joins_neighbors_and_takes_the_flip_along() -> None:
    cases = {
        (FLIP, TURN): ["RESAMPLE"],
        (TURN, BACK): ["RESAMPLE"],
        (FLIP, INVERT, TURN, BACK, SHARPEN): ["INVERT", "RESAMPLE", "SHARPNESS"],
        (TURN, INVERT, BACK): ["RESAMPLE", "INVERT", "RESAMPLE"],
        (FLIP, INVERT): ["FLIP", "INVERT"],
        (FLIP, TURN, INVERT, BACK): ["RESAMPLE", "INVERT", "RESAMPLE"],
        (TURN, FLIP, INVERT): ["RESAMPLE", "INVERT", "FLIP"],
        (SATURATE, ERASE): ["SATURATION", "ERASE"],
    }
    merged = order_of([Draw(notes) for notes in cases], merge=True)
    assert [[note.operation.name for note in notes] for notes in merged] == list(cases.values())
    assert np.allclose(merged[1][0].parameters, [1, 0, 0, 0, 1, 0])
    a, b, _, d, e, _ = TURN.parameters
    assert np.allclose(merged[0][0].parameters, [-a, -b, 0, d, e, 0])  # looks through the rotation, then mirrored
    assert np.allclose(merged[5][0].parameters, [-a, -b, 0, d, e, 0])
    assert np.allclose(merged[5][2].parameters, BACK.parameters)  # mirrored once


def test_a_batch_of_nothing() -> None:
    assert list(op_groups(Draws.of([]))) == []
    assert list(op_groups(Draws.of([Draw(), Draw()]), merge_geometry=True)) == []
