"""A whole update (normalizing, forward, backward, clipping, optimizer, metrics) never waits for the device."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from itertools import product

import pytest
import torch

from fgvc_cli.contracts import Optimizer
from fgvc_cli.data.loading import ImageBatch
from fgvc_cli.devices import compile_in_place
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.folder import Run
from fgvc_cli.training.setup import draft, open_splits, plan_new, prepare
from fgvc_cli.training.trainer import Trainer

HEADS = {
    "linear": {},
    "pim": {"fpn_size": 16, "num_selects": 4, "lambda_s": 0.5},
    "cmal": {"expert_width": 16, "map_channels": 32, "hidden_width": 16},
}
OPTIMIZERS = ("sgd", "adamw", "sam")
GRID = list(product(HEADS, OPTIMIZERS))


class TwoPasses(Optimizer):
    """Looks around before each step of another optimizer, as a sharpness-aware one does."""

    def __init__(self, base: Optimizer) -> None:
        self.base = base
        self.set_rate, self.rates, self.state_dict = base.set_rate, base.rates, base.state_dict

    def step(self, closure):
        first = closure.ascent()
        self.base.step(closure)
        return first

    set_rate = rates = state_dict = load_state_dict = None


@pytest.fixture(scope="module")
def trainer_of(photos, tmp_path_factory):
    """Make a trainer for a head and an optimizer."""

    def make(head: str, optimizer: str, **train) -> Trainer:
        options = {"weights": "none", "image_size": 32, "batch_size": 4, "device": "cpu", "workers": 0, **train}
        layer = {
            "backbone": {"name": "timm/test_resnet"},
            "head": {"name": head, **HEADS[head]},
            "optimizer": {"name": optimizer},
            "dataset": {"data": str(photos)},
            "train": options,
        }
        registry = get_registry()
        first = draft([layer], "scratch", registry)
        dataset, splits = open_splits(first.config)
        job = prepare(plan_new(first, True, registry), dataset, splits)
        run = Run(tmp_path_factory.mktemp("run"))
        trainer = Trainer(job, run, {})
        job.classifier.train()
        return trainer

    return make


def batches(images: int, count: int) -> list[ImageBatch]:
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(images) % 3
    return [ImageBatch(pixels, labels, torch.arange(images)) for _ in range(count)]


@pytest.fixture
def update_operations(strict_device):
    """Return the operations of one update under the strict device; the one before makes the optimizer's state."""

    def operations(trainer: Trainer, images: int, accumulate: int) -> Counter[str]:
        group = batches(images, accumulate)
        trainer._update(group)
        torch.manual_seed(0)  # what a head draws decides which operations it needs
        with strict_device() as device:
            trainer._update(group)
        return device.operations

    return operations


CASES = {
    "plain": {},
    "smoothed, clipped, accumulated": {"label_smoothing": 0.1, "clip_norm": 1.0, "grad_accum_steps": 2},
    "bf16": {"precision": "bf16", "clip_norm": 1.0},
    "channels last": {"channels_last": "on"},
}


ALL = "smoothed, clipped, accumulated"
CHOSEN = [("linear", "sgd", case) for case in CASES]
CHOSEN += [("linear", "adamw", ALL), ("pim", "sam", ALL), ("cmal", "sgd", ALL), ("cmal", "sam", "plain")]
REST = [(head, optimizer, case) for head, optimizer in GRID for case in CASES if (head, optimizer, case) not in CHOSEN]


@pytest.mark.parametrize(
    ("head", "optimizer", "case"), [*CHOSEN, *(pytest.param(*case, marks=pytest.mark.slow) for case in REST)]
)
def test_an_update_never_waits_and_has_no_loop_over_images(head, optimizer, case, trainer_of, update_operations):
    trainer = trainer_of(head, optimizer, **CASES[case])
    few, many = (update_operations(trainer, images, CASES[case].get("grad_accum_steps", 1)) for images in (2, 8))
    assert any("backward" in name for name in few)  # the backward pass was watched too
    assert any("_fused_" in name for name in few)  # and the optimizer's kernel
    assert few == many
    assert trainer.metrics.images > 0 and trainer.metrics.means()["loss"] > 0


def test_putting_statistics_back_takes_a_launch_or_two(trainer_of, update_operations):
    """A copy for each buffer, there and back, would be hundreds of launches in every second pass."""
    trainer = trainer_of("pim", "sgd")
    trainer.update.optimizer = TwoPasses(trainer.job.optimizer)
    operations = update_operations(trainer, 4, 1)
    buffers = sum(len(group) for group in trainer.update.buffers)
    assert buffers > 30
    assert operations["aten._foreach_copy_.default"] == 2 * len(trainer.update.buffers) <= 6
    assert operations["aten.copy_.default"] + operations["aten.clone.default"] < buffers


def test_coasting_takes_a_launch_an_objective(trainer_of, update_operations):
    trainer = trainer_of("cmal", "sgd", clip_norm=1.0)
    trainer.job.classifier.head.options = replace(
        trainer.job.classifier.head.options, missing_grad="zero", raw_share=1.0
    )
    operations = update_operations(trainer, 4, 1)
    coasting = 4  # of five objectives: "overall" reaches everything
    assert operations["aten._foreach_zero_.default"] == coasting
    assert operations["aten.zeros_like.default"] == 0
    every = sum(len(group["params"]) for group in trainer.job.optimizer.optimizer.param_groups)
    assert operations["aten.empty_like.default"] > every


@pytest.mark.parametrize("head", HEADS)
def test_nor_does_a_prediction(head, trainer_of, strict_device):
    classifier = trainer_of(head, "sgd").job.classifier.eval()
    counts = []
    for images in (2, 8):
        pixels = batches(images, 1)[0].pixels
        with torch.inference_mode(), strict_device() as device:
            classifier.scores(classifier.normalize(pixels))
        counts.append(device.operations)
    assert counts[0] == counts[1]


@contextmanager
def waits_are_errors():
    """Have torch itself raise where the program waits for the GPU."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def pinned(images: int) -> ImageBatch:
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8).pin_memory()
    return ImageBatch(pixels, torch.arange(images).remainder(3).pin_memory(), torch.arange(images))


@pytest.mark.gpu
@pytest.mark.parametrize(("head", "optimizer"), GRID)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_torch_itself_sees_no_wait_on_a_gpu(head, optimizer, compiled, trainer_of):
    trainer = trainer_of(head, optimizer, device="cuda", clip_norm=1.0, label_smoothing=0.1)
    assert trainer.job.precision in ("bf16", "fp32")
    if compiled:
        compile_in_place(trainer.job.classifier)
    batch = pinned(4)
    trainer._update([batch])  # states, kernels and graphs are set up
    with waits_are_errors():
        for _ in range(3):
            trainer._update([batch])
    means = trainer.metrics.means()
    assert trainer.metrics.images == 16 and means["objective"] > 0


@pytest.mark.gpu
@pytest.mark.parametrize("head", HEADS)
def test_nor_does_it_in_a_prediction(head, trainer_of):
    trainer = trainer_of(head, "sgd", device="cuda")
    classifier, pixels = trainer.job.classifier.eval(), pinned(4).pixels
    with torch.inference_mode():
        classifier.scores(classifier.normalize(pixels))
        with waits_are_errors():
            scores = classifier.scores(classifier.normalize(pixels))
    assert scores.isfinite().all()
