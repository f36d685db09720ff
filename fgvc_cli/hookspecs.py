"""The hooks that a plugin can implement. A plugin is a module (or object) named by an entry point in the group `fgvc`.

The first twelve register something and are called once, when plugins are loaded. The run events are called during every
training run. docs/plugins.md has an example of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import typer

    from fgvc_cli.contracts import RunStart
    from fgvc_cli.specs import (
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

PROJECT = "fgvc"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def fgvc_backbones() -> Iterable[BackboneSpec]:  # type: ignore[empty-body]
    """Return the backbones that this plugin adds."""


@hookspec
def fgvc_heads() -> Iterable[HeadSpec]:  # type: ignore[empty-body]
    """Return the heads that this plugin adds."""


@hookspec
def fgvc_optimizers() -> Iterable[OptimizerSpec]:  # type: ignore[empty-body]
    """Return the optimizers that this plugin adds."""


@hookspec
def fgvc_datasets() -> Iterable[DatasetSpec]:  # type: ignore[empty-body]
    """Return the datasets that this plugin adds."""


@hookspec
def fgvc_explainers() -> Iterable[ExplainerSpec]:  # type: ignore[empty-body]
    """Return the explainers that this plugin adds."""


@hookspec
def fgvc_trackers() -> Iterable[TrackerSpec]:  # type: ignore[empty-body]
    """Return the trackers that this plugin adds."""


@hookspec
def fgvc_exporters() -> Iterable[ExporterSpec]:  # type: ignore[empty-body]
    """Return the exporters that this plugin adds."""


@hookspec
def fgvc_launchers() -> Iterable[LauncherSpec]:  # type: ignore[empty-body]
    """Return the launchers that this plugin adds."""


@hookspec
def fgvc_recipes() -> Iterable[RecipeSpec]:  # type: ignore[empty-body]
    """Return the training recipes that this plugin adds."""


@hookspec
def fgvc_studies() -> Iterable[StudySpec]:  # type: ignore[empty-body]
    """Return the studies that this plugin adds."""


@hookspec
def fgvc_families() -> Iterable[Family]:  # type: ignore[empty-body]
    """Return the families of names that this plugin resolves, such as `timm/<any model>`."""


@hookspec
def fgvc_commands(app: typer.Typer) -> None:
    """Add subcommands to the command line."""


@hookspec
def fgvc_run_started(run: RunStart) -> None:
    """Called before training starts or resumes, with the run folder, the configuration and the class names."""


@hookspec
def fgvc_epoch_finished(run: RunStart, metrics: Mapping[str, Any]) -> None:
    """Called after each epoch with its line of `metrics.jsonl`."""


@hookspec
def fgvc_run_finished(run: RunStart, summary: Mapping[str, Any]) -> None:
    """Called after training has finished with the content of `summary.json`."""
