"""Progressive image size: the sizes of each epoch, what the network sees, resume, and what is refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fgvc_cli.contracts import Classifier
from fgvc_cli.errors import UsageError
from fgvc_cli.training.progressive import ImageSizeSchedule
from fgvc_cli.training.state import Interrupted
from fgvc_cli.training.teacher import Teacher

GROWING = {"image_size": 64, "progressive_size": 32, "epochs": 3}


@pytest.mark.parametrize(
    ("epochs", "first", "full", "multiple", "sizes"),
    [
        (6, 128, 256, 32, [128, 160, 192, 224, 256, 256]),
        (4, 100, 160, 32, [96, 128, 160, 160]),
        (3, 32, 98, 14, [28, 70, 98]),
        (2, 128, 224, 32, [128, 224]),
        (3, 224, 224, 32, [224, 224, 224]),
    ],
)
def test_sizes_grow_in_equal_steps_to_the_full_size(epochs, first, full, multiple, sizes):
    schedule = ImageSizeSchedule(epochs, first, full, multiple)
    assert [schedule.at(epoch) for epoch in range(epochs)] == sizes
    assert schedule.grow == (sizes[0] < full) == bool(schedule.notes())
    pixels = [size**2 for size in sizes]
    assert schedule.epochs_left(1) == pytest.approx(sum(pixels[1:]) / pixels[1])


@pytest.fixture
def seen(monkeypatch) -> list[tuple[bool, int]]:
    """Image sizes in forward passes, with whether the classifier was training."""
    found: list[tuple[bool, int]] = []
    forward = Classifier.forward

    def recorded(self: Classifier, images: Tensor, part: str | None = None) -> object:
        found.append((self.training, images.shape[-1]))
        return forward(self, images, part)

    monkeypatch.setattr(Classifier, "forward", recorded)
    return found


def test_training_images_grow_and_evaluation_is_at_the_full_size(train, tmp_path, seen):
    result = train(tmp_path / "run", average_epochs=2, **GROWING)
    assert list(dict.fromkeys(size for training, size in seen if training)) == [32, 64]
    start = seen.index((True, 32))
    assert {size for training, size in seen[start:] if not training} == {64}
    assert any("32 px in 1" in note and "64 px in" in note for note in result.job.notes)


@pytest.mark.parametrize(
    "options",
    [
        {"head": "linear", "optimizer": "muon", "grad_accum_steps": 2, "freeze": "half", "head_init": "probe"},
        pytest.param(
            {"head": "pim", "optimizer": "sam", "layer_decay": 0.7, "image_size": 128, "progressive_size": 96},
            marks=pytest.mark.slow,
        ),
        pytest.param({"head": "cmal", "ema": 0.9}, marks=pytest.mark.slow),
    ],
    ids=lambda options: options["head"],
)
def test_it_resumes_bit_for_bit(train, resume, interrupt_at, assert_same, tmp_path, options):
    options = {**GROWING, "epochs": 2, **options}
    whole = train(tmp_path / "whole", **options).run
    with pytest.raises(Interrupted):
        train(tmp_path / "run", interrupt_at(10 // options.get("grad_accum_steps", 1)), **options)
    assert_same(resume(tmp_path / "run"), whole)


def test_a_frozen_backbone_keeps_no_features(train, tmp_path):
    result = train(tmp_path / "run", **GROWING, freeze="all", augment={"crop": "center", "flip": 0.0})
    assert any("progressive_size" in note for note in result.job.notes)
    assert load_file(result.run.model_file)


def test_a_teacher_gets_images_of_full_size(train, tmp_path, monkeypatch):
    teacher = train(tmp_path / "teacher", image_size=64).run.path
    sizes: list[int] = []
    adapted = Teacher.adapted
    monkeypatch.setattr(Teacher, "adapted", lambda self, x: adapted(self, (sizes.append(x.shape[-1]), x)[1]))
    train(tmp_path / "run", teacher=teacher, **GROWING)
    assert set(sizes) == {64}


def test_images_are_antialiased_and_keep_their_layout():
    images = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    schedule = ImageSizeSchedule(3, 32, 64)
    smaller = schedule.resized(images, 0, torch.channels_last)
    assert smaller.shape == (2, 3, 32, 32) and smaller.is_contiguous(memory_format=torch.channels_last)
    stripes = torch.ones(1, 3, 64, 64)
    stripes[..., ::2] = 0
    inner = schedule.resized(stripes, 0, torch.contiguous_format)[..., 2:-2]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5), atol=0.13, rtol=0)
    assert schedule.resized(images, 2, torch.channels_last) is images


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"head": "pim", "progressive_size": 32}, "pim"),
        ({"progressive_size": 96}, "image_size=64"),
        ({"progressive_size": 32, "epochs": 1}, "epochs"),
    ],
)
def test_what_cannot_grow_is_refused(train, tmp_path, options, facts):
    with pytest.raises(UsageError, match=facts) as caught:
        train(tmp_path / "run", **{**GROWING, **options})
    assert "\n" not in str(caught.value) and "progressive_size" in str(caught.value)


def test_other_sizes_are_refused_after_training(train, tmp_path):
    classifier = train(tmp_path / "run", **GROWING).job.classifier
    with pytest.raises(UsageError, match="48x48"):
        classifier(torch.zeros(1, 3, 48, 48))
