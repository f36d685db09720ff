from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

from fgvc_cli.scoring import scores as scoring
from fgvc_cli.scoring.scores import score


def test_each_image_gets_its_probabilities_label_and_key(color_classifier, painted) -> None:
    loader, split = painted("rgbbg", "rgbrg", batch_size=2)
    scores = score(color_classifier, loader, split)
    assert scores.keys == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert scores.predicted.tolist() == [2, 1, 0, 0, 1]
    assert scores.labels.tolist() == [2, 1, 0, 2, 1]
    np.testing.assert_allclose(scores.probabilities.sum(axis=1), 1, rtol=1e-5)
    assert scores.probabilities.dtype == np.float32


def test_the_order_of_the_loader_does_not_matter(color_classifier, painted) -> None:
    loader, split = painted("rgbb", "rgbr", batch_size=1)
    loader.batches.reverse()
    scores = score(color_classifier, loader, split)
    assert dict(zip(scores.keys, scores.predicted.tolist(), strict=True)) == {
        "0.png": 2, "1.png": 1, "2.png": 0, "3.png": 0,
    }  # fmt: skip


def test_the_loss_is_the_mean_over_images_whatever_the_batch_size(color_classifier, painted) -> None:
    losses = []
    for batch_size in (1, 3, 8):  # a mean of batch means would weigh the last batch wrongly
        loader, split = painted("rgbbgrg", "rgbrgbb", batch_size)
        losses.append(score(color_classifier, loader, split).loss)
    logits = torch.zeros(7, 3)
    logits[torch.arange(7), torch.tensor([2, 1, 0, 0, 1, 2, 1])] = 10 / (1 + 1e-5) ** 0.5  # batch norm's epsilon
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([2, 1, 0, 2, 1, 0, 0])).item()
    assert losses == pytest.approx([expected] * 3, rel=1e-5)


def test_every_module_is_put_back_into_its_mode(color_classifier, painted) -> None:
    color_classifier.train()
    color_classifier.head.frozen.eval()
    before = color_classifier.backbone.norm.running_mean.clone()
    loader, split = painted("rgb", "rgb")
    first = score(color_classifier, loader, split)
    assert color_classifier.training
    assert color_classifier.backbone.norm.training
    assert not color_classifier.head.frozen.training
    assert torch.equal(color_classifier.backbone.norm.running_mean, before)  # nothing was learned while scoring
    assert first.predicted.tolist() == first.labels.tolist()


def test_modes_are_put_back_when_the_loader_fails(color_classifier, painted) -> None:
    class Broken:
        failures: ClassVar[dict] = {}

        def __iter__(self):
            raise OSError("the disk is gone")

    color_classifier.train()
    with pytest.raises(OSError, match="gone"):
        score(color_classifier, Broken(), painted("r", "r")[1])
    assert color_classifier.training
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_unreadable_images_are_left_out_and_named(color_classifier, painted) -> None:
    loader, split = painted("rgbb", "rgbr", unreadable=(1,))
    scores = score(color_classifier, loader, split)
    assert scores.keys == ["0.png", "2.png", "3.png"]
    assert len(scores) == 3
    assert scores.failures == {"1.png": "truncated"}


def test_no_readable_image_gives_empty_scores(color_classifier, painted) -> None:
    loader, split = painted("rg", "rg", unreadable=(0, 1))
    scores = score(color_classifier, loader, split)
    assert len(scores) == 0
    assert scores.classes == 3
    assert scores.predicted.tolist() == scores.confidence.tolist() == []
    assert np.isnan(scores.loss)


def test_results_are_copied_in_portions(color_classifier, painted, monkeypatch: pytest.MonkeyPatch) -> None:
    loader, split = painted("rgbbgrg", "rgbrgbb", 2)
    whole = score(color_classifier, loader, split)
    monkeypatch.setattr(scoring, "GATHERED_BYTES", 30)  # a batch of two has 24 bytes
    portions = score(color_classifier, loader, split)
    np.testing.assert_array_equal(whole.probabilities, portions.probabilities)
    assert (whole.keys, whole.loss) == (portions.keys, portions.loss)


def test_batches_are_reported(color_classifier, painted) -> None:
    loader, split = painted("rgbbg", "rgbrg", 2)
    seen: list[int] = []
    score(color_classifier, loader, split, on_batch=seen.append)
    assert seen == [2, 2, 1]


def test_bf16_scores_come_back_in_float32(color_classifier, painted) -> None:
    loader, split = painted("rgb", "rgb")
    scores = score(color_classifier, loader, split, precision="bf16")
    assert scores.probabilities.dtype == np.float32
    assert scores.predicted.tolist() == scores.labels.tolist()


def test_ties_go_to_the_first_class_everywhere(made_scores) -> None:
    scores = made_scores([[0.25, 0.25, 0.25, 0.25]] * 2, [0, 2])
    assert scores.predicted.tolist() == [0, 0]
    assert scores.ranks.tolist() == [0, 2]
    assert scores.top(3).tolist() == [[0, 1, 2]] * 2


def test_top_sorts_in_portions(made_scores, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).random((7, 4))
    expected = made_scores(rows, [0] * 7).top(2)
    monkeypatch.setattr(scoring, "ROWS", 3)
    assert made_scores(rows, [0] * 7).top(2).tolist() == expected.tolist()
    assert (np.take_along_axis(rows, expected[:, :1], 1)[:, 0] == rows.max(axis=1)).all()


def test_scores_that_are_not_finite_count_as_wrong(made_scores) -> None:
    scores = made_scores([[np.nan, np.nan], [0.9, 0.1]], [0, 0])
    assert scores.predicted.tolist() == [-1, 0]
    assert scores.ranks.tolist() == [2, 0]
