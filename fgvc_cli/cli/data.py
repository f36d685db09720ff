"""`fgvc data`: list, download and check datasets, and manage the decode cache."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgvc_cli.cli.common_options import SEVERAL, component_names
from fgvc_cli.cli.lazy import QuickCommand, QuickGroup

if TYPE_CHECKING:
    from fgvc_cli.data.acquisition.select import ChosenDataset

EXAMPLES = {
    "info": "fgvc data info flowers102",
    "prepare": "fgvc data prepare flowers102 --data-root /data",
    "check": "fgvc data check --data photos/",
    "index": "fgvc data index shards/",
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
        metavar="NAME", help="Name of a dataset.", autocompletion=component_names("dataset"), show_default=False
    ),
]
Own = Annotated[
    Path | None,
    typer.Option("--data", help="Folder of class folders, or CSV or TSV file of path and label.", show_default=False),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help=f"Option of the dataset, as dataset.option=value. {SEVERAL}"),
]
Exclude = Annotated[
    Path | None, typer.Option(help="CSV file of images to leave out, such as that of fgvc audit.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@data.callback()
def group(context: typer.Context) -> None:
    """List, download and check datasets, and manage the decode cache."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)


@data.command(cls=QuickCommand, epilog=f"Example: {EXAMPLES['info']}")
def info(
    name: Name = None, data: Own = None, set_: Settings = None, exclude: Exclude = None, json: Json = False
) -> None:
    """List all datasets, or describe one.

    Shows splits, classes and images per class, or what is missing and how to get it.

    """
    from fgvc_cli import settings
    from fgvc_cli.cli import console, data_tables
    from fgvc_cli.data.acquisition.describe import dataset_statuses, describe
    from fgvc_cli.data.acquisition.select import choose_dataset
    from fgvc_cli.errors import UsageError
    from fgvc_cli.registry import get_registry

    if name is not None or data is not None:
        description = describe(choose_dataset(name, data, set_ or [], get_registry(), exclude))
        if json:
            console.print_json(description.as_json())
        else:
            data_tables.show_description(description, arguments_of(description.chosen, set_ or []))
        return
    if set_ or exclude:
        given = f"--set {set_[0]}" if set_ else f"--exclude {exclude}"
        raise UsageError(f"{given}: name the dataset that the option belongs to")
    root = settings.current().data_root.absolute()
    statuses = dataset_statuses(get_registry())
    if json:
        console.print_json({"data_root": root, "datasets": [data_tables.status_json(status) for status in statuses]})
    else:
        data_tables.show_all(statuses, root)


@data.command(cls=QuickCommand, epilog=f"Example: {EXAMPLES['prepare']}")
def prepare(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of a dataset.", autocompletion=component_names("dataset")),
    ],
    set_: Settings = None,
    json: Json = False,
) -> None:
    """Download, verify and unpack a dataset.

    Existing files are not downloaded again, and an interrupted download is resumed by the same command.

    If a link is dead, it prints what to get where, and which folder to put it in.

    """
    from fgvc_cli.cli import console, data_tables
    from fgvc_cli.data.acquisition.describe import describe
    from fgvc_cli.data.acquisition.prepare import ManualDownloadError, prepare_dataset
    from fgvc_cli.data.acquisition.select import choose_dataset
    from fgvc_cli.errors import FgvcError, UsageError
    from fgvc_cli.registry import get_registry

    chosen = choose_dataset(name, None, set_ or [], get_registry())
    if chosen.is_own:
        raise UsageError(f"'{name}' reads your own files and needs no download. Try fgvc data check --data PATH")
    provision = chosen.provision()
    arguments = arguments_of(chosen, set_ or [])
    if provision is not None:
        try:
            prepare_dataset(chosen.title, provision)
        except ManualDownloadError as error:
            raise FgvcError(f"{error}\nthen: fgvc data prepare {arguments}") from error
        except KeyboardInterrupt:
            console.note(f"interrupted; to resume the download: fgvc data prepare {arguments}")
            raise
    description = describe(chosen)
    console.print_json(description.as_json()) if json else data_tables.show_description(description, arguments)


@data.command(cls=QuickCommand, epilog=f"Example: {EXAMPLES['check']}")
def check(
    name: Name = None,
    data: Own = None,
    split: Annotated[str | None, typer.Option(help="Check only this split.", show_default="all")] = None,
    set_: Settings = None,
    exclude: Exclude = None,
    workers: Annotated[
        int, typer.Option(min=-1, max=512, help="Number of processes that decode; -1: one per core, 0: none.")
    ] = -1,
    json: Json = False,
) -> None:
    """Find unreadable images, duplicates and odd sizes.

    Decodes every image of every split and compares the files, also across splits.

    Exit code 3: done, but some images cannot be read.

    """
    from fgvc_cli.cli import console
    from fgvc_cli.cli.data_tables import show_check
    from fgvc_cli.data.acquisition.check import DatasetCheck, splits_to_check
    from fgvc_cli.data.acquisition.select import choose_dataset
    from fgvc_cli.registry import get_registry

    chosen = choose_dataset(name, data, set_ or [], get_registry(), exclude)
    dataset = chosen.open()
    checking = DatasetCheck(splits_to_check(dataset, split), dataset.class_names, workers, dataset.ignored_files())
    try:
        checking.run()
    except KeyboardInterrupt:
        console.note("interrupted; results so far:")
    report = checking.report
    if json:
        console.print_json({"dataset": chosen.component.name, "data": chosen.path, **report.as_json()})
    else:
        show_check(report, chosen.title)
    if not report.complete:
        raise typer.Exit(130)
    if report.unreadable:
        raise typer.Exit(3)


@data.command(cls=QuickCommand, epilog=f"Example: {EXAMPLES['index']}")
def index(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="Folder or URL of .tar files, or their names: 'train-{000..099}.tar'."),
    ],
    classes: Annotated[
        Path | None,
        typer.Option(help="Class names, if the files have numbers: a JSON list, or one per line.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Index to write.", show_default="index.shards in the folder")] = None,
    json: Json = False,
) -> None:
    """Index tar files of images (WebDataset shards), so that they can be trained on.

    The index is given as --data to other commands. It is small, and always local; the shards may be in an object store.

    """
    from fgvc_cli.cli import console, data_tables
    from fgvc_cli.data.acquisition.describe import describe
    from fgvc_cli.data.acquisition.indexing import index_shards
    from fgvc_cli.data.acquisition.select import choose_dataset
    from fgvc_cli.registry import get_registry

    path = index_shards(source, out, classes, get_registry())
    description = describe(choose_dataset(None, path, [], get_registry()))
    if json:
        console.print_json(description.as_json())
    else:
        data_tables.show_description(description, arguments_of(description.chosen, []))


@data.command(cls=QuickCommand, epilog=f"Example: {EXAMPLES['cache']}")
def cache(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Only of these datasets or folders.", show_default=False),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Delete the decoded images.")] = False,
    json: Json = False,
) -> None:
    """List or clear the decode cache.

    Training caches every image on disk, decoded and resized; the least recently used are deleted when it is full.

    """
    from fgvc_cli import settings
    from fgvc_cli.cli import console, data_tables
    from fgvc_cli.data.cache import index
    from fgvc_cli.formatting import bytes_text, counted

    root, limit = settings.current().cache.absolute(), settings.current().cache_limit
    caches = index.list_caches(root, names or [])
    freed = index.clear(root, caches) if clear else 0
    if json:
        document = {
            "cache": root,
            "limit": limit,
            "bytes": sum(info.bytes for info in caches),
            "stores": [info.as_json() for info in caches],
        }
        console.print_json({**document, "freed": freed} if clear else document)
    elif clear:
        count = counted(len(caches), "cache")
        console.out().print(f"cleared {count} in {root}, {bytes_text(freed)} freed", soft_wrap=True)
    else:
        data_tables.show_caches(caches, limit, root)


def arguments_of(chosen: ChosenDataset, texts: Sequence[str]) -> str:
    """Return the arguments that name a dataset on the command line, ready to paste."""
    from fgvc_cli import settings

    words = [chosen.component.name] if chosen.path is None else ["--data", str(chosen.path)]
    for text in texts:
        words += ["--set", text]
    if chosen.exclude is not None:
        words += ["--exclude", str(chosen.exclude)]
    current = settings.current()
    if chosen.path is None and current.origin("data_root") == "--data-root":
        words += ["--data-root", str(current.data_root)]
    return " ".join(shlex.quote(word) for word in words)
