"""The findings of an audit, and the CSV file that excludes images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fgvc_cli import files
from fgvc_cli.data.acquisition.check import ImageRef

Problem = Literal[
    "leak", "conflict", "duplicate", "label", "unreadable", "odd", "blurred", "dark", "bright", "tiny", "narrow"
]

PROBLEMS: dict[Problem, str] = {
    "leak": "Copies in several splits",
    "conflict": "Copies with different labels",
    "duplicate": "Copies within a split",
    "label": "Likely label errors",
    "unreadable": "Unreadable",
    "odd": "Unlike all others",
    "blurred": "Blurred",
    "dark": "Under-exposed",
    "bright": "Over-exposed",
    "tiny": "Tiny",
    "narrow": "Extreme aspect ratio",
}
"""Problems and their titles, the worst first."""

OTHER = ("other_split", "other_file", "other_class")
COLUMNS = ("split", "file", "class", "problem", "score", "detail", *OTHER, "exclude")
"""Columns of the CSV file."""


@dataclass(frozen=True)
class Finding:
    """A problem of an image.

    Attributes:
        image: the image; of a pair, the one to exclude.
        problem: what is wrong.
        score: in what it differs from images without the problem; see docs/audit.md.
        detail: in words, such as "perceptual hash" or "predicted owl".
        other: of a pair, the other image.
        exclude: whether the CSV file excludes the image.
    """

    image: ImageRef
    problem: Problem
    score: float
    detail: str = ""
    other: ImageRef | None = None
    exclude: bool = False

    def as_row(self) -> list[Any]:
        """Return the row of the CSV file; see `COLUMNS`."""
        image, other = self.image, self.other
        of_other = ("", "", "") if other is None else (other.split, other.key, other.label)
        found = f"{self.score:.4g}", self.detail, *of_other, "yes" if self.exclude else "no"
        return [image.split, image.key, image.label, self.problem, *found]

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            **self.image.as_json(),
            "problem": self.problem,
            "score": self.score,
            "detail": self.detail,
            "other": None if self.other is None else self.other.as_json(),
            "exclude": self.exclude,
        }


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        data: name or path of the dataset.
        images: number of images by split.
        class_names: of the dataset.
        findings: the worst problem first, and of each the highest score first.
        leaks: number of images of a held-out split (the second name) with a copy in another split (the first).
        notes: what was not checked, and why.
        backbone: what the embeddings are of; empty without.
    """

    data: str
    images: Mapping[str, int]
    class_names: tuple[str, ...]
    findings: Sequence[Finding]
    leaks: Mapping[tuple[str, str], int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    backbone: str = ""

    def of(self, problem: Problem) -> list[Finding]:
        """Return the findings of a problem."""
        return [finding for finding in self.findings if finding.problem == problem]

    @property
    def by_split(self) -> dict[Problem, Counter[str]]:
        """Number of findings of each problem that occurs, by split."""
        counts = {problem: Counter(finding.image.split for finding in self.of(problem)) for problem in PROBLEMS}
        return {problem: count for problem, count in counts.items() if count}

    @property
    def by_class(self) -> dict[str, Counter[Problem]]:
        """Number of findings of each class that has any, by problem; the class with the most first."""
        counts: dict[str, Counter[Problem]] = {}
        for finding in self.findings:
            counts.setdefault(finding.image.label, Counter())[finding.problem] += 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1].total(), item[0])))

    @property
    def excluded(self) -> int:
        """Number of images that the CSV file excludes."""
        return len({(f.image.split, f.image.key) for f in self.findings if f.exclude})

    def write_csv(self, file: Path) -> None:
        """Write a row per finding; `--exclude` of other commands takes the file.

        Raises:
            FgvcError: the file cannot be written.
        """
        files.write_csv(file, COLUMNS, (finding.as_row() for finding in self.findings))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            "data": self.data,
            "images": dict(self.images),
            "backbone": self.backbone,
            "notes": list(self.notes),
            "leaks": [{"from": a, "to": b, "images": n} for (a, b), n in self.leaks.items()],
            "counts": {problem: dict(counts) for problem, counts in self.by_split.items()},
            "by_class": {name: dict(counts) for name, counts in self.by_class.items()},
            "excluded": self.excluded,
            "findings": [finding.as_json() for finding in self.findings],
        }
