"""Options that several commands have, said once: the same name means the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fgvc_cli.commands.completion import component_names

COMPUTING = "Computing"

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=COMPUTING)]
Precision = Annotated[str, typer.Option(help="auto, fp32 or bf16.", rich_help_panel=COMPUTING)]
BatchSize = Annotated[int, typer.Option(min=1, help="Images in a forward pass.", rich_help_panel=COMPUTING)]
Workers = Annotated[
    int, typer.Option(min=-1, help="Processes that read images; -1 chooses by device.", rich_help_panel=COMPUTING)
]

Run = Annotated[
    Path | None, typer.Option(help="Run folder or model.safetensors.", show_default="the newest finished run")
]


def data_option(panel: str) -> Any:
    """Return `--data` for a command that takes another data set than the run's own."""
    return typer.Option(
        help="Another folder of class folders, or a CSV or TSV of path and label; classes are matched by name.",
        rich_help_panel=panel,
        show_default="the run's own data set",
    )


def dataset_option(panel: str) -> Any:
    """Return `--dataset` for such a command."""
    return typer.Option(
        help="Another data set, by name.",
        autocompletion=component_names("dataset"),
        rich_help_panel=panel,
        show_default=False,
    )


def split_option(panel: str, verb: str, default: str = "test, or val where there is none") -> Any:
    """Return `--split`; `verb` says what is done to it."""
    return typer.Option(help=f"Split to {verb}.", rich_help_panel=panel, show_default=default)


def ignore_unknown_option(panel: str) -> Any:
    """Return `--ignore-unknown`."""
    return typer.Option(
        "--ignore-unknown", help="Leave out classes that the classifier does not know.", rich_help_panel=panel
    )
