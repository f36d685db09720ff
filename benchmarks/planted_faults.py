"""Plant faults in a folder of photographs, and measure how many of them `fgvc audit` finds.

The images of the folder are linked into a new one with splits, half of them (`--half 0` or `1`, by a hash of their
names, or `all`), and faults are added: copies of an image in the same or another split, with the same or another label;
images moved to another class; images made blurred, dark, over-exposed, tiny, narrow or unreadable; and drawings of
something else. Each image gets one fault at most. The thresholds of the audit were chosen on half 0; docs/audit.md has
the result on half 1:

    python benchmarks/planted_faults.py grocery-store-128 --backbone efficientnet_lite0 --image-size 128
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from harness import option_parser, report
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from fgvc_cli import Audit, audit
from fgvc_cli.auditing.findings import PROBLEMS as PROBLEM_TITLES
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
    """Draw noise, a gradient, stripes, circles, a board or a page of the image's size, in any two colors."""
    (width, height), colors = image.size, rng.integers(0, 256, (2, 3))
    y, x = np.mgrid[:height, :width]
    step, kind = int(rng.integers(4, 16)), int(rng.integers(8))
    patterns = [
        lambda: rng.random((height, width)),
        lambda: np.kron(rng.random((height // step + 1, width // step + 1)), np.ones((step, step)))[:height, :width],
        lambda: x / width,
        lambda: (x // step) % 2,
        lambda: ((x + y) // step) % 2,
        lambda: (x // step + y // step) % 2,
        lambda: (np.hypot(x - width / 2, y - height / 2) // step) % 2,
        lambda: (y // 3) % 3 == 0,
    ]
    amount = np.asarray(patterns[kind](), dtype=float)[..., None]
    picture = Image.fromarray((colors[0] * amount + colors[1] * (1 - amount)).astype(np.uint8))
    if kind == 7:
        ImageDraw.Draw(picture).rectangle((0, 0, width // 3, height // 3), fill=tuple(colors[1].tolist()))
    return picture


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
PAIRED = ("leak", "duplicate", "conflict")
PROBLEMS = {
    **dict.fromkeys(("identical", *COPIES), PAIRED),
    "relabeled": ("conflict",),
    "swapped": ("label",),
    "overexposed": ("bright",),
}
"""Problems of the audit that a fault counts as found under; default: the one of its own name."""

RARE = 5
"""One in so many faults of the kind "odd" is planted: many drawings would be like each other."""


def plant(photos: Sequence[Photo], out: Path, per_fault: int, rng: Rng) -> list[dict[str, str]]:
    """Write the folder `out`, and return its faults: "split", "file", "fault" and "source" (of a copy)."""
    classes = sorted({photo.label for photo in photos})
    splits = sorted({photo.split for photo in photos})
    chosen = rng.permutation(len(photos))[: per_fault * len(FAULTS)]
    faults = {int(index): FAULTS[i % len(FAULTS)] for i, index in enumerate(chosen)}
    planted: list[dict[str, str]] = []
    for index, photo in enumerate(photos):
        fault = faults.get(index, "")
        if fault == "odd" and rng.integers(RARE):
            fault = ""
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


Name = tuple[str, str]


def found_share(audit: Audit, planted: Sequence[dict[str, str]]) -> dict[str, tuple[int, int]]:
    """Return how many of each fault were found, and how many were planted.

    A copy counts if a finding names it, or the image that it was made of, together with the other.
    """
    found: set[tuple[str, Name]] = set()
    pairs: set[tuple[str, Name, str]] = set()
    for finding in audit.findings:
        image = finding.image.split, finding.image.key
        found.add((finding.problem, image))
        if finding.other is not None:
            other = finding.other.split, finding.other.key
            pairs |= {(finding.problem, image, other[1]), (finding.problem, other, image[1])}
    counts: dict[str, tuple[int, int]] = {}
    for row in planted:
        image = row["split"], row["file"]
        problems = PROBLEMS.get(row["fault"], (row["fault"],))
        if source := row.get("source"):
            # of a group of copies, one is reported with the nearest of the others
            hit = any((p, image, source) in pairs or (p, image) in found for p in problems)
        else:
            hit = any((p, image) in found for p in problems)
        hits, number = counts.get(row["fault"], (0, 0))
        counts[row["fault"]] = hits + hit, number + 1
    return counts


def others(audit: Audit, planted: Sequence[dict[str, str]]) -> dict[str, int]:
    """Return how many findings of each problem are of images that were not planted, nor are the source of one."""
    names = {(row["split"], row["file"]) for row in planted}
    sources = {row["source"] for row in planted if row.get("source")}
    left: Counter[str] = Counter()
    for finding in audit.findings:
        refs = [ref for ref in (finding.image, finding.other) if ref is not None]
        if not any((ref.split, ref.key) in names or ref.key in sources for ref in refs):
            left[finding.problem] += 1
    return dict(left)


def main() -> None:
    """Plant, audit and print."""
    parser = option_parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--half", choices=("0", "1", "all"), default="1")
    parser.add_argument("--per-fault", type=int, default=50, help="number of each fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backbone", help="default: that of fgvc audit")
    parser.add_argument("--image-size", type=int, help="of the backbone, if one is named")
    parser.add_argument(
        "--out", type=Path, help="folder to plant in and to write the audit to; default: a temporary one"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = (arguments.out or Path(temporary)) / "planted"
        photos = photos_of(arguments.folder, arguments.half)
        planted = plant(photos, out, arguments.per_fault, np.random.default_rng(arguments.seed))
        network = {"backbone": arguments.backbone, "image_size": arguments.image_size}
        found = audit(data=out, out=arguments.out, force=True, workers=0, **network)
    faults, left = found_share(found, planted), others(found, planted)
    print(f"{len(photos)} images (half {arguments.half}), {len(planted)} faults, {found.backbone or 'no embeddings'}")
    for fault, (hits, number) in faults.items():
        print(f"{fault:14} found {hits:4} of {number:4}  {100 * hits / number:5.1f} %")
    for problem in PROBLEM_TITLES:
        if left.get(problem):
            print(f"{problem:14} {left[problem]:4} other images")
    report(arguments, torch.device("cpu"), {"found": faults, "others": left, "images": len(photos)})


if __name__ == "__main__":
    main()
