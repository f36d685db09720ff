"""Measure the memory of processes that train on shards with an index of a million images.

Writes 20,000 tiny images to tar files, links them under 50 names, indexes all, and reads 20,000 images in random order
with loader processes, as training does. Prints the resident set of the main process after each step, and the unique set
(memory that is not shared) of each loader process while it reads.

    python benchmarks/shard_memory.py FOLDER [--copies 50]
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts import Preprocessing
from fgvc_cli.data.acquisition.indexing import index_shards
from fgvc_cli.data.identity import DataIdentity
from fgvc_cli.data.loading import TrainingLoader
from fgvc_cli.data.opening import open_dataset
from fgvc_cli.registry import get_registry
from fgvc_datasets.options import ShardsOptions

IMAGES, SHARDS, CLASSES, WORKERS, BATCH = 20_000, 20, 1_000, 2, 64


def write_shards(folder: Path) -> None:
    """Write `IMAGES` JPEGs of 16 px into `SHARDS` tar files."""
    rng = np.random.default_rng(0)
    for shard in range(SHARDS):
        with tarfile.open(folder / f"train-00-{shard:03}.tar", "w") as tar:
            for i in range(shard, IMAGES, SHARDS):
                file = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(file, "JPEG")
                info = tarfile.TarInfo(f"{i % CLASSES:04}/{i:06}.jpg")
                info.size = len(file.getvalue())
                tar.addfile(info, io.BytesIO(file.getvalue()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--copies", type=int, default=50)
    arguments = parser.parse_args()
    folder, this = arguments.folder, psutil.Process()
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()

    def report(what: str) -> None:
        size = this.memory_info().rss / 2**20
        print(f"{time.perf_counter() - start:7.1f} s  {size:7.0f} MB  {what}", flush=True)

    report("imported")
    if not (folder / "index.shards").exists():
        write_shards(folder)
        for copy in range(1, arguments.copies):
            for path in folder.glob("train-00-*.tar"):
                os.link(path, folder / path.name.replace("-00-", f"-{copy:02}-"))
        report("shards written")
        index_shards(str(folder), None, None, get_registry())
        report(f"indexed: {(folder / 'index.shards').stat().st_size / 2**20:.1f} MB")
    registry = get_registry()
    dataset = open_dataset(registry.find("dataset", "shards"), ShardsOptions(), folder / "index.shards", 0)
    report("opened")
    split = dataset.split("train")
    report(f"split of {len(split):,} images")
    DataIdentity.of(dataset)
    report("identity recorded")
    preprocessing = Preprocessing(32, 36, (0.5,) * 3, (0.5,) * 3)
    loader = TrainingLoader(split, preprocessing, AugmentOptions(), BATCH, 0, WORKERS, pin_memory=False)
    read = 0
    for batch in loader.epoch(0):
        read += len(batch.labels)
        if read % (BATCH * 50) == 0 or read == BATCH:
            own = [child.memory_full_info().uss / 2**20 for child in this.children()]
            report(f"{read:,} images read; loader processes: {', '.join(f'{size:.0f}' for size in own)} MB unique")
        if read >= IMAGES:
            break
    loader.close()


if __name__ == "__main__":
    main()
