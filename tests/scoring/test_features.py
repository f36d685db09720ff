"""Features of a frozen backbone: what is computed, kept and computed again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fgvc_cli import settings
from fgvc_cli.contracts import Preprocessing, Reads, Split
from fgvc_cli.data.cache.index import clear, list_caches
from fgvc_cli.data.loading import EvaluationLoader
from fgvc_cli.errors import FgvcError
from fgvc_cli.scoring import features
from fgvc_cli.scoring.features import FeatureSettings, FrozenBackbone, SplitFeatures, split_features
from fgvc_cli.testing.tiny import HALF, TinyConvolutional, write_folder

READS = Reads(maps=(1,), embedding=True)
PREPROCESSING = Preprocessing(64, 72, HALF, HALF)
DATASET: Any = SimpleNamespace(name="colors", identity=lambda: {"folder": "/data/colors"})


@pytest.fixture
def split(tmp_path: Path) -> Split:
    write_folder(tmp_path)
    images = sorted((tmp_path / "train").rglob("*.png"))
    return Split("train", images, [i // 6 for i in range(18)], [f"{p.parent.name}/{p.name}" for p in images])


@pytest.fixture
def frozen() -> FrozenBackbone:
    torch.manual_seed(0)
    backbone = TinyConvolutional()
    backbone.train()  # as it is when training starts
    return FrozenBackbone(backbone, READS, PREPROCESSING)


@pytest.fixture(params=["memory", "disk"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where features are read from."""
    if request.param == "disk":
        monkeypatch.setattr(features, "MEMORY_LIMIT", 0)
    return request.param


def compute(frozen: FrozenBackbone, split: Split, **options: Any) -> SplitFeatures:
    return split_features(frozen, split, DATASET, FeatureSettings(batch_size=4, **options))


def limited(amount: int):
    return settings.override(dataclasses.replace(settings.current(), cache_limit=amount))


@pytest.mark.usefixtures("where")
def test_kept_features_are_those_of_the_backbone(frozen: FrozenBackbone, split: Split) -> None:
    with pytest.MonkeyPatch.context() as patch:
        first = compute(frozen, split)
        assert first.computed == 18 and first.readable.all() and frozen.backbone.training
        patch.setattr(TinyConvolutional, "forward", None)  # the second call must not need it
        again = compute(frozen, split)
        assert again.computed == 0
    (batch,) = EvaluationLoader(split, PREPROCESSING, 18, 0, False)
    with torch.inference_mode():
        expected = frozen.backbone.eval()((batch.pixels / 255 - 0.5) / 0.5, READS)
    order = [5, 17, 0]
    for found in (first, again):
        read = found.batch(order)
        torch.testing.assert_close(read.embedding, expected.embedding[order], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(read.maps[1], expected.maps[1][order], atol=1e-3, rtol=1e-3)
        assert found.labeled().labels.tolist() == list(split.labels)
        found.close()
    assert torch.equal(first.batch(order).embedding, again.batch(order).embedding)


@pytest.mark.usefixtures("where")
def test_only_what_changed_is_computed_again(frozen: FrozenBackbone, split: Split) -> None:
    before = compute(frozen, split)
    Path(split.images[3]).write_bytes(Path(split.images[15]).read_bytes())
    after = compute(frozen, split)
    assert after.computed == 1
    torch.testing.assert_close(after.batch([3]).embedding, before.batch([15]).embedding)  # rounding by batch size
    before.close()
    after.close()
    with torch.no_grad():
        next(frozen.backbone.parameters())[0] += 1
    changed = FrozenBackbone(frozen.backbone, READS, PREPROCESSING)
    assert compute(changed, split).computed == 18
    assert compute(dataclasses.replace(changed, flip=True), split).computed == 18
    assert compute(dataclasses.replace(changed, preprocessing=Preprocessing(64, 80, HALF, HALF)), split).computed == 18
    assert compute(changed, split).computed == 0


def test_flip_mirrors_the_image(frozen: FrozenBackbone, split: Split) -> None:
    (batch,) = EvaluationLoader(split, PREPROCESSING, 18, 0, False)
    images = [np.ascontiguousarray(pixels.numpy()[:, :, ::-1].transpose(1, 2, 0)) for pixels in batch.pixels]
    plain = FrozenBackbone(frozen.backbone, READS, Preprocessing(64, 64, HALF, HALF))
    of_mirrored = compute(plain, Split("train", images, split.labels, split.keys))
    flipped = compute(dataclasses.replace(frozen, flip=True), split)
    torch.testing.assert_close(flipped.batch(range(18)).embedding, of_mirrored.batch(range(18)).embedding)
    assert compute(plain, Split("val", images[:3], [0, 0, 0], ["a", "b", "c"])).computed == 0  # arrays are kept too


def test_an_unreadable_image_has_no_features(frozen: FrozenBackbone, split: Split) -> None:
    Path(split.images[2]).write_bytes(b"no image")
    found = compute(frozen, split)
    assert list(found.failures) == ["blue/2.png"] and not found.readable[2]
    assert len(found.labeled().labels) == 17
    with pytest.raises(FgvcError, match=r"2\.png"):
        compute(frozen, split, strict=True)


def test_without_room_on_disk_they_are_held_in_memory_or_refused(
    frozen: FrozenBackbone, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    with limited(1000):
        found = compute(frozen, split)
        assert found.computed == 18 and found.batch([0]).embedding is not None
        assert not list_caches(settings.current().cache.absolute())
        with pytest.raises(FgvcError, match="cache"):
            compute(frozen, split, cache="on")
        monkeypatch.setattr(features, "MEMORY_LIMIT", 0)
        with pytest.raises(FgvcError, match="memory"):
            compute(frozen, split)


def test_removed_features_are_an_error_not_a_wrong_value(
    frozen: FrozenBackbone, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "MEMORY_LIMIT", 0)
    found = compute(frozen, split)
    root = settings.current().cache.absolute()
    (info,) = list_caches(root)
    assert info.images == 18 and "embedding" in info.resize
    clear(root, [info])
    with pytest.raises(FgvcError, match="removed"):
        found.batch([0])
    found.close()


def test_values_beyond_half_precision_are_refused(frozen: FrozenBackbone, split: Split) -> None:
    with torch.no_grad():
        for parameter in frozen.backbone.stages[1].parameters():
            parameter *= 1e6
    with pytest.raises(FgvcError, match="half precision"):
        compute(FrozenBackbone(frozen.backbone, READS, PREPROCESSING), split)
