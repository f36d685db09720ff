"""What a training says at its start and while it goes."""

from __future__ import annotations

import pytest

from fgvc_cli.cli import training_view
from fgvc_cli.cli.training_view import TrainingView
from fgvc_cli.runs.results import EpochMetrics, TrainMetrics, ValMetrics


@pytest.mark.parametrize(("epochs", "images", "notes"), [(100, 10_000, 1), (1, 1000, 0)])
def test_a_long_training_is_announced_once_with_a_shorter_command(monkeypatch, capsys, epochs, images, notes):
    clock = [0.0]
    monkeypatch.setattr(training_view.time, "monotonic", lambda: clock[0])
    view = TrainingView()
    view._epochs = epochs
    view.on_epoch_start(1, images, images)
    for _ in range(40):
        clock[0] += 0.1
        view.on_batch_end(10, None)
    view.on_failure(KeyboardInterrupt())
    lines = [line for line in capsys.readouterr().err.splitlines() if "This will take" in line]
    assert len(lines) == notes
    assert all("about 2:46:40" in line and "--epochs 3" in line for line in lines)  # 100 images/s, 1,000,000 images


def test_a_head_that_gives_no_scores_in_training_is_shown_by_its_objective(capsys):
    view = TrainingView()
    view._epochs = 1
    view.on_epoch_start(1, 10, 10)
    view.on_batch_end(10, {"objective": 1.5})
    train, val = TrainMetrics(10, {"objective": 1.5}), ValMetrics(4, 0.5, 0.25)
    view.on_epoch_end(EpochMetrics(1, train, val, {"head": 0.1}, 1, 5.0, 2.0), True)
    assert "train objective 1.500   val loss 0.500 top-1  25.0 % *" in capsys.readouterr().err
