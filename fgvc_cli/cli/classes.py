"""`fgvc classes`: list the classes of a run, and add some without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli.lazy import QuickCommand, QuickGroup

EXAMPLES = {"add": "fgvc classes add runs/groceries new-photos/Pomelo", "list": "fgvc classes list runs/groceries"}

classes = typer.Typer(
    add_completion=False,
    cls=QuickGroup,
    rich_markup_mode="rich",
    invoke_without_command=True,
    epilog=f"Example: {EXAMPLES['add']}",
)

OfRun = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder or model.safetensors.", show_default=False)]


@classes.callback()
def group(context: typer.Context) -> None:
    """List the classes of a run, and add some without training."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)


@classes.command("list", cls=QuickCommand, epilog=f"Example: {EXAMPLES['list']}")
def list_classes(
    run: OfRun, json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False
) -> None:
    """List the classes of a run, in the order of its scores."""
    from fgvc_cli.cli import console
    from fgvc_cli.formatting import printable
    from fgvc_cli.runs.model_file import read_class_names
    from fgvc_cli.scoring.model import find_model

    names = read_class_names(find_model(run))
    if json:
        console.print_json({"run": run, "classes": list(names)})
    else:
        for name in names:
            console.out().print(printable(name), soft_wrap=True, markup=False)


@classes.command(cls=QuickCommand, epilog=f"Example: {EXAMPLES['add']}")
def add(
    run: OfRun,
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...",
            help="Folder of a class's images, named like the class, or a folder of such folders.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the new run.", show_default="a new one in the runs folder"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another run at --out.")] = False,
    device: common.Device = "auto",
    precision: common.Precision = "auto",
    batch_size: common.BatchSize = 32,
    workers: common.Workers = -1,
) -> None:
    """Add classes to a run without training.

    Possible for heads that keep what they know of each class apart: class means and nearest neighbors. The result is a
    new run; the old one stays as it is. Images that cannot be read are reported and skipped.

    Exit code 3: some images were skipped.

    """
    from fgvc_cli.cli import console
    from fgvc_cli.cli.tables import next_lines
    from fgvc_cli.formatting import counted, printable, quoted
    from fgvc_cli.registry import get_registry
    from fgvc_cli.scoring.model import InferenceSettings, find_model
    from fgvc_cli.training.classes import add_classes

    inference = InferenceSettings(device, precision, batch_size, workers)
    added = add_classes(find_model(run), folders, inference, get_registry(), out, force)
    for name, count in added.images.items():
        console.out().print(f"added {printable(name)}: {counted(count, 'image')}", soft_wrap=True, markup=False)
    console.out().print(f"run: {added.run.path} ({added.classes} classes)", soft_wrap=True)
    for line in next_lines([f"fgvc classes list {quoted(str(added.run.path))}"]):
        console.out().print(line, soft_wrap=True)
    if added.failures:
        console.warn(f"skipped {counted(len(added.failures), 'image')}, see above")
        raise typer.Exit(3)
