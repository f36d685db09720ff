"""Contract checks of exporters."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn

from fgvc_cli.contracts import Classifier, ExportedModel, Exporter, ExportJob, ExportPrecision
from fgvc_cli.errors import FgvcError, cause_of
from fgvc_cli.evaluation.export import TOLERANCES, Scores
from fgvc_cli.specs import ExporterSpec
from fgvc_cli.testing.check import Checks, ContractError, NotApplicable, expect, expect_lines, some
from fgvc_cli.testing.component import ComponentUnderTest
from fgvc_cli.testing.models import changed, classifier_of, copied_state, describe, spread_scores
from fgvc_cli.testing.tiny import CLASSES, TinyConvolutional, TinyHead, images_of, isolated

BATCHES = (1, 2, 5)
TIMEOUT = 120
"""Seconds until a script is given up."""


@dataclass
class Exported:
    """A file that an exporter wrote, in a temporary folder, and the files beside it."""

    folder: tempfile.TemporaryDirectory[str]
    path: Path
    document: dict[str, Any]
    notes: Any
    written: list[str]
    changed: list[str]
    """Weights and modes of the network that the export changed."""


@dataclass
class ExporterUnderTest:
    """An exporter, checked on a tiny classifier."""

    subject: ComponentUnderTest
    exported: dict[str, Exported] = field(default_factory=dict)

    @property
    def spec(self) -> ExporterSpec:
        """Its spec."""
        return cast(ExporterSpec, self.subject.component.spec)

    @cached_property
    def classifier(self) -> Classifier:
        """A tiny classifier in evaluation mode whose scores differ between images."""
        torch.manual_seed(0)
        classifier = classifier_of(TinyConvolutional(), lambda info: TinyHead(info, CLASSES))
        spread_scores(classifier)
        return classifier.eval()

    def make(self) -> Exporter:
        """Build it.

        Raises:
            NotApplicable: a package that it depends on is not installed.
        """
        try:
            exporter: Exporter = self.subject.make(Exporter, options=self.subject.options())
        except FgvcError as error:
            raise NotApplicable(str(error)) from None
        return exporter

    def images(self, count: int) -> Tensor:
        """Return images of the size of the classifier."""
        return images_of(count, self.classifier.preprocessing.image_size)

    def export(self, precision: str) -> Exported:
        """Export the classifier once for each precision."""
        if precision not in self.exported:
            folder = tempfile.TemporaryDirectory(prefix="fgvc-check-")
            path = Path(folder.name) / f"model{self.spec.suffix}"
            document = {
                "classes": list(self.classifier.class_names),
                "preprocessing": asdict(self.classifier.preprocessing),
            }
            network = Scores(self.classifier).eval()
            images = self.images(8)
            job = ExportJob(network, images, True, path, cast(ExportPrecision, precision), document)
            before = {**copied_state(network), **_modes(network)}
            notes = self.make().export(job)
            differing = changed(before, {**copied_state(network), **_modes(network)})
            network.eval()
            expect(path.is_file(), "a file at job.path", "it is not there", "write the file to job.path")
            written = sorted(entry.name for entry in path.parent.iterdir() if entry != path)
            self.exported[precision] = Exported(folder, path, document, notes, written, differing)
        return self.exported[precision]

    def opened(self, precision: str) -> ExportedModel:
        """Open the exported classifier."""
        model = self.make().open(self.export(precision).path)
        kind = f"open returns a {type(model).__name__}"
        expect(isinstance(model, ExportedModel), "an ExportedModel", kind, "return one")
        return model

    def differs(self, precision: str) -> float:
        """Return the largest difference of a probability over batches of several sizes."""
        model, largest = self.opened(precision), 0.0
        for count in BATCHES:
            images = self.images(count)
            found = model.scores(images)
            expect(
                isinstance(found, Tensor) and found.shape == (count, CLASSES) and found.dtype == torch.float32,
                f"float32 scores of shape {(count, CLASSES)} for {count} images",
                f"scores returned {describe(found)}",
                "leave the batch dimension free, and return scores as float32",
            )
            expected = self.classifier.scores(images).detach().softmax(dim=1)
            difference = (found.softmax(dim=1) - expected).abs().amax()
            largest = max(largest, float(difference.nan_to_num(nan=float("inf"))))
        return largest


CHECKS: Checks[ExporterUnderTest] = Checks(ExporterUnderTest, isolated)


@CHECKS("computes the scores of the classifier", "A file that differs is refused, and never gets its name.")
def same_scores(exporter: ExporterUnderTest) -> None:
    """In the first precision, for batches of several sizes."""
    expect_near(exporter, exporter.spec.precisions[0])


@CHECKS("writes every precision of its spec", "`fgvc export` offers them.")
def precisions(exporter: ExporterUnderTest) -> None:
    """In the other precisions."""
    others = exporter.spec.precisions[1:]
    if not others:
        raise NotApplicable("it has one precision")
    for precision in others:
        expect_near(exporter, precision)


def expect_near(exporter: ExporterUnderTest, precision: str) -> None:
    """Raise `ContractError` unless the exported probabilities are as near as the host wants them."""
    difference, allowed = exporter.differs(precision), TOLERANCES[precision].difference
    expect(
        difference <= allowed,
        f"probabilities within {allowed:g} of the classifier's ({precision})",
        f"they differ by up to {difference:.3g}",
        "export the network in evaluation mode, and nothing else than its scores",
    )


@CHECKS("returns the document", "It has class names and preprocessing, without which a file cannot be used.")
def documents(exporter: ExporterUnderTest) -> None:
    """The document of an opened file equals the exported one."""
    precision = exporter.spec.precisions[0]
    found, expected = exporter.opened(precision).document, exporter.export(precision).document
    same = {k: v if not isinstance(v, dict) else {n: _plain(x) for n, x in v.items()} for k, v in expected.items()}
    expect(found == same, "the document of the job", f"open returned {found!r:.100}", "keep it as JSON in the file")


@CHECKS("writes one file", "A file that needs others breaks when it is moved.")
def one_file(exporter: ExporterUnderTest) -> None:
    """Nothing but the file is written, and notes are single lines."""
    done = exporter.export(exporter.spec.precisions[0])
    expect(not done.written, "one file", f"it writes {some(done.written)} too", "keep everything in job.path")
    expect_lines(done.notes, "export")


@CHECKS("does not change the network", "The host compares the file with it afterwards.")
def unchanged(exporter: ExporterUnderTest) -> None:
    """Weights, buffers and modes are unchanged after an export."""
    names = exporter.export(exporter.spec.precisions[0]).changed
    expect(not names, "unchanged weights and modes", f"it changes {some(names)}", "restore them, or export a copy")


@CHECKS("refuses damaged files", "Files come from strangers and from interrupted copies.")
def damaged(exporter: ExporterUnderTest) -> None:
    """Opening something else, or half a file, raises `FgvcError`."""
    whole, instance = exporter.export(exporter.spec.precisions[0]).path.read_bytes(), exporter.make()
    with tempfile.TemporaryDirectory(prefix="fgvc-check-") as folder:
        path = Path(folder) / f"damaged{exporter.spec.suffix}"
        for content in (b"", b"not a model", whole[: len(whole) // 2]):
            path.write_bytes(content)
            expect_refused(lambda: instance.open(path))


def expect_refused(run: Callable[[], object]) -> None:
    """Raise `ContractError` unless a call raises an `FgvcError`."""
    fix = "raise fgvc_cli.FgvcError with a message of one line"
    try:
        run()
    except FgvcError:
        return
    except Exception as error:
        raise ContractError("an FgvcError for a damaged file", f"open raised {cause_of(error)}", fix) from error
    raise ContractError("an FgvcError for a damaged file", "open returned", fix)


@CHECKS("its script predicts the same", "It is all that users without fgvc have.")
def scripts(exporter: ExporterUnderTest) -> None:
    """The script prints the classes that the classifier predicts, with their probabilities."""
    exported, preprocessing = exporter.export(exporter.spec.precisions[0]), exporter.classifier.preprocessing
    script = exporter.make().script(exported.path.name)
    if script is None:
        raise NotApplicable("it has no script")
    size = preprocessing.image_size
    image = Image.effect_noise((2 * size, 3 * size), 80).convert("RGB")
    with torch.no_grad():
        pixels = exporter.classifier.normalize(preprocessing(image)[None])
        expected = exporter.classifier.scores(pixels).softmax(dim=1)[0]
    (exported.path.parent / "script.py").write_text(script, "utf-8")
    image.save(exported.path.parent / "image.png")
    command = [sys.executable, "script.py", "image.png"]
    done = subprocess.run(command, cwd=exported.path.parent, capture_output=True, text=True, timeout=TIMEOUT)
    if done.returncode:
        raise ContractError("a script that runs", f"it ends with {done.stderr[-200:].strip()!r}", "correct it")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    named = dict(zip(exporter.classifier.class_names, expected.tolist(), strict=True))
    right = bool(lines) and all(
        len(line) == 3 and abs(named.get(line[1], 2.0) - float(line[2])) < TOLERANCES["fp32"].difference
        for line in lines
    )
    best = max(named, key=lambda name: named[name])
    expect(
        right and lines[0][1] == best,
        f"lines of image, class and probability, separated by tabs, '{best}' first",
        f"it prints {done.stdout[:200]!r}",
        "resize, crop and normalize as document['preprocessing'] says, and apply a softmax",
    )


def _modes(network: nn.Module) -> dict[str, Tensor]:
    """Return whether each module is in training mode."""
    return {f"mode of {name}": torch.tensor(float(module.training)) for name, module in network.named_modules()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
