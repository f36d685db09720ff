"""Time the input pipeline of `fgvc train`, with and without its decode cache, compared with torchvision's usual one.

The usual one is that of many scripts: a `Dataset` that opens a file with Pillow, AutoAugment on the whole photograph,
Resize, RandomCrop, ToTensor, Normalize, and a `DataLoader` that collates. Ours returns uint8, as normalization follows
on the device. Epochs of the variants are timed alternately, from the request for the first batch to the last batch,
with worker processes already running.

    python benchmarks/input_pipeline.py --images 600 --workers 2 --rounds 5
    python benchmarks/input_pipeline.py --folder photographs/ --workers 2
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import option_parser, report, timed
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.contracts.dataset import find_images
from fgvc_cli.data.cache import store as environment
from fgvc_cli.data.cache.store import CachedImages, DecodeCache
from fgvc_cli.data.images import CachedResize
from fgvc_cli.data.loading import TrainingLoader

WIDTH, HEIGHT, QUALITY = 1200, 800, 90
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write_photographs(folder: Path, count: int) -> list[Path]:
    """Write JPEGs as large, on disk and in pixels, as photographs: soft colors, sharp shapes, sensor noise."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    for path in paths:
        soft = Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT), 3)
        for _ in range(40):
            width, height = (int(side) for side in rng.integers(20, 300, 2))
            place = int(rng.integers(0, WIDTH)), int(rng.integers(0, HEIGHT))
            soft.paste(
                tuple(int(value) for value in rng.integers(0, 256, 3)), (*place, place[0] + width, place[1] + height)
            )
        noise = rng.normal(0, 6, (HEIGHT, WIDTH, 3))
        Image.fromarray(np.clip(np.asarray(soft) + noise, 0, 255).astype(np.uint8)).save(path, quality=QUALITY)
    return paths


class UsualDataset(TorchDataset[tuple[torch.Tensor, int]]):
    """Files, opened with Pillow, through a list of transforms."""

    def __init__(self, paths: list[Path], resize: int, crop: int) -> None:
        self.paths = paths
        self.transform = transforms.Compose(
            [
                transforms.AutoAugment(),
                transforms.Resize(resize),
                transforms.RandomCrop(crop),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.open(self.paths[index]).convert("RGB")), 0


class Ours:
    """Epochs of a `TrainingLoader`; `store`: with a decode cache; `empty`: with a new one in each epoch."""

    def __init__(self, split: Split, arguments: argparse.Namespace, folder: Path, store: bool, empty: bool) -> None:
        self.split, self.arguments, self.folder, self.empty = split, arguments, folder, empty
        self.epochs = 0
        self.preprocessing = Preprocessing(arguments.crop, arguments.resize, MEAN, STD)
        self.kept = self._new_store() if store else None
        self.loader = self._new_loader()

    def __call__(self) -> Iterator[Any]:
        """Return the next epoch."""
        self.epochs += 1
        return self.loader.epoch(self.epochs)

    def prepare(self) -> None:
        """Create an empty cache and start the workers, before an epoch is timed."""
        if self.empty:
            self.loader.close()
            self.kept = self._new_store()
            self.loader = self._new_loader()
            waiting = iter(self.loader._torch_loader)  # starts the workers, which have nothing to do yet
            del waiting

    def _new_store(self) -> CachedImages:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        environment.create(folder)
        return CachedImages(
            DecodeCache(folder, 2**40), CachedResize.of_preprocessing(self.preprocessing), list(self.split.images)
        )

    def _new_loader(self) -> TrainingLoader:
        given = self.arguments
        augment = AugmentOptions(policy="autoaugment", where="workers")
        workers = given.workers
        return TrainingLoader(
            self.split, self.preprocessing, augment, given.batch_size, 0, workers, False, cached=self.kept
        )


def consume(epoch: Callable[[], Iterator[Any]]) -> None:
    """Read all batches of an epoch."""
    for _ in epoch():
        pass


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--folder", type=Path, help="photographs to use; default: synthetic ones")
    parser.add_argument("--images", type=int, default=400, help="number of images")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--resize", type=int, default=260)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", type=Path, help="folder for the cache, on the disk to measure")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder = Path(scratch)
        paths = find_images(arguments.folder) if arguments.folder else write_photographs(folder, arguments.images)
        paths = paths[: arguments.images]
        split = Split("train", paths, [i % 2 for i in range(len(paths))], [str(path) for path in paths])
        usual = DataLoader(
            UsualDataset(paths, arguments.resize, arguments.crop),
            arguments.batch_size,
            shuffle=True,
            num_workers=arguments.workers,
            persistent_workers=arguments.workers > 0,
        )
        without = Ours(split, arguments, folder, store=False, empty=False)
        first = Ours(split, arguments, folder, store=True, empty=True)
        later = Ours(split, arguments, folder, store=True, empty=False)
        variants: dict[str, tuple[Callable[[], Iterator[Any]], Callable[[], object]]] = {
            "torchvision as usual": (lambda: iter(usual), lambda: None),
            "ours, no cache": (without, without.prepare),
            "ours, first epoch (empty cache)": (first, first.prepare),
            "ours, later epochs": (later, later.prepare),
        }
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for number in range(arguments.rounds + 1):  # the first warms up and fills the cache
            for name, (epoch, prepare) in variants.items():
                prepare()
                spent = timed(functools.partial(consume, epoch), torch.device("cpu"))
                if number:
                    seconds[name].append(spent)
        size = statistics.mean(path.stat().st_size for path in paths) / 1e3
        for loader in (without.loader, first.loader, later.loader):
            loader.close()
    print(f"{len(paths)} images of {size:.0f} kB, {arguments.workers} workers, AutoAugment, crop {arguments.crop}")
    base = statistics.median(seconds["torchvision as usual"])
    for name, values in seconds.items():
        median = statistics.median(values)
        low, high = len(paths) / max(values), len(paths) / min(values)
        print(f"{name:34} {len(paths) / median:8.1f} images/s ({low:.1f} to {high:.1f})   ratio {base / median:.2f}")
    rates = {name: [len(paths) / spent for spent in values] for name, values in seconds.items()}
    report(arguments, torch.device("cpu"), {"images_per_second": rates})


if __name__ == "__main__":
    main()
