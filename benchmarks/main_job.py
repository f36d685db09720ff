"""Say where the processor time of `fgvc train` goes: a short training, with the time of each part of the whole one.

Trains one epoch from scratch on a few images per class of the demo dataset, drawn into an empty cache, and counts the
processor time of each part in this process. Parts that grow with images or epochs are scaled to the whole training.

    OMP_NUM_THREADS=1 python benchmarks/main_job.py --backbone swin_t --head pim
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from fgvc_cli import viz
from fgvc_cli.registry import get_registry
from fgvc_cli.training import run, trainer
from fgvc_datasets.options import DemoOptions

IMPORTS = time.process_time()
IMAGES = {"train": 8, "val": 4, "test": 4}
EPOCHS = 10
"""Of the recipe `scratch` on a CPU."""
PARTS = {
    "open the dataset": (run, "_open"),
    "choose weights, build the model": (run, "plan_new"),
    "prepare": (run, "prepare"),
    "updates": (trainer.Trainer, "_update"),
    "validation": (trainer.Trainer, "_validate"),
    "state": (trainer, "save_state"),
    "test": (run, "_test"),
    "curves": (viz, "learning_curves"),
}


def main() -> None:
    """Train, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="swin_t")
    parser.add_argument("--head", default="pim")
    arguments = parser.parse_args()
    seconds: Counter[str] = Counter({"imports": IMPORTS})
    for part, (owner, name) in PARTS.items():
        setattr(owner, name, timed(getattr(owner, name), part, seconds))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FGVC_CACHE"] = folder
        layer: dict[str, dict[str, Any]] = {
            "backbone": {"name": arguments.backbone},
            "head": {"name": arguments.head},
            "dataset": {"name": "demo", **IMAGES},
            "train": {"epochs": 1, "weights": "none", "device": "cpu"},
        }
        run.train([layer], "scratch", Path(folder) / "run", True, get_registry())
    whole = {name: getattr(DemoOptions(), name) for name in IMAGES}
    factors = {
        "open the dataset": sum(whole.values()) / sum(IMAGES.values()),
        "updates": EPOCHS * whole["train"] / IMAGES["train"],
        "validation": EPOCHS * whole["val"] / IMAGES["val"],
        "state": EPOCHS,
        "test": whole["test"] / IMAGES["test"],
    }
    total = {part: value * factors.get(part, 1) for part, value in seconds.items()}
    for part, value in sorted(total.items(), key=lambda item: -item[1]):
        print(f"{part:35}{value:8.1f} s {value / sum(total.values()):7.1%}")


def timed(function: Any, part: str, seconds: Counter[str]) -> Any:
    """Return the function with its processor time added to a part."""

    def call(*arguments: Any, **options: Any) -> Any:
        start = time.process_time()
        try:
            return function(*arguments, **options)
        finally:
            seconds[part] += time.process_time() - start

    return call


if __name__ == "__main__":
    main()
