"""Which precision is faster on this processor: decisions of earlier trainings, kept in the cache directory."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fgvc_cli import files, settings
from fgvc_cli.contracts import Classifier
from fgvc_cli.devices import BF16_GAIN, Precision, has_bf16_units, processor, resolve_precision
from fgvc_cli.errors import FgvcError
from fgvc_cli.files import Locked, locked

LOCK_SECONDS = 10.0

Key = dict[str, Any]
"""What a decision is for, as JSON."""


@dataclass(frozen=True)
class Decision:
    """A precision, and what it was decided by.

    Attributes:
        precision: that is used.
        fp32, bf16: milliseconds of the same work in both; None if they were not timed.
    """

    precision: Precision
    fp32: float | None = None
    bf16: float | None = None

    @classmethod
    def of(cls, fp32: float, bf16: float) -> Decision:
        """Decide by the times of the same work, in milliseconds."""
        return cls("bf16" if bf16 <= BF16_GAIN * fp32 else "fp32", fp32, bf16)


@dataclass(frozen=True)
class Decisions:
    """Decisions in a folder, one file each. The first one on a key stays, whoever else decides at the same time."""

    folder: Path

    def find(self, key: Key) -> Decision | None:
        """Return the decision on a key; None if there is none, or its file is damaged."""
        try:
            found = json.loads(self._file(key).read_text(encoding="utf-8"))
            precision = resolve_precision(found["precision"], torch.device("cpu"))
            return Decision(precision, found["fp32"], found["bf16"]) if found["of"] == key else None
        except (OSError, ValueError, KeyError, TypeError, FgvcError):
            return None

    def keep(self, key: Key, decision: Decision) -> Decision:
        """Write a decision unless there is one; return the one that holds. A folder that is not writable keeps none."""
        file = self._file(key)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(file.with_suffix(".lock"), LOCK_SECONDS):
                found = self.find(key)
                if found is None:
                    files.write_json(file, {"of": key, **asdict(decision)})
        except (OSError, Locked, FgvcError):
            return decision
        return found or decision

    def _file(self, key: Key) -> Path:
        text = json.dumps(key, sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def measured() -> Decisions:
    """Return the decisions of this machine's cache directory."""
    return Decisions(settings.current().cache / "precision")


def prediction_key(classifier: Classifier) -> Key:
    """Return the key of predictions by a classifier on this processor."""
    head = type(classifier.head)
    return {
        "work": "predict",
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "backbone": classifier.backbone.info.name,
        "head": f"{head.__module__}.{head.__qualname__}",
        "image_size": classifier.preprocessing.image_size,
    }


def inference_precision(wanted: str, classifier: Classifier) -> Precision:
    """Resolve "auto" on a CPU to what an earlier training of such a classifier measured to be faster, else to fp32.

    Raises:
        UsageError: the device does not support the precision, or the value is unknown.
    """
    device = classifier.device
    if wanted == "auto" and device.type == "cpu" and has_bf16_units():
        found = measured().find(prediction_key(classifier))
        if found is not None:
            return found.precision
    return resolve_precision(wanted, device)
