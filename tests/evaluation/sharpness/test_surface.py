"""The loss of images, and its gradient, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fgvc_cli.contracts import Split
from fgvc_cli.errors import FgvcError
from fgvc_cli.evaluation import loss_surface
from fgvc_cli.evaluation.loss_surface import LossSurface, means, read_images


def counting(ready, batches):
    passed: list[int] = []
    return LossSurface(ready, batches, passed.append), passed


def test_losses_are_the_cross_entropy_of_the_prediction_image_by_image(ready, colored) -> None:
    found, passed = counting(ready, colored(6, 4))
    pixels, labels = (torch.cat(tensors) for tensors in zip(*colored(6, 4), strict=True))
    classifier = ready.classifier
    expected = F.cross_entropy(classifier.scores(classifier.normalize(pixels)), labels, reduction="none")
    torch.testing.assert_close(found.losses(), expected.detach())
    assert (len(found), passed) == (6, [4, 2])


def test_the_gradient_does_not_hang_on_the_batches_and_leaves_nothing_behind(ready, colored) -> None:
    parameters = list(ready.classifier.parameters())
    whole, passed = counting(ready, colored(6, 6))
    parts, _ = counting(ready, colored(6, 4))
    gradient = whole.gradient(parameters, passes=3)
    for one, several in zip(gradient, parts.gradient(parameters, passes=3), strict=True):
        torch.testing.assert_close(one, several)
    assert passed == [18]
    assert all(parameter.grad is None for parameter in parameters)
    pixels, labels = colored(6, 6)[0]
    F.cross_entropy(ready.classifier.scores(ready.classifier.normalize(pixels)), labels).backward()
    for parameter, found in zip(parameters, gradient, strict=True):
        torch.testing.assert_close(found, parameter.grad)


def test_what_the_loss_does_not_reach_has_a_gradient_of_0(ready, colored) -> None:
    unused = torch.nn.Parameter(torch.ones(2))
    gradient = LossSurface(ready, colored(), lambda _: None).gradient([*ready.classifier.parameters(), unused], 3)
    assert gradient[-1].tolist() == [0, 0] and float(gradient[0].abs().sum()) > 0


def test_scores_without_a_gradient_are_refused_by_the_runs_name(ready, colored, monkeypatch) -> None:
    real = type(ready.classifier.head).predict
    monkeypatch.setattr(type(ready.classifier.head), "predict", lambda *a: real(*a).detach())
    with pytest.raises(FgvcError, match="runs/colors: its head predicts scores without a gradient"):
        LossSurface(ready, colored(), lambda _: None).gradient(list(ready.classifier.parameters()), 3)


def test_nothing_waits_for_the_device(ready, colored, strict_device) -> None:
    found = LossSurface(ready, colored(), lambda _: None)
    with strict_device() as counted:
        losses = [found.losses()]
        found.gradient(list(ready.classifier.parameters()), 3)
    assert counted.operations
    assert means(losses).shape == (1,)


def test_means_are_summed_in_double() -> None:
    large = 2.0**24  # plus 1 is itself in single precision
    assert means([torch.tensor([large, 1.0, 1.0, 1.0])]).tolist() == [(large + 3) / 4]


def split_of(count: int) -> Split:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (4, 4, 3), np.uint8) for _ in range(count)]
    return Split("train", images, [i % 3 for i in range(count)], [f"{i}.png" for i in range(count)])


def test_images_are_read_once_as_prediction_sees_them(ready) -> None:
    split, read = split_of(6), []
    batches, failures = read_images(ready, split, read.append)
    assert ([len(labels) for _, labels in batches], read, failures) == ([4, 2], [4, 2], {})
    assert torch.equal(batches[0][0][0], torch.from_numpy(split.images[0]).permute(2, 0, 1))
    assert torch.cat([labels for _, labels in batches]).tolist() == split.labels


def test_unreadable_images_are_left_out_and_named(ready, tmp_path) -> None:
    (tmp_path / "broken.png").write_bytes(b"broken")
    split = split_of(2)
    partly = Split("train", [split.images[0], tmp_path / "broken.png"], [0, 1], ["a", "b"])
    batches, failures = read_images(ready, partly, lambda _: None)
    assert sum(len(labels) for _, labels in batches) == 1 and set(failures) == {"b"}
    with pytest.raises(FgvcError, match=r"runs/colors: none of the 1 images \(train\) can be read"):
        read_images(ready, Split("train", [tmp_path / "broken.png"], [1], ["b"]), lambda _: None)


def test_many_images_stay_in_the_hosts_memory(ready, monkeypatch) -> None:
    asked = []
    real = torch.Tensor.to

    def to(tensor, place, *_, **__):
        asked.append(place)
        return real(tensor, "cpu")

    monkeypatch.setattr(loss_surface, "KEPT_BYTES", 100)
    monkeypatch.setattr(type(ready.classifier), "device", torch.device("meta"))
    monkeypatch.setattr(torch.Tensor, "to", to)
    read_images(ready, split_of(4), lambda _: None)
    assert asked == [torch.device("cpu"), torch.device("meta")]  # pixels, labels
