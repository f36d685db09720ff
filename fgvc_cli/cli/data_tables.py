"""Tables of datasets, their checks, and the decode cache."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc_cli.cli import console
from fgvc_cli.formatting import bytes_text, counted

if TYPE_CHECKING:
    from rich.table import Table

    from fgvc_cli.contracts import Provision
    from fgvc_cli.data.acquisition.check import CheckReport, Finding, ImageRef
    from fgvc_cli.data.acquisition.describe import DatasetStatus, Description, SplitCounts
    from fgvc_cli.data.cache.index import CacheInfo

UNREADABLE = 20
"""Maximum number of unreadable images to list."""

EXAMPLES = 5
"""Maximum number of examples to list of other findings."""


def status_json(status: DatasetStatus) -> dict[str, Any]:
    """Return the JSON form of a dataset's status, with the option that names a dataset of the user's own."""
    names = {"generated": "made when opened", "own": "with --data"}
    return {**status.as_json(), "state": names.get(status.state, status.state)}


def show_all(statuses: Sequence[DatasetStatus], root: Path) -> None:
    """Print a table of all datasets, the data root, and the next command."""
    table = console.table("name", "summary", "available", "folder", whole=["name"])
    for status in statuses:
        table.add_row(status.component.name, status.component.spec.summary, _available(status), _folder(status, root))
    out = console.out()
    out.print(table)
    out.print(f"\ndata root: {root} (--data-root, FGVC_DATA)", soft_wrap=True)
    for status in statuses:
        if status.fault:
            console.warn(status.fault)
    missing = [status.component.name for status in statuses if status.state == "missing"]
    out.print(f"next: fgvc data info {missing[0] if missing else statuses[0].component.name}" if statuses else "")


def show_description(description: Description, arguments: str) -> None:
    """Print a dataset's facts and its splits, or what is missing and how to get it.

    `arguments` name the dataset on the command line.
    """
    chosen, provision = description.chosen, description.provision
    spec = chosen.component.spec
    out = console.out()
    out.print(chosen.title, style="bold", soft_wrap=True)
    facts = {"": spec.summary if chosen.path is None else ""}
    if description.dataset is not None:
        names = description.dataset.class_names
        more = f", ... ({names[-1]})" if len(names) > 4 else ""
        facts["classes"] = f"{len(names)}: {', '.join(names[:3] if more else names)}{more}"
    facts |= {"folder": description.folder, "paper": spec.source}
    if provision is not None:
        facts |= {"homepage": provision.homepage, "license": provision.license}
    console.print_facts(facts)
    if description.dataset is not None:
        out.print("")
        out.print(splits_table(description.splits, len(description.dataset.class_names)))
        option = "" if chosen.path is not None else "--dataset "
        out.print(f"\nnext: fgvc train {option}{arguments}", soft_wrap=True)
        out.print(f"      fgvc data check {arguments}", soft_wrap=True)
    elif provision is not None:
        _show_missing(provision, arguments)


def splits_table(splits: Sequence[SplitCounts], classes: int) -> Table:
    """Return a table of the images per split; `classes` is the number of classes of the dataset."""
    table = console.table("split", "images:", "classes:", "images per class", "origin", whole=["split"])
    for counts in splits:
        present = len(counts.present)
        of_all = str(present) if present == classes else f"{present} of {classes}"
        table.add_row(counts.name, str(counts.total), of_all, counts.spread, counts.origin)
    return table


def show_caches(caches: Sequence[CacheInfo], limit: int, root: Path) -> None:
    """Print the decode caches, the last used first, with their total size and the limit."""
    out = console.out()
    if caches:
        table = console.table("data", "image size", "images:", "size:", "last used")
        for info in caches:
            age = age_text(time.time() - info.used)
            table.add_row(info.data, info.resize, str(info.images), bytes_text(info.bytes), age)
        out.print(table)
        out.print("")
    total = sum(info.bytes for info in caches)
    out.print(f"decode cache: {bytes_text(total)} of at most {bytes_text(limit)}, in {root}", soft_wrap=True)
    if caches:
        out.print("next: fgvc data cache --clear", soft_wrap=True)


def age_text(seconds: float) -> str:
    """Format an age: "just now", "5 minutes ago", "3 days ago"."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count > 0:
            return f"{counted(count, unit)} ago"
    return "just now"


def show_check(report: CheckReport, title: str) -> None:
    """Print the images per split and the findings of a check."""
    out = console.out()
    out.print(title, style="bold", soft_wrap=True)
    out.print("")
    out.print(splits_table(report.splits, len(report.class_names)))
    for line in _findings(report):
        out.print(line, soft_wrap=True)
    if not report.complete:
        out.print(f"\nInterrupted: {report.checked} of {report.total} images were checked, and no files compared.")
    elif not report.unreadable:
        other = f"; {sum(report.ignored.values())} other files are not images" if report.ignored else ""
        out.print(f"\nAll {report.total} images can be read{other}.")


def _findings(report: CheckReport) -> Iterator[str]:
    from fgvc_cli.data.acquisition.check import FEW_IMAGES, MAX_ASPECT_RATIO, SMALL_SIDE

    if report.unreadable:
        yield f"\n{len(report.unreadable)} of {report.checked} images cannot be read:"
        yield from _listed(report.unreadable, UNREADABLE)
        yield "Training and evaluation skip them with a warning, or stop with --strict-data. Fix or delete them."
    for (one, other), groups in report.shared().items():
        yield f"\n{one} and {other} share {counted(len(groups), 'image')}: results on {other} will be too good."
        yield from _groups(groups)
    for name, groups in report.repeated().items():
        yield f"\n{counted(len(groups), 'image')} more than once in {name}:"
        yield from _groups(groups)
    contradictory = report.contradictory()
    if contradictory:
        yield f"\n{counted(len(contradictory), 'image')} in more than one class: some labels must be wrong."
        yield from _groups(contradictory)
    if report.small:
        yield f"\n{counted(len(report.small), 'image')} under {SMALL_SIDE} px:"
        yield from _listed(report.small, EXAMPLES)
    if report.odd:
        yield f"\n{counted(len(report.odd), 'image')} with an aspect ratio over {MAX_ASPECT_RATIO:g}:"
        yield from _listed(report.odd, EXAMPLES)
    few = report.few()
    if few:
        shown = ", ".join(f"{name} ({count})" for name, count in list(few.items())[:EXAMPLES])
        more = f" and {len(few) - EXAMPLES} more" if len(few) > EXAMPLES else ""
        yield f"\n{counted(len(few), 'class', 'classes')} with under {FEW_IMAGES} training images: {shown}{more}"


def _listed(findings: Sequence[Finding], limit: int) -> Iterator[str]:
    for found in findings[:limit]:
        yield f"  {_name(found.image)}: {found.what}"
    if len(findings) > limit:
        yield f"  and {len(findings) - limit} more (--json lists all)"


def _groups(groups: Sequence[Sequence[ImageRef]]) -> Iterator[str]:
    for group in groups[:EXAMPLES]:
        yield f"  {' = '.join(_name(image) for image in group[:4])}{' = ...' if len(group) > 4 else ''}"
    if len(groups) > EXAMPLES:
        yield f"  and {len(groups) - EXAMPLES} more (--json lists all)"


def _name(image: ImageRef) -> str:
    return f"{image.split}: {image.key}"


def _available(status: DatasetStatus) -> str:
    if status.state == "missing" and status.provision is not None:
        downloads = status.provision.downloads
        size = sum(download.bytes for download in downloads)
        return "no: by hand" if not downloads else f"no: {bytes_text(size)}" if size else "no: download"
    return {"here": "yes", "generated": "generated", "own": "with --data"}.get(status.state, status.state)


def _folder(status: DatasetStatus, root: Path) -> str:
    if status.provision is None:
        return ""
    folder = status.provision.folder
    return f"{folder.relative_to(root)}/" if folder.is_relative_to(root) else str(folder)


def _show_missing(provision: Provision, arguments: str) -> None:
    from fgvc_cli.data.acquisition.plan import amount_text, host_of, manual_lines, pending_downloads, size_text

    out = console.out()
    missing = provision.missing()
    more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
    out.print(f"\nMissing: {', '.join(missing[:8])}{more}", soft_wrap=True)
    downloads = pending_downloads(provision)
    if not downloads:
        out.print("There is no download link.\n")
        for line in manual_lines(provision):
            out.print(line, soft_wrap=True)
        return
    out.print(f"fgvc data prepare downloads {amount_text(downloads)}:\n", soft_wrap=True)
    table = console.table("file", "size:", "from", whole=["file"])
    for download in downloads:
        table.add_row(download.file, size_text(download), host_of(download))
    out.print(table)
    if provision.by_hand:
        out.print(f"\nby hand:\n  {provision.by_hand.strip()}", soft_wrap=True)
    out.print(f"\nnext: fgvc data prepare {arguments}", soft_wrap=True)
