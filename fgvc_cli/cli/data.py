"""`fgvc data`: list, prepare and check datasets, and manage the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgvc_cli.cli.completion import component_names
from fgvc_cli.cli.lazy import QuickCommand, QuickGroup

EXAMPLES = {
    "info": "fgvc data info flowers102",
    "prepare": "fgvc data prepare flowers102 --data-root /data",
    "check": "fgvc data check --data photos/",
    "cache": "fgvc data cache --clear",
}


data = typer.Typer(
    add_completion=False,
    cls=QuickGroup,
    rich_markup_mode="rich",
    invoke_without_command=True,
    epilog="Example: fgvc data info",
)

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME", help="Dataset, by name.", autocompletion=component_names("dataset"), show_default=False
    ),
]
Own = Annotated[
    Path | None,
    typer.Option("--data", help="A folder of class folders, or a CSV or TSV of path, label.", show_default=False),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="An option of the dataset, as dataset.option=value. May be given several times."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@data.callback()
def group(context: typer.Context) -> None:
    """See what datasets there are, get them, check them, clear the cache."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)


@data.command(cls=QuickCommand, epilog=f"Example: {EXAMPLES['info']}")
def info(name: Name = None, data: Own = None, set_: Settings = None, json: Json = False) -> None:
    """List all datasets, or describe one.

    For one that is here: its splits, classes and images of a class. Else: what is missing, and how it is had.

    """
    from fgvc_cli import settings
    from fgvc_cli.cli import console, data_tables
    from fgvc_cli.data.acquisition.describe import all_standings, describe
    from fgvc_cli.data.acquisition.select import choose_dataset
    from fgvc_cli.errors import UsageError
    from fgvc_cli.registry import get_registry

    if name is not None or data is not None:
        description = describe(choose_dataset(name, data, set_ or [], get_registry()))
        console.print_json(description.as_json()) if json else data_tables.show_description(description)
        return
    if set_:
        raise UsageError(f"--set {set_[0]}: name the dataset that it is an option of.")
    root = settings.current().data_root.absolute()
    standings = all_standings(get_registry())
    if json:
        console.print_json({"data_root": root, "datasets": [standing.as_json() for standing in standings]})
    else:
        data_tables.show_all(standings, root)


@data.command(cls=QuickCommand, epilog=f"Example: {EXAMPLES['prepare']}")
def prepare(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Dataset, by name.", autocompletion=component_names("dataset")),
    ],
    set_: Settings = None,
    json: Json = False,
) -> None:
    """Download, verify and unpack a dataset.

    What is here already is not downloaded again; interrupted, the same command goes on where it was.

    Where a link is dead it says what to get from where, and what to put where.

    """
    from fgvc_cli.cli import console, data_tables
    from fgvc_cli.data.acquisition.describe import describe
    from fgvc_cli.data.acquisition.prepare import obtain
    from fgvc_cli.data.acquisition.select import choose_dataset
    from fgvc_cli.errors import UsageError
    from fgvc_cli.registry import get_registry

    chosen = choose_dataset(name, None, set_ or [], get_registry())
    if chosen.is_own:
        raise UsageError(f"'{name}' is made from your own files: there is nothing to get. fgvc data check --data PATH")
    provision = chosen.provision()
    if provision is not None:
        try:
            obtain(chosen, provision)
        except KeyboardInterrupt:
            console.note(f"interrupted; what was downloaded is kept: fgvc data prepare {chosen.arguments()} goes on.")
            raise
    description = describe(chosen)
    console.print_json(description.as_json()) if json else data_tables.show_description(description)


@data.command(cls=QuickCommand, epilog=f"Example: {EXAMPLES['check']}")
def check(
    name: Name = None,
    data: Own = None,
    split: Annotated[str | None, typer.Option(help="Only this split.", show_default="all")] = None,
    set_: Settings = None,
    workers: Annotated[int, typer.Option(min=-1, help="Processes that decode; -1: one a core, 0: none.")] = -1,
    json: Json = False,
) -> None:
    """Open every image; find damaged and repeated ones.

    Decodes every image of every split, and compares the files: is an image of test in train, too?

    Exit code 3: done, but some images cannot be read.

    """
    from fgvc_cli.cli import console
    from fgvc_cli.cli.data_tables import show_check
    from fgvc_cli.data.acquisition.check import Check, check_document, splits_to_check
    from fgvc_cli.data.acquisition.select import choose_dataset
    from fgvc_cli.registry import get_registry

    chosen = choose_dataset(name, data, set_ or [], get_registry())
    dataset = chosen.open()
    checking = Check(splits_to_check(dataset, split), dataset.class_names, workers)
    try:
        checking.run()
    except KeyboardInterrupt:
        console.note("interrupted: this is what was found until then.")
    report = checking.report
    if json:
        console.print_json({"dataset": chosen.component.name, "data": chosen.path, **check_document(report)})
    else:
        show_check(report, chosen.title)
    if not report.complete:
        raise typer.Exit(130)
    if report.unreadable:
        raise typer.Exit(3)


@data.command(cls=QuickCommand, epilog=f"Example: {EXAMPLES['cache']}")
def cache(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Only of these datasets or folders.", show_default=False),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Delete them; what is needed is decoded again.")] = False,
    json: Json = False,
) -> None:
    """List or clear the cache of decoded images.

    Training keeps each image decoded and resized on the disk; the oldest give way when the cache is full.

    """
    from fgvc_cli import settings
    from fgvc_cli.cli import console, data_tables
    from fgvc_cli.data.acquisition.select import stores_of
    from fgvc_cli.data.cache import index
    from fgvc_cli.formatting import bytes_text

    folder = settings.current().cache.absolute()
    chosen = stores_of(names or [], index.stores(folder))
    freed = index.clear(folder, chosen) if clear else 0
    if json:
        document = data_tables.store_rows(chosen, index.limit(), folder)
        console.print_json({**document, "freed": freed} if clear else document)
    elif clear:
        count = f"{len(chosen)} {'store' if len(chosen) == 1 else 'stores'}"
        console.out().print(f"cleared: {count}, {bytes_text(freed)} freed in {folder}", soft_wrap=True)
    else:
        data_tables.show_stores(chosen, index.limit(), folder)
