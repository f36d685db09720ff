import math

import pytest

from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.training.trainer import Schedule


def factors(updates=10, **options):
    schedule = Schedule(TrainOptions(**options), updates)
    return [schedule.factor(i) for i in range(updates * schedule.options.epochs)]


def test_warm_up_rises_linearly_to_one():
    rising = factors(epochs=3, schedule="constant", warmup_epochs=0.5)
    assert rising[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0]) and set(rising[5:]) == {1.0}


def test_warm_up_in_steps_goes_before_epochs():
    assert factors(epochs=1, schedule="constant", warmup_steps=2, warmup_epochs=9)[:3] == [0.5, 1.0, 1.0]


def test_cosine_spans_what_is_left_after_the_warm_up():
    falling = factors(epochs=2, warmup_epochs=1)
    assert falling[10] == 1.0
    assert falling[15] == pytest.approx(0.5)
    assert falling[19] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.9)))


def test_cosine_over_all_steps_ends_above_zero():
    falling = factors(epochs=2, warmup_epochs=1, cosine_over="all")
    assert falling[19] == pytest.approx(0.5 * (1 + math.cos(math.pi * 9 / 20)))


def test_cosine_by_epoch_is_level_within_one():
    falling = factors(epochs=4, schedule_unit="epoch")
    assert [len(set(falling[e * 10 : e * 10 + 10])) for e in range(4)] == [1, 1, 1, 1]
    assert falling[10] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_step_falls_every_so_many_epochs():
    falling = factors(epochs=5, schedule="step", step_epochs=2, step_factor=0.1)
    assert [falling[e * 10] for e in range(5)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_a_warm_up_as_long_as_the_training_is_said():
    assert Schedule(TrainOptions(epochs=2, warmup_epochs=1), 10).notes() == []
    (line,) = Schedule(TrainOptions(epochs=1, warmup_epochs=1), 10).notes()
    assert "10 updates" in line
