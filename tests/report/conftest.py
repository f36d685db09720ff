"""Reports of made-up runs with any number of classes and images; pages parsed into a tree of elements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fgvc_cli.experiments.compared_run import ComparedRun
from fgvc_cli.experiments.comparison import compare
from fgvc_cli.experiments.folder import FailedRun
from fgvc_cli.explaining.masking import Masking
from fgvc_cli.report.artifacts import RunRecord
from fgvc_cli.report.examples import IMAGES, Example, Examples, ReportRequest, Tile
from fgvc_cli.report.pictures import Picture, picture
from fgvc_cli.report.predictions import SplitScores
from fgvc_cli.report.run_report import RunReport, StudyReport
from fgvc_cli.runs.folder import Run
from fgvc_cli.runs.results import Averages, ClassMetrics, EpochMetrics, TrainingSummary, TrainMetrics, ValMetrics
from fgvc_cli.scoring.results import ConfusedPair, EvaluationSummary, Prediction

VOID = {"meta", "img", "line", "rect", "circle", "path", "link", "br", "input"}


@dataclass
class Element:
    """An element of a page, with what is in it."""

    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    def __getitem__(self, name: str) -> str:
        return self.attributes[name]

    def get(self, name: str) -> str | None:
        return self.attributes.get(name)

    def has(self, name: str) -> bool:
        return name in self.attributes

    @property
    def text(self) -> str:
        """The text in it, whitespace collapsed."""
        parts = (child if isinstance(child, str) else child.text for child in self.children)
        return " ".join(" ".join(parts).split())

    @cached_property
    def descendants(self) -> list[Element]:
        return list(self._below())

    def all(self, *tags: str) -> list[Element]:
        """All elements in it, or those with the tags."""
        return [e for e in self.descendants if e.tag in tags] if tags else self.descendants

    def one(self, tag: str) -> Element:
        (found,) = self.all(tag)
        return found

    def by_id(self, name: str) -> Element:
        (found,) = (e for e in self.all() if e.get("id") == name)
        return found

    def of_class(self, name: str) -> list[Element]:
        return [e for e in self.all() if name in (e.get("class") or "").split()]

    def _below(self) -> Iterator[Element]:
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child._below()


class Reader(HTMLParser):
    """Builds the tree and checks that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Element("document", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


@pytest.fixture(scope="session")
def read_page() -> Callable[[str], Element]:
    """A function that parses a page."""

    def read(html: str) -> Element:
        reader = Reader()
        reader.feed(html)
        reader.close()
        assert reader.open == [reader.root]
        return reader.root

    return read


def component(name: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "distribution": "fgvc-cli", "version": "0.1.0", "options": options}


def epoch_line(epoch: int, epochs: int) -> EpochMetrics:
    gone = epoch / epochs
    train = TrainMetrics(768, {"objective": 1.0}, 2.5 - 1.5 * gone, 0.1 + 0.7 * gone)
    val = ValMetrics(192, 2.6 - 1.2 * gone, 0.1 + 0.5 * gone)
    return EpochMetrics(epoch, train, val, {"backbone": 0.03, "head": 0.03}, 1, 40.0, 12.3)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunRecord]:
    """A function that makes the record of a run; `summary` changes some values."""

    def make(
        name: str = "20261123-demo-resnet18-linear-sgd", classes: int = 12, epochs: int = 10, config: str | None = None,
        **summary: Any,
    ) -> RunRecord:  # fmt: skip
        written = {
            "run": name, "train": None, "val": None, "unreadable": {},
            "dataset": {"name": "demo"}, "classes": classes, "chance": 1 / classes,
            "splits": {"train": {"images": 768, "origin": "drawn (seed 0)"}, "test": {"images": 300, "origin": ""}},
            "components": {
                "backbone": component("timm/resnet18"), "head": component("linear"),
                "optimizer": component("sgd", lr=0.03, head_lr="none", nesterov=True), "dataset": component("demo"),
            },
            "parameters": {"backbone": 11_176_512, "head": 6_156, "total": 11_182_668},
            "recipe": "scratch", "weights": "Random weights: training from scratch.", "epochs": epochs,
            "best_epoch": epochs, "stopped_early": False, "test": None, "seconds": 312.0, "images_per_second": 40.0,
            "device": "cpu (2 threads)", "precision": "fp32", "processes": 1, "seed": 0,
            "versions": {"fgvc-cli": "0.1.0", "torch": "2.14.1", "python": "3.11.7"},
        }  # fmt: skip
        lines = [epoch_line(epoch, epochs) for epoch in range(1, epochs + 1)]
        text = 'recipe = "scratch"\n[dataset]\nname = "fgvc-cli:demo"\n[train]\nbatch_size = 16\n'
        model = {"classes": [], "preprocessing": {"image_size": 64, "resize": 73}}
        summarized = TrainingSummary.from_json({**written, **summary})
        return RunRecord(Run(Path("runs") / name), summarized, lines, config or text, model)

    return make


@pytest.fixture(scope="session")
def scored() -> Callable[..., SplitScores]:
    """A function that makes an evaluation with some mistakes: classes, and images per class."""

    def make(classes: int | list[str] = 12, images: int = 25, split: str = "test", **summary: Any) -> SplitScores:
        names = classes if isinstance(classes, list) else [f"Kind-{i:04}" for i in range(classes)]
        rng = np.random.default_rng(0)
        predictions = []
        for number, name in enumerate(names):
            right = rng.random(images) < (number + 1) / (len(names) + 1)
            for i in range(images):
                other = names[(number + 1 + int(rng.integers(3))) % len(names)]
                predicted = name if right[i] else other
                probability = float(rng.uniform(0.4, 1.0))
                true = probability if predicted == name else (1 - probability) / 2
                predictions.append(Prediction(f"{name}/{i:04}.png", name, predicted, probability, true))
        evaluated = EvaluationSummary(**{**_figures(predictions, names), "split": split, **summary})
        return SplitScores(evaluated, predictions)

    return make


def _figures(predictions: list[Prediction], names: list[str]) -> dict[str, Any]:
    rows = []
    for name in names:
        own = [p for p in predictions if p.true == name]
        fraction = sum(p.is_right for p in own) / len(own) if own else None
        rows.append(ClassMetrics(name, len(own), fraction, fraction, fraction, fraction))
    top1 = sum(p.is_right for p in predictions) / len(predictions)
    average = Averages(top1, top1, top1)
    pairs = Counter((p.true, p.predicted) for p in predictions if not p.is_right).most_common(10)
    return {
        "most_confused": [ConfusedPair(true, predicted, n, n / len(predictions)) for (true, predicted), n in pairs],
        "origin": "drawn (seed 0)", "dataset": {"name": "demo", "data": None}, "notes": [], "images": len(predictions),
        "failed": 0, "classes": len(names), "classes_present": len(names), "top1": top1, "top5": None, "macro": average,
        "weighted": average, "calibration_error": 0.05, "per_class": rows,
    }  # fmt: skip


@pytest.fixture(scope="session")
def busy_picture() -> Picture:
    """A picture of nearly the largest allowed size: noise, which hardly compresses."""
    noise = np.random.default_rng(0).normal(size=(256, 256, 3))
    images = (Image.fromarray(np.clip(128 + spread * noise, 0, 255).astype(np.uint8)) for spread in range(1, 16))
    return max((picture(image, "Noise of all colors.") for image in images), key=lambda made: len(made.uri))


@pytest.fixture(scope="session")
def examples(busy_picture: Picture) -> Callable[..., Examples]:
    """A function that makes examples with pictures of the largest size."""

    def make(images: int = IMAGES, true: str = "ant", predicted: str = "bee", key: str = "ant/1.png") -> Examples:
        def example(tiles: int, **more: Any) -> Example:
            shown = [Tile("image", busy_picture)]
            shown += [Tile("saliency map", busy_picture, predicted, 0.7) for _ in range(tiles - 1)]
            return Example(key, true, predicted, shown, **more)

        panels = [example(4, sentence="The decision survived.", survived=True) for _ in range(images)]
        return Examples("gradcam", Masking(), ["gradcam: map 1 with 8x8 is taken"], [example(3)] * images, panels)

    return make


@pytest.fixture(scope="session")
def study_report(recorded: Any, scored: Any, run_report: Any) -> Callable[..., StudyReport]:
    """A function that makes a study; later combinations are worse."""

    def make(
        heads: Sequence[str] = ("linear", "pim", "cmal"), seeds: int = 2, failed: Sequence[FailedRun] = (),
        examples: Any = None, **parts: Any,
    ) -> StudyReport:  # fmt: skip
        compared, reports = [], []
        for place, head in enumerate(heads):
            for seed in range(seeds):
                kinds = {"backbone": component("timm/resnet18"), "head": component(head), "optimizer": component("sgd")}
                training = recorded(
                    name=f"{place}-seed{seed}", seed=seed, seconds=60.0 * (place + 1) + seed,
                    components={**kinds, "dataset": component("demo")}, **parts,
                )  # fmt: skip
                figures = scored(4, 40)
                worse = figures.predictions[: 30 * place]
                right = {p.key: p.is_right and p not in worse for p in figures.predictions}
                summary = replace(figures.summary, top1=sum(right.values()) / len(right))
                config = {"head": {"name": head}, "train": {"epochs": 10, "seed": seed}}
                compared.append(
                    ComparedRun.of(training.run, config, summary, right, Path("summary.json"), training.summary)
                )
                scores = SplitScores(summary, figures.predictions)
                reports.append(run_report(record=training, scores=scores, examples=examples))
        comparison = compare(compared, failed)
        return StudyReport(Path("runs") / "study", "seeds = [0, 1]", comparison, reports)

    return make


@pytest.fixture(scope="session")
def run_report(recorded: Any, scored: Any, examples: Any) -> Callable[..., RunReport]:
    """A function that makes the report of a run; any part can be replaced."""

    def make(**parts: Any) -> RunReport:
        made: dict[str, Any] = {
            "request": ReportRequest(), "record": recorded(), "scores": scored(), "examples": examples(),
            "missing": [], "image_files": {},
        }  # fmt: skip
        return RunReport(**{**made, **parts})

    return make
