"""Time the loop of `fgvc train`, compared with a bare PyTorch loop: the trainer's overhead around the model.

Both train the same backbone and linear head on the same batches, already in memory, with the same optimizer,
alternately in one process. Prints the medians and their ratio.

    python benchmarks/trainer_overhead.py --backbone timm/resnet18 --image-size 64 --batch-size 32 --rounds 9
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from harness import medians, option_parser, report
from torch.nn import functional as F

from fgvc_cli.contracts import Split
from fgvc_cli.data.loading import ImageBatch
from fgvc_cli.data.splits import TrainingSplits
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.folder import Run
from fgvc_cli.training.setup import Job, draft, plan_new, prepare
from fgvc_cli.training.trainer import Trainer
from fgvc_cli.training.update import RunningMetrics

CLASSES = 10


class ReadyBatches:
    """Replaces the loader; its batches are already tensors in memory."""

    def __init__(self, batches: list[ImageBatch]) -> None:
        self.batches, self.position, self.failures = batches, 0, {}

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, _: int, skip: int = 0) -> Iterator[ImageBatch]:
        """Yield the batches."""
        self.position = skip
        for batch in self.batches[skip:]:
            self.position += 1
            yield batch


def make_job(arguments: argparse.Namespace, head: str = "linear", freeze: str = "none") -> Job:
    """Build a training job on random images, which are also its validation split."""
    rng = np.random.default_rng(0)
    size = arguments.image_size
    images = [rng.integers(0, 256, (size, size, 3), np.uint8) for _ in range(arguments.batch_size * arguments.batches)]
    labels = [i % CLASSES for i in range(len(images))]
    split = Split("train", images, labels, [str(i) for i in range(len(images))])
    settings: list[dict[str, dict[str, Any]]] = [
        {
            "backbone": {"name": arguments.backbone},
            "head": {"name": head},
            "optimizer": {"name": "sgd"},
            "train": {
                "weights": "none",
                "batch_size": arguments.batch_size,
                "image_size": size,
                "resize": size,
                "label_smoothing": 0.0,
                "clip_norm": 0.0,
                "freeze": freeze,
                "device": arguments.device,
            },
            "augment": {"policy": "none", "crop": "center", "flip": 0.0},
        }
    ]
    first = draft(settings, "scratch", get_registry())
    plan = plan_new(first, offline=True, registry=get_registry())
    dataset = SimpleNamespace(
        class_names=tuple(str(k) for k in range(CLASSES)), name="random", identity=dict, taxonomy=lambda: None
    )
    return prepare(plan, dataset, TrainingSplits(split, split, None))  # type: ignore[arg-type]


def bare_epoch(job: Job, optimizer: torch.optim.Optimizer, batches: list[ImageBatch]) -> None:
    """Train an epoch as a plain script does."""
    model = job.classifier
    model.train()
    for batch in batches:
        images = model.normalize(batch.pixels)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(job.device.type, torch.bfloat16, enabled=job.precision == "bf16"):
            loss = F.cross_entropy(model(images), batch.labels.to(job.device))
        loss.backward()
        optimizer.step()


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--backbone", default="timm/resnet18")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    job = make_job(arguments)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(job, Run(Path(folder)), {})
        with_loader = trainer.train_loader
        batches = list(with_loader.epoch(0))
        ready: Any = ReadyBatches(batches)
        plain = torch.optim.SGD(job.classifier.parameters(), lr=1e-3, momentum=0.9, nesterov=True, fused=True)

        def ours(loader: Any) -> None:
            trainer.train_loader, trainer.progress.batch = loader, 0
            trainer.metrics = RunningMetrics(job.device)
            sum(trainer.updates_of_epoch())

        variants = {
            "bare loop": lambda: bare_epoch(job, plain, batches),
            "trainer, ready tensors": lambda: ours(ready),
            "trainer, its loader over arrays": lambda: ours(with_loader),
        }
        seconds = medians(variants, arguments.rounds, job.device)
    images = arguments.batch_size * arguments.batches
    what = f"{arguments.backbone}, {arguments.image_size} px, batches of {arguments.batch_size}"
    print(f"{what}, {job.precision}, {job.device}")
    for name, median in seconds.items():
        ratio = seconds["bare loop"] / median
        print(f"{name:34} {images / median:8.1f} images/s   ratio to the bare loop {ratio:.3f}")
    rates = {name: images / median for name, median in seconds.items()}
    report(arguments, job.device, {"precision": job.precision, "images_per_second": rates})


if __name__ == "__main__":
    main()
