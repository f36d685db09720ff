"""Tables of datasets, their checks and caches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc_cli.cli import console
from fgvc_cli.formatting import bytes_text

if TYPE_CHECKING:
    from rich.table import Table

    from fgvc_cli.contracts import Provision
    from fgvc_cli.data.acquisition.check import CheckReport, Noted, Place
    from fgvc_cli.data.acquisition.describe import Description, SplitCounts, Standing
    from fgvc_cli.data.cache.index import StoreInfo


def show_all(standings: Sequence[Standing], root: Path) -> None:
    """Print a table of all datasets, and below it where they live and what to do next."""
    table = plain_table("name", "what it is", "here", "where")
    for standing in standings:
        table.add_row(standing.component.name, standing.component.spec.summary, _here(standing), _where(standing, root))
    out = console.out()
    out.print(table)
    out.print(f"\ndata root: {root} (--data-root, FGVC_DATA)", soft_wrap=True)
    missing = [standing.component.name for standing in standings if standing.state == "missing"]
    for standing in standings:
        if standing.fault:
            console.warn(standing.fault)
    out.print(f"next: fgvc data info {missing[0] if missing else standings[0].component.name}" if standings else "")


def show_description(description: Description) -> None:
    """Print what is known of one dataset; if it is here its splits, else what is missing and how it is had."""
    chosen, provision = description.chosen, description.provision
    spec = chosen.component.spec
    out = console.out()
    out.print(chosen.title, style="bold", soft_wrap=True)
    facts = {"": spec.summary if chosen.path is None else ""}
    if description.dataset is not None:
        facts["classes"] = _classes_text(description.dataset.class_names)
    facts |= {"where": description.folder, "paper": spec.source}
    if provision is not None:
        facts |= {"homepage": provision.homepage, "license": provision.license}
    print_facts(facts)
    if description.is_here:
        classes = len(description.dataset.class_names) if description.dataset else 0
        out.print("")
        out.print(splits_table(description.splits, classes))
        out.print(f"\nnext: fgvc train {chosen.arguments('--dataset')}", soft_wrap=True)
        out.print(f"      fgvc data check {chosen.arguments()}", soft_wrap=True)
    elif provision is not None:
        _show_missing(provision, chosen.arguments())


def splits_table(splits: Sequence[SplitCounts], classes: int) -> Table:
    """Make a table of the images by split; `classes` of the dataset."""
    table = plain_table("split", "images:", "classes:", "images of a class", "origin")
    for counts in splits:
        present = str(counts.classes) if counts.classes == classes else f"{counts.classes} of {classes}"
        table.add_row(counts.name, str(counts.total), present, counts.spread, counts.origin)
    return table


def show_stores(stores: Sequence[StoreInfo], limit: int, cache: Path) -> None:
    """Print the stores of the decode cache, newest use first, their sum and what it may come to."""
    out = console.out()
    if stores:
        table = plain_table("data", "kept as", "images:", "size:", "last used", whole_names=False)
        for store in stores:
            row = (str(store.images), bytes_text(store.bytes), age_text(time.time() - store.used))
            table.add_row(store.data, store.rendition, *row)
        out.print(table)
        out.print("")
    total = sum(store.bytes for store in stores)
    out.print(f"decode cache: {bytes_text(total)} of at most {bytes_text(limit)}, in {cache}", soft_wrap=True)
    if stores:
        out.print("next: fgvc data cache --clear", soft_wrap=True)


def plain_table(*headings: str, whole_names: bool = True) -> Table:
    """Make a table; a heading that ends in a colon is over a column of figures.

    Args:
        headings: of the columns.
        whole_names: whether the first column, which must then be narrow, is never broken.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, heading in enumerate(headings):
        is_figure = heading.endswith(":")
        table.add_column(
            heading.rstrip(":"),
            justify="right" if is_figure else "left",
            overflow="fold",
            no_wrap=is_figure or (whole_names and index == 0),
        )
    return table


def print_facts(facts: dict[str, str]) -> None:
    """Print facts under each other, those that are not known left out."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            grid.add_row(name, value)
    console.out().print(grid)


def age_text(seconds: float) -> str:
    """Say how long ago something was: "just now", "5 minutes ago", "3 days ago"."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count > 0:
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def _here(standing: Standing) -> str:
    if standing.state == "missing" and standing.provision is not None:
        downloads = standing.provision.downloads
        size = sum(download.bytes for download in downloads)
        return "no: by hand" if not downloads else f"no: {bytes_text(size)}" if size else "no: download"
    return {"here": "yes", "made when opened": "made when used", "with --data": "with --data"}.get(
        standing.state, standing.state
    )


def _where(standing: Standing, root: Path) -> str:
    if standing.provision is None:
        return ""
    folder = standing.provision.folder
    return f"{folder.relative_to(root)}/" if folder.is_relative_to(root) else str(folder)


def _classes_text(names: Sequence[str]) -> str:
    more = f", ... ({names[-1]})" if len(names) > 4 else ""
    return f"{len(names)}: {', '.join(names[:3] if more else names)}{more}"


def _show_missing(provision: Provision, name: str) -> None:
    from fgvc_cli.data.acquisition.plan import amount_text, by_hand_lines, host_of, size_text, wanted

    out = console.out()
    missing = provision.missing()
    more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
    out.print(f"\nIt is not here: {', '.join(missing[:8])}{more} missing.", soft_wrap=True)
    downloads = wanted(provision)
    if not downloads:
        out.print("There is no link to it.\n")
        for line in by_hand_lines(provision):
            out.print(line, soft_wrap=True)
        return
    out.print(f"fgvc data prepare downloads {amount_text(downloads)}:\n", soft_wrap=True)
    table = plain_table("file", "size:", "from")
    for download in downloads:
        table.add_row(download.file, size_text(download), host_of(download))
    out.print(table)
    if provision.by_hand:
        out.print(f"\nby hand:\n  {provision.by_hand.strip()}", soft_wrap=True)
    out.print(f"\nnext: fgvc data prepare {name}", soft_wrap=True)


def store_rows(stores: Sequence[StoreInfo], limit: int, cache: Path) -> dict[str, Any]:
    """Return what `fgvc data cache --json` prints."""
    return {
        "cache": cache,
        "limit": limit,
        "bytes": sum(store.bytes for store in stores),
        "stores": list(stores),
    }


UNREADABLE = 20
"""How many unreadable images are listed."""

EXAMPLES = 5
"""How many examples are listed of what is merely noted."""


def show_check(report: CheckReport, title: str) -> None:
    """Print the images by split, those that cannot be read, and what is odd about the others."""
    out = console.out()
    out.print(title, style="bold", soft_wrap=True)
    out.print("")
    out.print(splits_table(report.splits, len(report.class_names)))
    for line in [*_unreadable(report), *_leaks(report), *_notes(report)]:
        out.print(line, soft_wrap=True)
    if not report.complete:
        out.print(f"\nInterrupted: {report.checked} of {report.total} images were checked, and no files compared.")
    elif not report.unreadable:
        out.print(f"\nAll {report.total} images can be read.")


def _unreadable(report: CheckReport) -> Iterator[str]:
    found = report.unreadable
    if not found:
        return
    yield f"\n{len(found)} of {report.checked} images cannot be read:"
    yield from _listed(found, UNREADABLE)
    yield "Training and evaluation leave these out and name them; with --strict-data they stop. Mend or delete them."


def _leaks(report: CheckReport) -> Iterator[str]:
    for (one, other), groups in report.shared().items():
        yield f"\n{one} and {other} share {_count(len(groups), 'image')}: figures on {other} will be too good."
        yield from _groups(groups)
    for name, groups in report.repeated().items():
        yield f"\n{_count(len(groups), 'image')} in {name} more than once:"
        yield from _groups(groups)
    contradictory = report.contradictory()
    if contradictory:
        yield f"\n{_count(len(contradictory), 'image')} under more than one class: some labels must be wrong."
        yield from _groups(contradictory)


def _notes(report: CheckReport) -> Iterator[str]:
    from fgvc_cli.data.acquisition.check import FEW_IMAGES, ODD_RATIO, SMALL_SIDE

    if report.small:
        yield f"\n{_count(len(report.small), 'image')} under {SMALL_SIDE} px:"
        yield from _listed(report.small, EXAMPLES)
    if report.odd:
        yield f"\n{_count(len(report.odd), 'image')} more than {ODD_RATIO:g} times as long as wide, or as wide as long:"
        yield from _listed(report.odd, EXAMPLES)
    few = report.few()
    if few:
        shown = ", ".join(f"{name} ({count})" for name, count in list(few.items())[:EXAMPLES])
        yield f"\n{_count(len(few), 'class', 'classes')} with under {FEW_IMAGES} images in train: {shown}{_more(few)}"


def _listed(found: Sequence[Noted], limit: int) -> Iterator[str]:
    for noted in found[:limit]:
        yield f"  {_name(noted.place)}: {noted.what}"
    if len(found) > limit:
        yield f"  and {len(found) - limit} more (--json lists all)"


def _groups(groups: Sequence[Sequence[Place]]) -> Iterator[str]:
    for group in groups[:EXAMPLES]:
        yield f"  {' = '.join(_name(place) for place in group[:4])}{' = ...' if len(group) > 4 else ''}"
    if len(groups) > EXAMPLES:
        yield f"  and {len(groups) - EXAMPLES} more (--json lists all)"


def _name(place: Place) -> str:
    return f"{place.split}: {place.key}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _more(found: Sequence[object] | dict[str, int]) -> str:
    return f" and {len(found) - EXAMPLES} more" if len(found) > EXAMPLES else ""
