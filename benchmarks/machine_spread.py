"""Measure how much of a difference between two trainings is the machine, compared with the spread over seeds.

A small network is trained on demo, each time by `fgvc train` in a process of its own, with everything equal but one
thing: the processor's instruction set (`ATEN_CPU_CAPABILITY` for PyTorch's kernels, with oneDNN's
`ONEDNN_MAX_CPU_ISA`), the number of threads, the precision, whether images are reduced with antialiasing, the decoder
of JPEGs (Pillow, or simplejpeg with its fast options, whose pixels differ). The pixels of the last two are prepared
here, as PNG files. Each variant is compared with the run of the same seed that it differs from: test accuracy, and the
share of test images whose predicted class changes; and so are runs that differ in nothing but the seed.

    python benchmarks/machine_spread.py --seeds 5 --repeats 3 --epochs 5
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from harness import option_parser, report
from PIL import Image
from torch.nn import functional as F

from fgvc_cli.benchmarking.combinations import BenchRequest, plan
from fgvc_cli.data.images import read_image
from fgvc_cli.registry import get_registry
from fgvc_cli.training.setup import open_splits

SIDE = 64


@dataclass(frozen=True)
class Variant:
    """What a training has different: folder of images, options of `fgvc train`, variables, and from which variant."""

    images: str = "antialiased"
    options: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    base: str = "baseline"


VARIANTS = {
    "baseline": Variant(),
    "again": Variant(),
    "instructions avx2": Variant(variables={"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}),
    "instructions default": Variant(variables={"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}),
    "2 threads": Variant(variables={"OMP_NUM_THREADS": "2"}),
    "bf16": Variant(options=("--precision", "bf16")),
    "without antialiasing": Variant(images="aliased"),
    "JPEG": Variant(images="pillow"),
    "JPEG, fast decoder": Variant(images="fast", base="JPEG"),
}


@dataclass(frozen=True)
class Trained:
    """The result of a training: test accuracy in percent, and the predicted class of each test image."""

    top1: float
    predicted: Mapping[str, str]


def antialiased(image: Image.Image) -> Image.Image:
    """Reduce an image as `fgvc` and Pillow do."""
    return image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def aliased(image: Image.Image) -> Image.Image:
    """Reduce an image by bilinear interpolation between the nearest pixels, as OpenCV and older PyTorch code do."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    small = F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=False)
    return Image.fromarray(small[0].round().byte().permute(1, 2, 0).numpy())


def as_jpeg(image: Image.Image) -> bytes:
    """Return the JPEG of an image as cameras write them: quality 90, colors at half the resolution."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, subsampling="4:2:0")
    return file.getvalue()


def pillow(image: Image.Image) -> Image.Image:
    """Write a JPEG, decode it by Pillow and reduce it."""
    return antialiased(Image.open(io.BytesIO(as_jpeg(image))).convert("RGB"))


def fast(image: Image.Image) -> Image.Image:
    """Write a JPEG, decode it by simplejpeg with its fast options and reduce it."""
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(as_jpeg(image), fastdct=True, fastupsample=True)
    return antialiased(Image.fromarray(pixels))


PREPARED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "antialiased": antialiased,
    "aliased": aliased,
    "pillow": pillow,
    "fast": fast,
}


def write_folders(root: Path, kinds: Sequence[str]) -> None:
    """Write demo's images in class folders, once for each way to prepare them."""
    config = plan(BenchRequest(pipeline=True, device="cpu"), get_registry()).config
    dataset, splits = open_splits(config)
    for split in (splits.train, splits.val, splits.test):
        assert split is not None
        for number, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            read = read_image(image)
            for kind in kinds:
                folder = root / kind / split.name / dataset.class_names[label]
                folder.mkdir(parents=True, exist_ok=True)
                PREPARED[kind](read).save(folder / f"{number:04d}.png")


def train(variant: Variant, seed: int, folder: Path, arguments: argparse.Namespace) -> Trained:
    """Train in a process of its own."""
    run = folder / "run"
    command = [
        *(sys.executable, "-m", "fgvc_cli", "train", "--data", str(folder / variant.images)),
        *("--out", str(run), "--force", "--quiet"),
        *("--backbone", arguments.backbone, "--head", "linear", "--recipe", "scratch", "--weights", "none"),
        *("--image-size", str(SIDE), "--epochs", str(arguments.epochs), "--seed", str(seed), "--device", "cpu"),
        *("--set", "train.crop_pct=1.0", *variant.options),
    ]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **variant.variables}
    subprocess.run(command, env=variables, check=True, stdout=subprocess.DEVNULL)
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    with (run / "evaluation/test/predictions.csv").open(encoding="utf-8", newline="") as file:
        predicted = {row["key"]: row["predicted"] for row in csv.DictReader(file)}
    return Trained(100 * summary["test"]["top1"], predicted)


def compare(pairs: Sequence[tuple[Trained, Trained]]) -> dict[str, float]:
    """Return mean and largest absolute difference of test top-1 in points, and the mean share of changed classes."""
    gaps = [abs(one.top1 - other.top1) for one, other in pairs]
    changed = [
        100 * statistics.mean(one.predicted[key] != other.predicted[key] for key in one.predicted)
        for one, other in pairs
    ]
    return {"pairs": len(pairs), "mean": statistics.mean(gaps), "max": max(gaps), "changed": statistics.mean(changed)}


def main() -> None:
    """Train, compare and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--backbone", default="timm/test_resnet")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5, help="runs of the baseline")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each variant, with the first seeds")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--device", default="cpu", choices=["cpu"])
    arguments = parser.parse_args()
    chosen = {name: VARIANTS[name] for name in VARIANTS if name == "baseline" or name in arguments.variants}
    results: dict[str, list[Trained]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_folders(folder, sorted({variant.images for variant in chosen.values()}))
        for name, variant in chosen.items():
            seeds = range(arguments.seeds if name == "baseline" else arguments.repeats)
            results[name] = [train(variant, seed, folder, arguments) for seed in seeds]
            print(f"{name:24} top-1 {', '.join(f'{found.top1:.1f}' for found in results[name])}", flush=True)
    baseline = results["baseline"]
    rows = {"another seed": compare(list(combinations(baseline, 2)))}
    for name, variant in chosen.items():
        if name != "baseline" and variant.base in results:
            rows[name] = compare(list(zip(results[name], results[variant.base], strict=False)))
    print(f"{'':24} pairs   |difference| of top-1, points: mean, max   changed classes")
    for name, row in rows.items():
        print(f"{name:24} {row['pairs']:5.0f}   {row['mean']:25.2f} {row['max']:14.2f} {row['changed']:15.1f} %")
    top1 = {name: [found.top1 for found in runs] for name, runs in results.items()}
    report(arguments, torch.device("cpu"), {"top1": top1, "compared": rows})


if __name__ == "__main__":
    main()
