"""`fgvc embed`: compute the embeddings of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli import console
from fgvc_cli.cli.common_options import component_option, option
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.formatting import counted

if TYPE_CHECKING:
    from fgvc_cli.contracts import Split

EXAMPLE = "fgvc embed photos/ --backbone efficientnet_lite0 --out embeddings.parquet"
IMAGES, NETWORK, RESULTS = "Images", "Backbone", "Results"


def embed(
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="IMAGES", help="Image files, and folders to search for images.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, option(RESULTS, "File to write: .parquet, .npz or .csv. (required)", default=False)
    ] = None,
    force: Annotated[bool, option(RESULTS, "Replace an existing file.", "--force")] = False,
    data: Annotated[
        Path | None,
        option(IMAGES, "Folder of class folders, or CSV or TSV of path and label, instead of IMAGES.", default=False),
    ] = None,
    dataset: Annotated[str | None, component_option("dataset", IMAGES, "Dataset, by name.", False)] = None,
    run: Annotated[
        Path | None,
        option(NETWORK, "Run folder or model.safetensors whose backbone to use.", default="the latest finished run"),
    ] = None,
    backbone: Annotated[
        str | None, component_option("backbone", NETWORK, "Backbone to use instead, by name.", False)
    ] = None,
    weights: Annotated[
        str | None,
        option(NETWORK, "With --backbone: auto, imagenet, none, a file, or a published tag.", default="auto"),
    ] = None,
    image_size: Annotated[
        int | None, option(NETWORK, "With --backbone: side of the images in pixels.", default="224", min=16, max=8192)
    ] = None,
    offline: Annotated[bool, option(NETWORK, "Download nothing.", "--offline")] = False,
    device: common.Device = "auto",
    precision: common.Precision = "auto",
    batch_size: common.BatchSize = 32,
    workers: common.Workers = -1,
) -> None:
    """Compute the embeddings of images and write them to a file.

    The file has a row per image: its path, its class and split if they are known, and the embedding. Images that cannot
    be read are reported and skipped.

    Exit code 3: some images were skipped; 1: all were.

    """
    from fgvc_cli.evaluation import embedding
    from fgvc_cli.evaluation.embedding_files import check_path, embedding_file
    from fgvc_cli.registry import get_registry
    from fgvc_cli.scoring.model import InferenceSettings, find_model, run_of

    if out is None:
        raise UsageError("`out` is missing: name a file that ends in .parquet, .npz or .csv")
    check_path(out, force)
    splits, class_names, failures = _splits(images or [], data, dataset)
    inference = InferenceSettings(device, precision, batch_size, workers)
    if backbone is None:
        run = find_model(run)
        console.note(f"run        {run_of(run)}")
    embedder = embedding.open_embedder(run, backbone, weights, image_size, inference, get_registry(), offline)
    total, count = sum(map(len, splits)) + len(failures), 0
    with embedding_file(out, embedder.width, force) as file, console.progress("embed", total) as bar:
        for split in splits:
            for batch in embedder.batches(split):
                file.write(embedding.labeled_rows(split, class_names, batch.indices), batch.embeddings)
                bar.advance(len(batch.indices))
                count += len(batch.indices)
            failures |= embedder.failures
        if not count:
            raise FgvcError("no image could be read, see above")
    console.out().print(
        f"written: {out} ({counted(count, 'image')}, embeddings of {embedder.width} values)", soft_wrap=True
    )
    if failures:
        console.warn(f"skipped {len(failures)} of {counted(total, 'image')}, see above")
        raise typer.Exit(3)


def _splits(
    images: Sequence[Path], data: Path | None, dataset: str | None
) -> tuple[list[Split], Sequence[str], dict[str, str]]:
    """Return the images as splits, the class names (none for plain files), and why a path has no image."""
    from fgvc_cli.contracts import Split
    from fgvc_cli.data.acquisition.select import choose_dataset
    from fgvc_cli.data.inputs import find_inputs
    from fgvc_cli.registry import get_registry

    named = data is not None or dataset is not None
    if bool(images) == named:
        raise UsageError("give either IMAGES, or a dataset with `data` or `dataset`")
    if named:
        opened = choose_dataset(dataset, data, [], get_registry()).open()
        return [opened.split(name) for name in opened.splits()], opened.class_names, {}
    found, failures = find_inputs(images)
    for path, reason in failures.items():
        console.warn(f"skipping {path}: {reason}")
    return [Split("images", found, [0] * len(found), [str(path) for path in found])], (), failures
