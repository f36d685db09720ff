"""Time augmentation of whole batches, compared with torchvision's transforms image by image.

Cropped images are augmented with the same random parameters: by torchvision v2 on each uint8 tensor, by ours on the
batch, and by ours with an image's geometric operations merged into one bilinear resampling. The variants are timed
alternately in one process. Prints medians, the number of operations that ours issues, and by how many gray levels
merging changes pixels.

    python benchmarks/batch_augmentation.py FOLDER --policy autoaugment --batch-size 128 --rounds 9
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from harness import Operations, medians, option_parser, report
from torch import Tensor

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts import Preprocessing
from fgvc_cli.contracts.dataset import find_images
from fgvc_cli.data.augmentation import Augmentation
from fgvc_cli.data.batch_augmentation.draws import Draw, Draws, Operation
from fgvc_cli.data.images import read_image
from fgvc_cli.data.order import seeded
from fgvc_cli.data.staging import BatchAugmentation

GRAY = (0.5, 0.5, 0.5)
GEOMETRIC = torch.tensor([Operation.FLIP, Operation.AFFINE])


def load(folder: Path, count: int, preprocessing: Preprocessing) -> Tensor:
    """Return `count` images of a folder, spread evenly over it, as uint8 N,3,S,S."""
    files = sorted(find_images(folder))
    chosen = files[:: max(1, len(files) // count)][:count]
    return torch.stack([preprocessing(read_image(file)) for file in chosen])


def draw_all(augmentation: Augmentation, count: int) -> tuple[list[Draw], float]:
    """Return draws for images with the seeds 0, 1, ... and the seconds that one takes."""
    draws = []
    start = time.perf_counter()
    for seed in range(count):
        with seeded(seed):
            draws.append(augmentation.draw())
    return draws, (time.perf_counter() - start) / count


def one_by_one(augmentation: Augmentation, pixels: Tensor, first: int) -> Tensor:
    """Augment each image with torchvision, with the seeds from `first` on."""
    made = []
    for seed, image in enumerate(pixels, start=first):
        with seeded(seed):
            made.append(augmentation._later(image))  # type: ignore[misc]
    return torch.stack(made)


def report_merging(pixels: Tensor, draws: Sequence[Draw], plain: Tensor, merged: Tensor) -> None:
    """Print by how much merging changes gray levels."""
    operations = Draws.of(draws).operations
    moved = (operations == Operation.AFFINE).any(1)
    several = torch.isin(operations, GEOMETRIC).sum(1).gt(1) & moved
    difference = (plain.int() - merged.int()).abs().float().mean(dim=(1, 2, 3)).cpu()
    print(f"merging: mean absolute difference in gray levels over all {len(pixels)} images {difference.mean():.2f}")
    for words, chosen in (("an affine operation", moved), ("several geometric operations", several)):
        if chosen.any():
            print(f"  over the {int(chosen.sum())} images with {words} {difference[chosen].mean():.2f}")


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--policy", default="autoaugment", choices=["none", "autoaugment", "randaugment", "trivialaugment"]
    )
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device, size = torch.device(arguments.device), arguments.batch_size
    preprocessing = Preprocessing(arguments.side, arguments.side, GRAY, GRAY)
    augmentation = Augmentation(AugmentOptions(policy=arguments.policy, where="device"), preprocessing)
    pixels = load(arguments.folder, size * arguments.batches, preprocessing).to(device)
    draws, seconds_of_a_draw = draw_all(augmentation, len(pixels))
    starts = range(0, len(pixels), size)
    of_batch = [Draws.of(draws[start : start + size]) for start in starts]
    plainly, merging = BatchAugmentation(GRAY), BatchAugmentation(GRAY, merge_geometry=True)

    def theirs() -> Tensor:
        return torch.cat([one_by_one(augmentation, pixels[start : start + size], start) for start in starts])

    def ours(augment: BatchAugmentation) -> Tensor:
        return torch.cat([augment(batch, some) for batch, some in zip(pixels.split(size), of_batch, strict=True)])

    expected, plain, merged = theirs(), ours(plainly), ours(merging)
    variants = {
        "torchvision v2, image by image": theirs,
        "the batch at once": lambda: ours(plainly),
        "the batch at once, geometry merged": lambda: ours(merging),
    }
    seconds = medians(variants, arguments.rounds, device)
    print(f"{arguments.policy}, {len(pixels)} images of {arguments.side} px, batches of {size}, {device}")
    for name, median in seconds.items():
        ratio = seconds["torchvision v2, image by image"] / median
        print(f"{name:36} {len(pixels) / median:9.1f} images/s   {ratio:.2f} of torchvision's")
    issued: dict[str, float] = {}
    for name, augment in (("the batch at once", plainly), ("geometry merged", merging)):
        counts = []
        for batch, some in zip(pixels.split(size), of_batch, strict=True):
            with Operations() as operations:
                augment(batch, some)
            counts.append(operations.count)
        issued[name] = float(np.mean(counts))
        print(f"operations per batch, {name}: {issued[name]:.0f} (at most {max(counts)})")
    print(f"a draw takes {1e6 * seconds_of_a_draw:.0f} microseconds")
    difference = (expected.int() - plain.int()).abs()
    print(f"ours and torchvision's differ by at most {int(difference.max())}, in {int((difference > 0).sum())} values")
    report_merging(pixels, draws, plain, merged)
    rates = {name: len(pixels) / median for name, median in seconds.items()}
    report(arguments, device, {"images_per_second": rates, "operations_per_batch": issued})


if __name__ == "__main__":
    main()
