"""Memory of the parent and the worker processes does not grow from epoch to epoch."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fgvc_cli.contracts import Split

EPOCHS = """
import json, multiprocessing, sys
from pathlib import Path
from fgvc_cli.contracts import Preprocessing, Split
from fgvc_cli.config.train_options import AugmentOptions, TrainOptions
from fgvc_cli.data.loading import EvaluationLoader, TrainingLoader
from fgvc_cli.data.cache import environment, store
from fgvc_cli.data.images import CachedResize
from fgvc_cli.data.cache.store import CachedImages, DecodeCache

def own_memory():  # anonymous memory of this process and its workers, bytes
    pids = ["self", *(child.pid for child in multiprocessing.active_children())]
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return [1024 * int(text.partition("RssAnon:")[2].split()[0]) for text in texts]

store.PATIENCE, store.SLOW = 60.0, 60.0
folder, photographs = map(Path, sys.argv[1:])
paths = sorted(photographs.iterdir())
split = Split("train", paths, [i % 2 for i in range(len(paths))], [path.name for path in paths])
preprocessing = Preprocessing(224, 256, (.5,) * 3, (.2,) * 3)
environment.create(folder)
cached = CachedImages(DecodeCache(folder, 2**30), CachedResize.of_preprocessing(preprocessing), paths)
train = TrainingLoader(split, preprocessing, AugmentOptions(), 8, 0, 2, False, cached=cached)
val = EvaluationLoader(split, preprocessing, 8, 0, False, cached=cached)
memory = []
for epoch in range(96):
    for loader in (train.epoch(epoch), val):
        for batch in loader:
            assert len(batch.labels)
    memory.append(own_memory())
assert cached.count() == len(paths)
train.close()
print(json.dumps(memory))
"""


INDEX = """
import sys
from pathlib import Path
from fgvc_cli.contracts import Preprocessing
from fgvc_cli.config.train_options import AugmentOptions, TrainOptions
from fgvc_cli.data.loading import EvaluationLoader, TrainingLoader
from fgvc_cli.data.opening import open_dataset
from fgvc_cli.data.splits import training_splits
from fgvc_cli.data.cache.policy import training_cache
from fgvc_cli.registry import get_registry

def own_memory():
    return 1024 * int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0])

folder = get_registry().find("dataset", "folder")
preprocessing, augment = Preprocessing(32, 36, (.5,) * 3, (.2,) * 3), AugmentOptions()
before = own_memory()
dataset = open_dataset(folder, folder.options_type()(), Path(sys.argv[1]), 0)
splits = training_splits(dataset, TrainOptions())
dataset.identity()
cache = training_cache("on", dataset, splits.train, splits.val, preprocessing, augment)
train = TrainingLoader(splits.train, preprocessing, augment, 64, 0, 0, False, cached=cache.train)
val = EvaluationLoader(splits.val, preprocessing, 64, 0, False, cached=cache.val)
next(train.epoch(0)), next(iter(val))
assert len(cache.train) + len(cache.val) == 100_000
print(own_memory() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from Linux's /proc")
def test_100_000_images_take_little_memory_from_the_folder_to_the_first_batches(tmp_path: Path) -> None:
    image = tmp_path / "image.bin"
    for number in range(100_000):
        if number % 20_000 == 0:  # the number of hard links per file is limited
            image = tmp_path / f"image-{number}.bin"
            Image.new("RGB", (48, 40)).save(image, "JPEG")
        folder = tmp_path / "photographs" / f"class {number // 500:03d} of a long name"
        if number % 500 == 0:
            folder.mkdir(parents=True)
        (folder / f"photograph-{number:06d}.jpg").hardlink_to(image)
    arguments = [sys.executable, "-c", INDEX, str(tmp_path / "photographs")]
    run = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120)
    assert int(run.stdout) < 300e6


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from Linux's /proc")
def test_memory_does_not_grow_from_epoch_to_epoch(photographs: Callable[..., Split], tmp_path: Path) -> None:
    split = photographs(96)
    (tmp_path / "store").mkdir()
    arguments = [sys.executable, "-c", EPOCHS, str(tmp_path / "store"), str(Path(split.images[0]).parent)]
    run = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120)
    memory = json.loads(run.stdout)
    assert len(memory) == 96 and all(len(processes) == 3 for processes in memory)
    for process in zip(*memory, strict=True):
        # The allocator fluctuates by up to 16 MB; a leak of one image per batch would take over 80 MB.
        early, late = statistics.median(process[24:48]), statistics.median(process[72:])
        assert late - early < 30e6, process
