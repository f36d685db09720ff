"""Training metrics: means over images, whatever the sizes of batches and the number of objectives."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fgvc_cli.contracts import Loss
from fgvc_cli.training.update import RunningMetrics, Step

CPU = torch.device("cpu")


def draw(images: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(images, classes, generator=generator)
    return scores, torch.randint(0, classes, (images,), generator=generator)


FINE = torch.zeros(())


def step(*scored: tuple[torch.Tensor, torch.Tensor]) -> Step:
    losses = [Loss(2 * F.cross_entropy(s, y), s, {"half": F.cross_entropy(s, y)}) for s, y in scored]
    return Step("", losses, FINE)


def test_means_are_by_image_over_batches_of_different_size():
    batches = [draw(6, 8, 1), draw(6, 8, 2), draw(2, 8, 3)]
    metrics = RunningMetrics(CPU)
    metrics.add([step(*batches[:2])], [y for _, y in batches[:2]])  # two micro-batches of one update
    metrics.add([step(batches[2])], [batches[2][1]])
    scores, labels = (torch.cat(column) for column in zip(*batches, strict=True))
    loss = F.cross_entropy(scores, labels).item()
    ranked = scores.argsort(dim=1, descending=True) == labels[:, None]
    assert metrics.images == 14
    assert metrics.means() == pytest.approx(
        {
            "loss": loss,
            "objective": 2 * loss,
            "objective.half": loss,
            "top1": ranked[:, 0].float().mean().item(),
            "top5": ranked[:, :5].any(dim=1).float().mean().item(),
        },
        rel=1e-6,
    )


def test_objectives_add_up_and_accuracy_is_of_the_first_that_has_scores():
    right, labels = F.one_hot(torch.arange(3), 3) * 9.0, torch.arange(3)
    silent = Step("silent", [Loss(torch.tensor(1.0))], FINE)
    first = Step("first", [Loss(torch.tensor(2.0), right)], FINE)
    later = Step("later", [Loss(torch.tensor(4.0), -right, {"part": torch.tensor(3.0)})], FINE)
    metrics = RunningMetrics(CPU)
    metrics.add([silent, first, later], [labels])
    means = metrics.means()
    assert means["objective"] == 7 and means["top1"] == 1 and "top5" not in means
    assert [means[f"objective.{name}"] for name in ("silent", "first", "later", "later.part")] == [1, 2, 4, 3]


def test_without_scores_there_is_the_objective_alone():
    metrics = RunningMetrics(CPU)
    metrics.add([Step("", [Loss(torch.tensor(1.5))], FINE)], [torch.arange(3)])
    assert metrics.means() == {"objective": 1.5}
