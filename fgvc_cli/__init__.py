"""fgvc: fine-grained visual classification in which every component is a plugin.

    import fgvc_cli as fgvc

    run = fgvc.train(backbone="swin_t", head="pim", data="photos/")
    fgvc.load(run).predict("a.jpg")

Importing this package is light: torch, timm and torchvision are imported when a function that needs them is first used,
so a plugin's registration module can say `from fgvc_cli import HeadSpec, hookimpl` and still register in milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fgvc_cli._version import __version__
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.hookspecs import hookimpl
from fgvc_cli.options import option
from fgvc_cli.specs import (
    API_VERSION,
    BackboneSpec,
    DatasetSpec,
    ExplainerSpec,
    ExporterSpec,
    Family,
    HeadSpec,
    LauncherSpec,
    OptimizerSpec,
    RecipeSpec,
    StudySpec,
    TrackerSpec,
)

if TYPE_CHECKING:
    from fgvc_cli.api import (
        Components,
        Embeddings,
        ImageExplanation,
        TrainedClassifier,
        add_classes,
        components,
        embed,
        evaluate,
        explain,
        load,
        train,
    )
    from fgvc_cli.auditing.findings import Audit
    from fgvc_cli.data.acquisition.indexing import index_shards
    from fgvc_cli.evaluation.calibrate import calibrate
    from fgvc_cli.evaluation.export import Export, export
    from fgvc_cli.report.audit import audit
    from fgvc_cli.runs.folder import Run
    from fgvc_cli.serving.server import serve
    from fgvc_cli.training.callbacks import Callback

_API = {
    **dict.fromkeys(
        (
            "Components",
            "Embeddings",
            "ImageExplanation",
            "TrainedClassifier",
            "add_classes",
            "components",
            "embed",
            "evaluate",
            "explain",
            "load",
            "train",
        ),
        "fgvc_cli.api",
    ),
    "Audit": "fgvc_cli.auditing.findings",
    "audit": "fgvc_cli.report.audit",
    "calibrate": "fgvc_cli.evaluation.calibrate",
    "Callback": "fgvc_cli.training.callbacks",
    "Export": "fgvc_cli.evaluation.export",
    "export": "fgvc_cli.evaluation.export",
    "index_shards": "fgvc_cli.data.acquisition.indexing",
    "Run": "fgvc_cli.runs.folder",
    "serve": "fgvc_cli.serving.server",
}
"""Module of each name that is imported on first use."""

__all__ = [
    "API_VERSION",
    "Audit",
    "BackboneSpec",
    "Callback",
    "Components",
    "DatasetSpec",
    "Embeddings",
    "ExplainerSpec",
    "Export",
    "ExporterSpec",
    "Family",
    "FgvcError",
    "HeadSpec",
    "ImageExplanation",
    "LauncherSpec",
    "OptimizerSpec",
    "RecipeSpec",
    "Run",
    "StudySpec",
    "TrackerSpec",
    "TrainedClassifier",
    "UsageError",
    "__version__",
    "add_classes",
    "audit",
    "calibrate",
    "components",
    "embed",
    "evaluate",
    "explain",
    "export",
    "hookimpl",
    "index_shards",
    "load",
    "option",
    "serve",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_API[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
