"""The parts of gpu_suite.py: which commands measure what, with which sizes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gpu_suite_processes import ROOT, Step

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Sizes:
    """How much the parts measure.

    Attributes:
        backbones, cam_models: names.
        image_size, batch_size: pixels and images of updates.
        rounds: alternations of the variants in a script.
        updates: per round of the bare loop.
        seconds, epoch_seconds: limit of a measurement of `fgvc bench`, and of one over photographs.
        photographs: number per core, and at most.
        heads: settings of the heads.
        pim: options of pim_per_sample.py.
    """

    backbones: Sequence[str]
    cam_models: Sequence[str]
    image_size: int
    batch_size: int
    rounds: int
    updates: int
    seconds: float
    epoch_seconds: float
    photographs: tuple[int, int]
    heads: Sequence[str] = ()
    pim: Sequence[str] = ()


FULL = Sizes(
    backbones=(
        "resnet50", "swin_t", "vit_b16", "efficientnet_b5",
        "resnext50", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2",
    ),
    cam_models=("resnet50", "vit_b16", "swin_t"),
    image_size=224, batch_size=64, rounds=7, updates=10, seconds=0.5, epoch_seconds=3.0, photographs=(128, 2048),
)  # fmt: skip
TINY = Sizes(
    backbones=("timm/test_resnet",),
    cam_models=("timm/resnet18",),
    image_size=64, batch_size=4, rounds=1, updates=1, seconds=0.01, epoch_seconds=0.01, photographs=(8, 8),
    heads=("fpn_size=16", "num_selects=4", "expert_width=16", "map_channels=32", "hidden_width=16"),
    pim=("--points", "49", "16", "--keeps", "30", "2", "--width", "16", "--classes", "7"),
)  # fmt: skip


class Suite:
    """The steps of each part, on a device."""

    def __init__(self, device: str, backbones: Sequence[str], scratch: Path) -> None:
        self.device, self.scratch = device, scratch
        self.sizes = TINY if device == "cpu" else FULL
        self.backbones = backbones or self.sizes.backbones
        self._photographs: Path | None = None

    def tests(self) -> list[Step]:
        """Run the tests marked `gpu`; of those that compile, one per head."""
        marked = [str(f) for f in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in f.read_text("utf-8")]
        first = [f for f in marked if "/training/" in f]
        files = first + [f for f in marked if f not in first]
        if self.device == "cpu":
            files = first[:2]
        result = self.scratch / "tests.xml"
        chosen = "not compiled or linear-sgd or pim-adamw or cmal-sam"
        options = ["-q", "-p", "no:cacheprovider", "-m", "gpu", "-k", chosen, f"--junitxml={result}"]
        return [Step("pytest", ["-m", "pytest", *options, *files], result, read_junit)]

    def bare(self) -> list[Step]:
        """Compare compiled updates in bf16 with those of a bare compiled loop."""
        return [
            self._script(
                f"bare {backbone}", "bare_loop.py", "--backbone", backbone, *self._sizes(), *self._rounds(),
                "--updates", str(self.sizes.updates), "--precision", "bf16", "--compile",
            )
            for backbone in self.backbones
        ]  # fmt: skip

    def combinations(self) -> list[Step]:
        """Time every built-in head and optimizer on the backbones; `sgd` first."""
        heads = self._heads()
        others = [word for name in ("sam", "adamw", "muon") for word in ("--optimizer", name)]
        return [
            self._bench("combinations sgd", *heads, "--optimizer", "sgd"),
            self._bench("combinations others", *heads, *others),
        ]

    def compiled(self) -> list[Step]:
        """Time the heads with compiled models."""
        return [
            self._bench(f"compiled {backbone}", *self._heads(), "--optimizer", "sgd", "--compile", backbones=[backbone])
            for backbone in self.backbones
        ]

    def epoch(self) -> list[Step]:
        """Time epochs over photographs and ready tensors, and the input pipeline, by where images are augmented."""
        options = ["--head", "linear", "--optimizer", "sgd", "--epoch", "--pipeline", "--data", str(self.photographs())]
        variants = {
            "epoch augmented on the device": ("autoaugment", "device"),
            "epoch augmented by workers": ("autoaugment", "workers"),
            "epoch without a policy": ("none", "workers"),
        }
        return [
            self._bench(
                name, *options, "--set", f"augment.policy={policy}", "--set", f"augment.where={where}",
                backbones=self.backbones[:1], seconds=self.sizes.epoch_seconds,
            )
            for name, (policy, where) in variants.items()
        ]  # fmt: skip

    def augmentation(self) -> list[Step]:
        """Compare augmentation of whole batches with torchvision's, image by image."""
        options = ["--side", str(self.sizes.image_size), "--batch-size", str(self.sizes.batch_size), *self._rounds()]
        return [self._script("augmentation", "batch_augmentation.py", str(self.photographs()), *options)]

    def gradcam(self) -> list[Step]:
        """Compare Grad-CAM with the package `grad-cam`."""
        return [
            self._script(f"gradcam {model}", "gradcam_package.py", "--models", model, *self._sizes(), *self._rounds())
            for model in self.sizes.cam_models
        ]

    def pim(self) -> list[Step]:
        """Compare PIM's selectors and losses with an implementation that works image by image."""
        return [self._script("pim", "pim_per_sample.py", *self.sizes.pim, *self._rounds())]

    def cmal(self) -> list[Step]:
        """Compare CMAL's update with five full passes."""
        options = ["--backbone", self.backbones[0], *self._sizes(), *self._rounds()]
        return [self._script("cmal", "cmal_passes.py", *options)]

    def choices(self) -> list[Step]:
        """Compare ways to compute the same update."""
        options = ["--backbone", self.backbones[0], *self._sizes(), *self._rounds()]
        sets = ("sgd", "adamw", "zeros", "pooling", "layout", "precision")
        return [self._script("choices", "update_choices.py", *sets, *options)]

    def photographs(self) -> Path:
        """Return a folder of large photographs, written once by all cores; of how many depends on them."""
        if self._photographs is None:
            from input_pipeline import write_photographs

            from fgvc_cli.launch import usable_cores

            root, cores = self.scratch / "photographs", max(2, usable_cores())
            per_core, most = self.sizes.photographs
            folders = [root / f"class{number:03d}" for number in range(cores)]
            for folder in folders:
                folder.mkdir(parents=True)
            with ProcessPoolExecutor(cores) as pool:
                list(pool.map(partial(write_photographs, count=min(per_core, most // cores)), folders))
            self._photographs = root
        return self._photographs

    def _script(self, name: str, script: str, *options: str) -> Step:
        result = self.scratch / f"{file_name(name)}.json"
        arguments = [str(HERE / script), *options, "--device", self.device, "--json", str(result)]
        return Step(name, arguments, result, lambda path: json.loads(path.read_text("utf-8"))["figures"])

    def _bench(self, name: str, *options: str, backbones: Sequence[str] = (), seconds: float | None = None) -> Step:
        folder = self.scratch / file_name(name)
        chosen = [word for backbone in backbones or self.backbones for word in ("--backbone", backbone)]
        arguments = [
            "-m", "fgvc_cli", "bench", *chosen, *options, *self._sizes(),
            "--seconds", str(seconds or self.sizes.seconds),
            "--precision", "bf16", "--device", self.device, "--out", str(folder),
        ]  # fmt: skip
        return Step(name, arguments, folder / "bench.json", lambda path: json.loads(path.read_text("utf-8")))

    def _heads(self) -> list[str]:
        return [word for setting in self.sizes.heads for word in ("--set", f"head.{setting}")]

    def _sizes(self) -> list[str]:
        return ["--image-size", str(self.sizes.image_size), "--batch-size", str(self.sizes.batch_size)]

    def _rounds(self) -> list[str]:
        return ["--rounds", str(self.sizes.rounds)]


@dataclass(frozen=True)
class Part:
    """A part of the suite: its share of the time and the packages that it needs."""

    steps: Callable[[Suite], list[Step]]
    weight: float
    packages: Sequence[str] = ()


PARTS = {
    "tests": Part(Suite.tests, 5, ("pytest",)),
    "combinations": Part(Suite.combinations, 6),
    "bare": Part(Suite.bare, 6),
    "epoch": Part(Suite.epoch, 3),
    "augmentation": Part(Suite.augmentation, 1),
    "gradcam": Part(Suite.gradcam, 1.5, ("pytorch_grad_cam",)),
    "pim": Part(Suite.pim, 1),
    "cmal": Part(Suite.cmal, 1),
    "choices": Part(Suite.choices, 1),
    "compiled": Part(Suite.compiled, 2),
}


def read_junit(path: Path) -> dict[str, Any]:
    """Return the numbers of tests by result, and what failed, from the file of `pytest --junitxml`."""
    suite = next(ElementTree.parse(path).iter("testsuite"))
    numbers = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = {
        f"{case.get('classname')}::{case.get('name')}": str(found.get("message"))[:300]
        for case in suite.iter("testcase")
        for found in (*case.findall("failure"), *case.findall("error"))
    }
    return {**numbers, "passed": 2 * numbers["tests"] - sum(numbers.values()), "failed": failed}


def file_name(name: str) -> str:
    """Return a name in lower case with hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
