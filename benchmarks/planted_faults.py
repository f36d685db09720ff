"""Plant faults in a folder of photographs, and measure how many of them `fgvc audit` finds.

The images of the folder are linked into a new one with splits, half of them (`--half 0` or `1`, by a hash of their
names, or `all`), and faults are added: copies of an image in the same or another split, with the same or another label;
images moved to another class; images made blurred, dark, over-exposed, tiny, narrow or unreadable; and drawings of
something else. Each image gets one fault at most. The thresholds of the audit were chosen on half 0; docs/audit.md has
the result on half 1:

    python benchmarks/planted_faults.py /data/grocery-store --half 1 --backbone efficientnet_lite0
"""

from __future__ import annotations

import csv
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import option_parser
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from fgvc_cli.data.acquisition.select import choose_dataset
from fgvc_cli.data.images import ImageError, read_image
from fgvc_cli.registry import get_registry

Rng = np.random.Generator
QUALITY = 90
"""JPEG quality of planted images, except recompressed ones."""


@dataclass(frozen=True)
class Photo:
    """An image of the folder: its file, split, class and name."""

    file: Path
    split: str
    label: str
    name: str


def crop(image: Image.Image, rng: Rng) -> Image.Image:
    """Keep 75 to 90 % of each side."""
    width, height = (round(side * rng.uniform(0.75, 0.9)) for side in image.size)
    x, y = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(image.size, (width, height), strict=True))
    return image.crop((x, y, x + width, y + height))


def narrow(image: Image.Image, rng: Rng) -> Image.Image:  # noqa: ARG001
    """Keep a strip with an aspect ratio of 6."""
    strip = max(8, image.width // 6)
    return image.crop((image.width // 2 - strip // 2, 0, image.width // 2 - strip // 2 + strip, image.height)).resize(
        (strip, 6 * strip)
    )


def drawing(image: Image.Image, rng: Rng) -> Image.Image:
    """Draw a page of lines, a diagram or noise of the image's size."""
    kind = rng.integers(3)
    if kind == 0:
        return Image.fromarray(rng.integers(0, 256, (image.height, image.width, 3), dtype=np.uint8))
    page = Image.new("RGB", image.size, "white")
    pen = ImageDraw.Draw(page)
    for y in range(6, image.height - 6, 8):
        end = rng.integers(image.width // 2, image.width - 6)
        if kind == 1:
            pen.line([(6, y), (int(end), y)], fill="black", width=2)
        else:
            pen.rectangle([6, y, int(end), y + 5], fill=tuple(rng.integers(0, 256, 3).tolist()))
    return page


def brighter(image: Image.Image, factor: float) -> Image.Image:
    """Multiply the pixel values, and clip them."""
    return ImageEnhance.Brightness(image).enhance(float(factor))


COPIES: dict[str, Callable[[Image.Image, Rng], Image.Image]] = {
    "recompressed": lambda image, rng: image,  # noqa: ARG005
    "resized": lambda image, rng: image.resize([round(side * rng.uniform(0.5, 0.75)) for side in image.size]),
    "cropped": crop,
    "brightness": lambda image, rng: brighter(image, rng.choice([rng.uniform(0.5, 0.8), rng.uniform(1.25, 1.6)])),
    "mirrored": lambda image, rng: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),  # noqa: ARG005
    "relabeled": lambda image, rng: image,  # noqa: ARG005
}
"""Altered copies; "identical" ones are copied as files."""

CHANGES: dict[str, Callable[[Image.Image, Rng], Image.Image]] = {
    "blurred": lambda image, rng: image.filter(ImageFilter.GaussianBlur(min(image.size) / rng.uniform(40, 80))),
    "dark": lambda image, rng: brighter(image, rng.uniform(0.1, 0.3)),
    "overexposed": lambda image, rng: brighter(image, rng.uniform(3, 5)),
    "tiny": lambda image, rng: image.resize([max(1, side * 20 // min(image.size)) for side in image.size]),  # noqa: ARG005
    "narrow": narrow,
    "odd": drawing,
}
"""Changes of an image that stays where it is."""

FAULTS = ("identical", *COPIES, "swapped", *CHANGES, "unreadable")
PROBLEMS = {
    **dict.fromkeys(("identical", *COPIES), ("leak", "duplicate", "conflict")),
    "swapped": ("label",),
    "overexposed": ("bright",),
}
"""Problems of the audit that a fault counts as found under; default: the one of its own name."""


def plant(photos: Sequence[Photo], out: Path, per_fault: int, rng: Rng) -> list[dict[str, str]]:
    """Write the folder `out`, and return its faults: "split", "file", "fault" and "source" (of a copy)."""
    classes = sorted({photo.label for photo in photos})
    splits = sorted({photo.split for photo in photos})
    chosen = rng.permutation(len(photos))[: per_fault * len(FAULTS)]
    faults = {int(index): FAULTS[i % len(FAULTS)] for i, index in enumerate(chosen)}
    planted: list[dict[str, str]] = []
    for index, photo in enumerate(photos):
        fault = faults.get(index, "")
        other = classes[(classes.index(photo.label) + int(rng.integers(1, len(classes)))) % len(classes)]
        here = Path(photo.label) / photo.name
        if fault == "swapped":
            here = Path(other) / photo.name
        target = out / photo.split / here
        target.parent.mkdir(parents=True, exist_ok=True)
        if fault in CHANGES:
            target = target.with_name(f"{target.stem}-{fault}.png")
            CHANGES[fault](read_image(photo.file), rng).save(target)
        elif fault == "unreadable":
            target.write_bytes(photo.file.read_bytes()[: photo.file.stat().st_size // 2])
        else:
            target.symlink_to(photo.file)
        row = {"split": photo.split, "file": target.relative_to(out / photo.split).as_posix(), "fault": fault}
        if fault == "identical" or fault in COPIES:
            split = str(rng.choice(splits))
            place = out / split / (other if fault == "relabeled" else photo.label)
            place.mkdir(parents=True, exist_ok=True)
            copy = place / f"{target.stem}-{fault}.jpg"
            if fault == "identical":
                shutil.copyfile(photo.file, copy)
            else:
                image = COPIES[fault](read_image(photo.file), rng)
                image.save(copy, quality=40 if fault == "recompressed" else QUALITY)
            source = row["file"]
            row = {"split": split, "file": copy.relative_to(out / split).as_posix(), "fault": fault, "source": source}
        if fault:
            planted.append(row)
    return planted


def photos_of(folder: Path, half: str) -> list[Photo]:
    """Return the readable images of a folder, or half of them."""
    dataset = choose_dataset(None, folder, [], get_registry()).open()
    found = []
    for name in dataset.splits():
        split = dataset.split(name)
        for image, label, key in zip(split.images, split.labels, split.keys, strict=True):
            drawn = hashlib.blake2b(f"{name}/{key}".encode(), digest_size=1).digest()[0] % 2
            if half not in ("all", str(drawn)):
                continue
            try:
                read_image(image)
            except ImageError:
                continue
            found.append(Photo(Path(image), name, dataset.class_names[label], f"{len(found):05}{Path(key).suffix}"))
    return found


def main() -> None:
    """Plant, audit and print."""
    parser = option_parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--half", choices=("0", "1", "all"), default="1")
    parser.add_argument("--per-fault", type=int, default=50, help="number of each fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder to plant in, kept; default: a temporary one")
    parser.add_argument("--plant-only", action="store_true")
    parser.add_argument("--backbone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary) / "planted"
        photos = photos_of(arguments.folder, arguments.half)
        planted = plant(photos, out, arguments.per_fault, np.random.default_rng(arguments.seed))
        with out.with_suffix(".csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["split", "file", "fault", "source"])
            writer.writeheader()
            writer.writerows(planted)
        print(f"{len(photos)} images of {arguments.folder} (half {arguments.half}), {len(planted)} faults")


if __name__ == "__main__":
    main()
