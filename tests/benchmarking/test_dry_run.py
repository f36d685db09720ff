"""A timed epoch runs the trainer's own updates within the time limit, and leaves nothing behind."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fgvc_cli import settings as program
from fgvc_cli.benchmarking import dry_run
from fgvc_cli.benchmarking.dry_run import LOCK_FILE, PREFIX, scratch_folder
from fgvc_cli.config.run_config import RunConfig, resolve
from fgvc_cli.data.cache import index as listing
from fgvc_cli.data.staging import Staging
from fgvc_cli.errors import FgvcError
from fgvc_cli.files import FileLock
from fgvc_cli.registry import get_registry
from fgvc_cli.training.setup import open_cache
from fgvc_cli.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("whole_cache")
CLASSES, EACH = ("blue", "green", "red"), 6
IMAGES = len(CLASSES) * EACH


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory, make_photographs: Callable[..., Path]) -> Path:
    """Class folders of noise in train and val."""
    folders = [f"{split}/{name}" for split in ("train", "val") for name in CLASSES]
    return make_photographs(tmp_path_factory.mktemp("birds"), EACH, *folders)


def config_of(data: Path, optimizer: dict[str, Any] | None = None, **train: Any) -> RunConfig:
    layer = {
        "backbone": {"name": "timm/test_resnet"},
        "head": {"name": "linear"},
        "optimizer": {"name": "sgd", **(optimizer or {})},
        "dataset": {"data": str(data)},
        "train": {"image_size": 32, "batch_size": 4, "device": "cpu", "workers": 0, **train},
    }
    return resolve([layer], "finetune", {"device": "cpu", "weights": "pretrained"}, get_registry())


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The indices of the images of each update, in order."""
    updates: list[list[int]] = []
    real = Staging.__call__

    def noted(self: Staging, batches: Any) -> Any:
        updates.append([int(index) for batch in batches for index in batch.indices])
        return real(self, batches)

    monkeypatch.setattr(Staging, "__call__", noted)
    return updates


def everything_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_a_whole_epoch_from_cached_images(
    birds: Path, decoded: list[Path], staged: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_run, "MAX_ROUNDS", 4)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    events: list[str] = []
    start_loader = dry_run.start_loader
    monkeypatch.setattr(dry_run, "start_loader", lambda trainer: (events.append("start_loader"), start_loader(trainer)))
    monkeypatch.setattr(dry_run, "synchronize", lambda device: events.append("wait"))
    work = dry_run.measure_epoch(config_of(birds), seconds=60.0)
    assert work.timing.rounds == 4 and torch.backends.cudnn.benchmark
    assert events == ["start_loader", "wait", "wait"] * (1 + 1 + work.timing.rounds)  # compiled, warmed up, timed
    assert work.images == IMAGES
    assert len(decoded) == IMAGES == len(set(decoded))  # each once, in the warm-up, and none of val
    batches = -(-IMAGES // 4)
    passes = [staged[1:][start : start + batches] for start in range(0, len(staged) - 1, batches)]
    assert len(passes) == 1 + work.timing.rounds and all(of == passes[0] for of in passes)
    assert sorted(index for update in passes[0] for index in update) == list(range(IMAGES))
    assert staged[0] == passes[0][0]
    assert work.images_per_second == pytest.approx(1000 * IMAGES / work.timing.median)
    assert work.ratio is None


def test_part_of_an_epoch_within_the_time_limit(birds: Path, decoded: list[Path], staged: list[list[int]]) -> None:
    work = dry_run.measure_epoch(config_of(birds, grad_accum_steps=2), seconds=0.0)
    assert (work.images, work.timing.rounds) == (8, 1)
    assert len(staged) == 3 and staged[0] == staged[1] == staged[2]  # begun, warmed up, timed
    assert len(decoded) == 8


def test_no_cache_if_it_is_off(birds: Path, decoded: list[Path]) -> None:
    work = dry_run.measure_epoch(config_of(birds, cache="off"), seconds=0.0)
    assert work.images == 4 and len(decoded) == 3 * 4


def test_workers_deliver_the_same_updates_in_every_pass(birds: Path, staged: list[list[int]]) -> None:
    config = config_of(birds, workers=2)
    with scratch_folder() as folder, dry_run.dry_run(dry_run.random_job(config), folder) as trainer:
        passes = [dry_run._run_updates(trainer, lambda updates, _: updates == 2) for _ in range(3)]
        assert len(multiprocessing.active_children()) == 2
    assert [(of.updates, of.images) for of in passes] == [(2, 8)] * 3
    assert staged[:2] == staged[2:4] == staged[4:]
    assert multiprocessing.active_children() == []


def test_updates_are_those_of_the_trainer(
    birds: Path, staged: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every update, with its metrics."""
    config, seen = config_of(birds), []

    def noted(trainer: Trainer) -> Any:
        for images in real(trainer):
            seen.append((images, trainer.metrics.images, trainer.progress.batch))
            yield images

    real = Trainer.updates_of_epoch
    monkeypatch.setattr(Trainer, "updates_of_epoch", noted)
    with scratch_folder() as folder, dry_run.dry_run(dry_run.random_job(config), folder) as trainer:
        assert dry_run._run_updates(trainer, lambda *_: False).images == IMAGES
        assert set(trainer.metrics.means()) >= {"objective", "loss", "top1"}
    assert seen == [(4, 4, 1), (4, 8, 2), (4, 12, 3), (4, 16, 4), (2, 18, 5)]


def test_a_large_learning_rate_does_not_break_random_weights(birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(birds, {"lr": 1e8}, warmup_steps=0, warmup_epochs=0.0)
    monkeypatch.setattr(dry_run, "MAX_ROUNDS", 2)
    assert dry_run.measure_epoch(config, seconds=60.0).images == IMAGES
    monkeypatch.setattr(dry_run, "WARMUP_STEPS", 0)
    with pytest.raises(FgvcError, match="not finite"):
        dry_run.measure_epoch(config, seconds=60.0)


def test_nothing_is_left_behind(birds: Path) -> None:
    cache = program.current().cache
    before = everything_below(birds)
    dry_run.measure_epoch(config_of(birds, workers=1), seconds=0.0)
    assert everything_below(birds) == before
    assert everything_below(cache) == set() and not program.current().runs.exists()
    assert multiprocessing.active_children() == []


def test_the_users_cache_is_not_touched(birds: Path) -> None:
    cache = program.current().cache
    job = dry_run.random_job(config_of(birds))
    with dry_run.dry_run(job, cache) as trainer:
        list(trainer.updates_of_epoch())
    (store,) = listing.list_caches(cache)
    files = {path: path.stat().st_mtime_ns for path in store.path.iterdir()}
    assert store.images == IMAGES
    # space for one store: if the benchmark's were among them, it would evict this one
    program.use(program.current().changed("--cache-limit", cache_limit=store.bytes + 1000))
    try:
        dry_run.measure_epoch(config_of(birds, cache="on", resize=33), seconds=0.0)
    finally:
        program.use(None)
    assert listing.list_caches(cache) == [store]
    assert {path: path.stat().st_mtime_ns for path in store.path.iterdir()} == files


def test_an_interruption_leaves_nothing_behind(birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dry_run.measure_epoch(config_of(birds, workers=1), seconds=1.0)
    assert everything_below(program.current().cache) == set()
    assert multiprocessing.active_children() == []


def test_images_that_cannot_be_used(birds: Path, tmp_path: Path) -> None:
    for name in CLASSES:
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "train" / name / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(FgvcError, match="train split") as error:
        dry_run.measure_epoch(config_of(tmp_path), seconds=0.0)
    assert "\n" not in str(error.value)
    with pytest.raises(FgvcError, match="strict.data"):
        dry_run.measure_epoch(config_of(tmp_path, strict_data=True), seconds=0.0)
    with pytest.raises(FgvcError, match="nowhere"):
        dry_run.measure_epoch(config_of(tmp_path / "nowhere"), seconds=0.0)


def test_scratch_folders_that_were_left_are_removed_and_others_stay() -> None:
    cache = program.current().cache
    left, used, other = (cache / name for name in (f"{PREFIX}left", f"{PREFIX}used", "demo-1"))
    for folder in (left, used, other):
        folder.mkdir(parents=True)
        (folder / LOCK_FILE).touch()
        (folder / "data").write_bytes(b"1")
    lock = FileLock(used / LOCK_FILE, shared=False)
    with scratch_folder() as first, scratch_folder() as second:
        assert first.parent == second.parent == cache and first != second
        assert not left.exists() and (used / "data").exists() and (other / "data").exists()
    lock.close()
    assert not first.exists() and not second.exists()


def test_a_cache_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FGVC_CACHE", str(tmp_path / "file" / "cache"))
    with scratch_folder() as folder:
        assert folder.is_dir() and not folder.is_relative_to(tmp_path)
    assert not folder.exists()


def test_a_job_for_timing_keeps_the_settings(birds: Path) -> None:
    config = config_of(birds, epochs=0)
    job = dry_run.random_job(config)
    assert job.config.train.weights == "none" and job.splits.val is None and len(job.splits.train) == IMAGES
    assert job.config.with_train(weights="auto", epochs=0, warmup_steps=config.train.warmup_steps) == config
    assert open_cache(dry_run.with_split(job, job.splits.train)).val is None


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_on_a_gpu(birds: Path, compiled: bool) -> None:
    config = config_of(birds, device="cuda", workers=2, compile=compiled)
    work = dry_run.measure_epoch(config, seconds=0.5)
    assert work.images == IMAGES and work.timing.median > 0
    assert torch.backends.cudnn.benchmark
