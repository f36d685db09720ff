"""Write the index that a dataset is read from, for `fgvc data index`."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import Any, cast

from fgvc_cli.data.opening import reported_progress
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.registry import Registry, get_registry
from fgvc_cli.registry.records import import_name
from fgvc_cli.specs import DatasetSpec


def index_shards(
    source: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    classes: str | PathLike[str] | None = None,
    registry: Registry | None = None,
) -> Path:
    """Index tar files of images, and return the path of the index, which can be given as `data`.

        fgvc.train(data=fgvc.index_shards("shards/"))

    Args:
        source: folder or URL of the files, or their names with a range, such as "train-{000000..000099}.tar".
        out: path of the index; None: `index.shards` in the folder, or in the working directory for a URL.
        classes: file with the class names, if the files have numbers.
        registry: has the dataset that reads the index; None: the installed plugins.

    Raises:
        UsageError: `out` has a suffix that the dataset does not read.
        FgvcError: there are no such files, or they cannot be used.
    """
    registered = get_registry() if registry is None else registry
    specs = [cast(DatasetSpec, component.spec) for component in registered.components("dataset")]
    spec = next((spec for spec in specs if spec.index), None)
    if spec is None:
        raise FgvcError("no installed dataset reads an index of shards")
    path = None if out is None else Path(out)
    if path is not None and path.suffix not in spec.reads_files:
        raise UsageError(f"`out={out}`: the name of an index ends in {', '.join(spec.reads_files)}")
    if path is not None and not path.absolute().parent.is_dir():
        raise UsageError(f"`out={out}`: no such folder: {path.absolute().parent}")
    names = None if classes is None else Path(classes)
    write: Any = import_name(spec.index)
    with reported_progress() as progress:
        written: Path = write(source=fspath(source), out=path, classes=names, progress=progress)
    return written
