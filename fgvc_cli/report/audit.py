"""Audit a dataset and write the results: the page and the CSV file."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from fgvc_cli import files
from fgvc_cli.auditing.audit import AuditRequest, audit_dataset
from fgvc_cli.auditing.findings import Audit
from fgvc_cli.data.acquisition.select import ChosenDataset, choose_dataset
from fgvc_cli.errors import UsageError
from fgvc_cli.files import check_writable
from fgvc_cli.registry import get_registry
from fgvc_cli.report.audit_page import audit_page, next_commands
from fgvc_cli.runs.folder import Run
from fgvc_cli.scoring.model import InferenceSettings

CSV, PAGE = "audit.csv", "audit.html"

IMAGES = 12
"""Default number of findings of each problem that the page shows with pictures."""


def audit(
    *,
    data: str | PathLike[str] | None = None,
    dataset: str | None = None,
    split: str | None = None,
    exclude: str | PathLike[str] | None = None,
    run: Run | str | PathLike[str] | None = None,
    backbone: str | None = None,
    weights: str | None = None,
    image_size: int | None = None,
    offline: bool = False,
    out: str | PathLike[str] | None = None,
    force: bool = False,
    images: int = IMAGES,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 32,
    workers: int = -1,
) -> Audit:
    """Find what is wrong with the photographs of a dataset, as `fgvc audit` does.

        found = fgvc.audit(data="photos/", out="audit-photos")
        found.leaks, found.of("label")

    Args:
        data: folder with one folder per class, or a CSV or TSV file.
        dataset: name of a dataset; instead of `data`.
        split: the only split to audit; the default is all.
        exclude: CSV file of images to leave out, such as that of an earlier audit.
        run: a run, its folder, or a `model.safetensors`: its predictions judge the labels of splits that it was not
            trained on.
        backbone: name of the backbone of the embeddings; the default is the run's, or else "efficientnet_lite0" if its
            weights are on this machine.
        weights: of the backbone: "auto", "imagenet" (the default), "none", a file, or a tag of its published weights.
        image_size: side of the images for the backbone, in pixels; the default is 224.
        offline: download nothing.
        out: folder for the page and the CSV file; by default nothing is written.
        force: write into `out` even if it exists.
        images: maximum number of findings of each problem that the page shows with pictures.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "fp32" or "bf16".
        batch_size: images per forward pass.
        workers: processes that decode images; -1: one per core, 0: this one.

    Raises:
        UsageError: no dataset is named, or an argument is wrong (also a `ValueError`).
        FgvcError: a package of the extra `audit`, images, the run or weights are missing.
    """
    path = None if data is None else Path(data)
    chosen = choose_dataset(dataset, path, [], get_registry(), None if exclude is None else Path(exclude))
    settings = InferenceSettings(device, precision, batch_size, workers)
    of_run = None if run is None else Path(run)
    request = AuditRequest(split, of_run, backbone, weights, image_size, offline, settings)
    folder = None if out is None else check_out(Path(out), force)
    found = audit_dataset(chosen, request, get_registry())
    if folder is not None:
        write_audit(found, chosen, folder, images)
    return found


def check_out(folder: Path, force: bool) -> Path:
    """Return a folder for the results, after checking that it can be written.

    Raises:
        UsageError: it is a file, or has results and `force` is not set.
        FgvcError: it cannot be written.
    """
    if folder.is_file():
        raise UsageError(f"`out={folder}` is a file; name a folder")
    if any((folder / name).exists() for name in (CSV, PAGE)) and not force:
        raise UsageError(f"`out={folder}` has an audit; choose another folder, or replace it with `force`")
    check_writable(folder, "The audit")
    return folder


def write_audit(found: Audit, chosen: ChosenDataset, folder: Path, images: int = IMAGES) -> tuple[Path, Path]:
    """Write the CSV file and the page of an audit, and return their paths.

    Raises:
        FgvcError: they cannot be written.
    """
    csv, page = folder / CSV, folder / PAGE
    folder.mkdir(parents=True, exist_ok=True)
    found.write_csv(csv)
    document = audit_page(found, images, next_commands(chosen.component.name, chosen.path, csv)).html()
    files.write_bytes(page, document.encode(errors="replace"))
    return csv, page
