"""fgvc: fine-grained visual classification in which every component is a plugin.

Importing this package is light: it pulls in neither torch nor timm nor torchvision, so that a plugin's
registration module can say `from fgvc_cli import HeadSpec, hookimpl` and still register in milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fgvc_cli._version import __version__
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.hookspecs import hookimpl
from fgvc_cli.options import option
from fgvc_cli.specs import (
    API_VERSION,
    BackboneSpec,
    DatasetSpec,
    ExplainerSpec,
    Family,
    HeadSpec,
    OptimizerSpec,
    RecipeSpec,
    StudySpec,
    TrackerSpec,
)

if TYPE_CHECKING:
    from pathlib import Path

    from fgvc_cli.contracts import Classifier

__all__ = [
    "API_VERSION",
    "BackboneSpec",
    "DatasetSpec",
    "ExplainerSpec",
    "Family",
    "FgvcError",
    "HeadSpec",
    "OptimizerSpec",
    "RecipeSpec",
    "StudySpec",
    "TrackerSpec",
    "UsageError",
    "__version__",
    "hookimpl",
    "load",
    "option",
]


def load(path: str | Path, device: str = "cpu") -> Classifier:
    """Load a trained classifier from a run folder or a `model.safetensors`, ready to predict.

    Args:
        path: a run folder or a weights file written by `fgvc train`.
        device: where to put it, as torch names devices.

    Raises:
        FgvcError: nothing is there, it is damaged, or a component it needs is not installed.
    """
    from fgvc_cli.runs.model_file import load_classifier

    return load_classifier(path, device)
