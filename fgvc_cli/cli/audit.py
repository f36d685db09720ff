"""`fgvc audit`: find what is wrong with the photographs of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli import console
from fgvc_cli.cli.common_options import component_option, option
from fgvc_cli.cli.tables import next_lines, print_title
from fgvc_cli.formatting import counted, quoted

if TYPE_CHECKING:
    from fgvc_cli.auditing.findings import Audit, Finding

EXAMPLE = "fgvc audit --data photos/ --run runs/RUN"
IMAGES, NETWORK, RESULTS = "Images", "Embeddings and predictions", "Results"

SHOWN = 3
"""Number of findings of each problem that are printed."""


def audit(
    data: Annotated[
        Path | None, option(IMAGES, "Folder of class folders, or CSV or TSV of path and label.", default=False)
    ] = None,
    dataset: Annotated[str | None, component_option("dataset", IMAGES, "Dataset, by name.", False)] = None,
    set_: Annotated[
        list[str] | None, common.set_option(IMAGES, "An option of the dataset, as dataset.option=value.")
    ] = None,
    split: Annotated[str | None, common.split_option(IMAGES, "audit", "all")] = None,
    exclude: Annotated[Path | None, common.exclude_option(IMAGES)] = None,
    run: Annotated[
        Path | None,
        option(
            NETWORK,
            "Run folder or model.safetensors whose predictions judge labels outside of train.",
            default="cross-validated logistic regression",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        component_option("backbone", NETWORK, "Backbone of the embeddings.", "the run's, else efficientnet_lite0"),
    ] = None,
    weights: Annotated[
        str | None,
        option(NETWORK, "With --backbone: auto, imagenet, none, a file, or a published tag.", default="imagenet"),
    ] = None,
    image_size: Annotated[
        int | None, option(NETWORK, "With --backbone: side of the images in pixels.", default="224", min=16, max=8192)
    ] = None,
    offline: Annotated[bool, option(NETWORK, "Download nothing.", "--offline")] = False,
    device: common.Device = "auto",
    precision: common.Precision = "auto",
    batch_size: common.BatchSize = 32,
    workers: common.Workers = -1,
    out: Annotated[
        Path | None, option(RESULTS, "Folder for audit.html and audit.csv.", default="audit-NAME of the dataset")
    ] = None,
    force: Annotated[bool, option(RESULTS, "Replace the audit in --out.", "--force")] = False,
    images: Annotated[
        int, option(RESULTS, "Maximum number of findings of each problem with pictures on the page.", min=0, max=1000)
    ] = 12,
    json: Annotated[bool, option(RESULTS, "Print the findings as JSON.", "--json")] = False,
) -> None:
    """Find copies across splits, wrong labels, and odd or unusable photographs.

    Copies are found by perceptual hashes and embeddings, label errors by confident learning on held-out predictions.

    Writes a page with pictures, and a CSV file for --exclude of fgvc train, evaluate, data and audit.

    Needs pip install "fgvc-cli[audit]".

    """
    from fgvc_cli.auditing.audit import AuditRequest, audit_dataset
    from fgvc_cli.data.acquisition.select import choose_dataset
    from fgvc_cli.registry import get_registry
    from fgvc_cli.report.audit import check_out, write_audit
    from fgvc_cli.scoring.model import InferenceSettings

    chosen = choose_dataset(dataset, data, set_ or [], get_registry(), exclude)
    name = chosen.component.name if chosen.path is None else chosen.path.stem
    inference = InferenceSettings(device, precision, batch_size, workers)
    request = AuditRequest(split, run, backbone, weights, image_size, offline, inference)
    folder = check_out(out or Path(f"audit-{name}"), force)  # creates it
    found = audit_dataset(chosen, request, get_registry())
    csv, page = write_audit(found, chosen, folder, images)
    if json:
        console.print_json(found.as_json())
    else:
        _show(found, csv, page)


def _show(found: Audit, csv: Path, page: Path) -> None:
    """Print the main result, counts by split, examples, and where the rest is."""
    from fgvc_cli.auditing.findings import PROBLEMS
    from fgvc_cli.report.audit_page import leak_sentences

    out = console.out()
    for sentence in leak_sentences(found):
        out.print(sentence, style="bold", soft_wrap=True)
    for note in found.notes:
        console.note(note)
    excluded = {problem: sum(finding.exclude for finding in found.of(problem)) for problem in found.by_split}
    table = console.table("problem", *(f"{name}:" for name in found.images), "excluded:")
    for problem, counts in found.by_split.items():
        cells = [str(counts[name]) if counts[name] else "" for name in found.images]
        table.add_row(PROBLEMS[problem], *cells, str(excluded[problem]) if excluded[problem] else "")
    if found.findings:
        out.print("")
        out.print(table)
    else:
        out.print("Nothing was found.")
    for problem in found.by_split:
        print_title(PROBLEMS[problem])
        findings = found.of(problem)
        for finding in findings[:SHOWN]:
            out.print(f"  {_line(finding)}", soft_wrap=True)
        if len(findings) > SHOWN:
            out.print(f"  and {len(findings) - SHOWN} more")
    if found.findings:
        worst = [f"{name} ({counts.total()})" for name, counts in list(found.by_class.items())[:5]]
        out.print(f"\nclasses with the most findings: {', '.join(worst)}", soft_wrap=True)
    out.print(f"page: {quoted(str(page))}", soft_wrap=True)
    out.print(f"table: {quoted(str(csv))}, excludes {counted(found.excluded, 'image')}", soft_wrap=True)
    data = f"--data {quoted(found.data)}" if Path(found.data).exists() else f"--dataset {found.data}"
    for line in next_lines([f"fgvc train {data} --exclude {quoted(str(csv))}"] if found.excluded else []):
        out.print(line, soft_wrap=True)


def _line(finding: Finding) -> str:
    image, other = finding.image, finding.other
    if other is None:
        return f"{image.split}: {image.key}: {finding.detail}"
    return f"{image.split}: {image.key} = {other.split}: {other.key} ({finding.detail}, {finding.score:.3f})"
