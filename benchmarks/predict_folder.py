"""Time `fgvc predict` over a folder of JPEGs against a bare loop, and measure the memory of predict and explain.

The bare loop takes the same network and the same loader: normalize, forward, the most probable class of each image.
Ours adds finding the files, probabilities, the top 5 by name and the CSV file. Both start from the loaded model and
take turns.

With --memory, `fgvc predict --json` and `fgvc explain --explainer eigencam --json` run as processes of their own over a
small and a large number of tiny images; the peak of the resident memory of each is compared.

    OMP_NUM_THREADS=1 python benchmarks/predict_folder.py --images 512 --rounds 7
    OMP_NUM_THREADS=1 python benchmarks/predict_folder.py --memory 2000 20000
"""

from __future__ import annotations

import contextlib
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from harness import make_classifier, medians, option_parser, report
from PIL import Image

from fgvc_cli.cli.predict import PredictionCsv
from fgvc_cli.contracts import Split
from fgvc_cli.data.inputs import find_inputs
from fgvc_cli.devices import pick_device
from fgvc_cli.evaluation.predict import Predictions
from fgvc_cli.options import build
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.model_file import describe_classifier, describe_component, save_classifier
from fgvc_cli.scoring.model import InferenceSettings, ReadyClassifier, load


def write_images(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Write JPEGs of smooth noise; from the tenth on they are links to the first ten."""
    folder.mkdir(parents=True)
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        if number < 10:
            small = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
        else:
            os.link(folder / f"{number % 10:06d}.jpg", path)


def write_model(folder: Path, backbone: str, image_size: int) -> Path:
    """Write a model file with random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    registry = get_registry()
    classifier = make_classifier(backbone, "linear", image_size, torch.device("cpu"))
    found = {kind: registry.find(kind, name) for kind, name in (("backbone", backbone), ("head", "linear"))}
    options = {kind: build(component.options_type(), {}, kind) for kind, component in found.items()}
    components = {kind: describe_component(component, options[kind]) for kind, component in found.items()}
    path = folder / "model.safetensors"
    save_classifier(path, classifier, {"components": components, **describe_classifier(classifier)})
    return path


def bare_loop(ready: ReadyClassifier, folder: Path) -> list[int]:
    """Return the class of each image."""
    files = sorted(folder.iterdir())
    loader = ready.loader(Split("images", files, [0] * len(files), [str(file) for file in files]))
    classifier, found = ready.classifier.eval(), []
    with torch.inference_mode():
        for batch in loader:
            found += classifier.scores(classifier.normalize(batch.pixels)).argmax(dim=1).tolist()
    return found


def ours(ready: ReadyClassifier, folder: Path, out: Path) -> None:
    """Do what `fgvc predict folder --csv > out` does once the model is loaded."""
    found, failures = find_inputs([folder])
    with out.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        writer = PredictionCsv(5, False, calibrated=False, sets=False)
        for predictions in Predictions(ready, found, 5, failures):
            writer.batch(predictions)
            sys.stdout.flush()


def peak_memory(arguments: list[str]) -> int:
    """Run `fgvc` with arguments and return the peak of its resident memory in bytes, that of its workers left out."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fgvc_cli", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"fgvc {' '.join(arguments)} failed with exit code {process.returncode}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def compare_memory(commands: list[str], counts: list[int], work: Path) -> dict[str, dict[int, int]]:
    """Measure and print the peak memory of predict and explain over numbers of tiny images."""
    write_model(work / "run", "timm/test_resnet", 32)
    found: dict[str, dict[int, int]] = {}
    for count in counts:
        write_images(work / str(count), count, (40, 32))
    pictures = ["--explainer", "eigencam", "--out", str(work / "pictures"), "--force"]
    for name in commands:
        for count in counts:
            given = [
                str(work / str(count)),
                "--run",
                str(work / "run/model.safetensors"),
                "--json",
                *(pictures if name == "explain" else []),
            ]
            found.setdefault(name, {})[count] = peak_memory([name, *given])
            print(f"fgvc {name}, {count} images: peak {found[name][count] / 2**20:.0f} MiB", flush=True)
    return found


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--backbone", default="timm/resnet18")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--photo-size", type=int, default=320, help="long side of the JPEGs, pixels")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--memory", type=int, nargs=2, metavar="IMAGES", help="measure memory instead")
    parser.add_argument("--commands", nargs="+", default=["predict", "explain"], help="for --memory")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        if arguments.memory:
            report(arguments, device, {"peak_bytes": compare_memory(arguments.commands, arguments.memory, work)})
            return
        photos = work / "photos"
        write_images(photos, arguments.images, (arguments.photo_size, 3 * arguments.photo_size // 4))
        model = write_model(work / "run", arguments.backbone, arguments.image_size)
        ready = load(model, InferenceSettings(arguments.device, "fp32", workers=arguments.workers))
        ours(ready, photos, work / "out.csv")
        with (work / "out.csv").open(encoding="utf-8") as file:
            predicted = [ready.classifier.class_names.index(row["class_1"]) for row in csv.DictReader(file)]
        if predicted != bare_loop(ready, photos):
            raise SystemExit("the two predict different classes")
        seconds = medians(
            {
                "bare loop": lambda: bare_loop(ready, photos),
                "fgvc predict": lambda: ours(ready, photos, work / "out.csv"),
            },
            arguments.rounds,
            device,
        )
    rates = {name: arguments.images / median for name, median in seconds.items()}
    ratio = rates["fgvc predict"] / rates["bare loop"]
    size = f"{arguments.image_size} px, {arguments.images} JPEGs, {arguments.rounds} rounds"
    print(f"{arguments.backbone}, {size}: " + ", ".join(f"{name} {rate:.1f} images/s" for name, rate in rates.items()))
    print(f"ratio of medians {ratio:.3f}")
    report(arguments, device, {"images_per_second": rates, "ratio": ratio})


if __name__ == "__main__":
    main()
