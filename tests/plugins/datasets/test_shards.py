"""Images in tar files: the same as webdataset reads, by an index, wherever the files are."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

import fgvc_cli
from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.contracts import DatasetRequest
from fgvc_cli.data.acquisition.indexing import index_shards
from fgvc_cli.data.exclusion import ExcludingDataset, Exclusion
from fgvc_cli.data.identity import DataIdentity
from fgvc_cli.data.images import ImageError, read_image
from fgvc_cli.data.splits import training_splits
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.registry import get_registry
from fgvc_datasets.options import ShardsOptions
from fgvc_datasets.shards.dataset import ShardsDataset


def jpeg(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(file, "JPEG")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def index(source, classes=None, out=None) -> Path:
    return index_shards(str(source), out, classes, get_registry())


def opened(path: Path, **options) -> ShardsDataset:
    return ShardsDataset(DatasetRequest(path, Path(), Path(), 0), ShardsOptions(**options))


@pytest.fixture
def shards(tmp_path) -> Path:
    """Two shards of train, one of val; numbers as classes."""
    folder = tmp_path / "birds"
    for number, split in enumerate(("train-0", "train-1", "val-0")):
        members = {}
        for i in range(6):
            key = f"{number}{i:04}"
            members |= {f"{key}.jpg": jpeg(10 * number + i), f"{key}.cls": str(i % 3).encode()}
        write_tar(folder / f"{split}.tar", members)
    (folder / "classes.txt").write_text("wren\nrobin\ntit\n")
    return folder


def test_webdataset_reads_the_same(tmp_path):
    wds = pytest.importorskip("webdataset")
    with wds.ShardWriter(str(tmp_path / "train-%03d.tar"), maxcount=4, verbose=0) as writer:
        for i in range(10):
            long = "x" * 120 if i == 7 else ""  # its name is not in its own header
            writer.write({"__key__": f"{long}{i:04}", "jpg": jpeg(i), "json": {"label": i % 3}})
    theirs = [
        (json.loads(sample["json"])["label"], sample["jpg"])
        for path in sorted(tmp_path.glob("*.tar"))
        for sample in wds.WebDataset(str(path), shardshuffle=False)
    ]
    dataset = opened(index(tmp_path))
    split = dataset.split("train")
    ours = [(int(dataset.class_names[k]), image.read()) for k, image in zip(split.labels, split.images, strict=True)]
    assert ours == theirs and len(ours) == 10


def test_splits_classes_and_keys(shards):
    path = index(shards, shards / "classes.txt")
    assert path == shards / "index.shards"
    dataset = opened(path)
    assert dataset.class_names == ("wren", "robin", "tit")  # as in the file, not sorted
    assert dataset.splits() == ("train", "val")
    train = dataset.split("train")
    assert list(train.labels) == [0, 1, 2] * 4
    assert train.keys[7] == "train-1.tar/10001.jpg" == str(train.images[7]) and train.keys[-1] == train.keys[11]
    assert read_image(pickle.loads(pickle.dumps(train.images[7]))).size == (16, 12)
    assert index(f"{shards}/train-{{0..1}}.tar", out=shards / "part.shards").is_file()
    assert len(opened(shards / "part.shards").split("train")) == 12


def test_classes_are_folders_or_text_and_splits_folders(tmp_path):
    write_tar(tmp_path / "training" / "a.tar", {"robin/1.jpg": jpeg(1), "b.png": jpeg(2), "b.cls": b" wren\n"})
    write_tar(tmp_path / "test" / "a.tar", {"robin/1.jpg": jpeg(3), "__info.json": b"{}"})
    dataset = opened(index(tmp_path))
    assert dataset.class_names == ("robin", "wren") and dataset.splits() == ("train", "test")
    assert dataset.split("test").keys[0] == "test/a.tar/robin/1.jpg"


def test_what_works_with_files_works_with_shards(shards, tmp_path):
    dataset = opened(index(shards, shards / "classes.txt"))
    identity = DataIdentity.of(dataset)
    assert identity.splits["train"].counts == {"wren": 4, "robin": 4, "tit": 4}
    rows = tmp_path / "exclude.csv"
    rows.write_text("split,file\ntrain,train-1.tar/10001.jpg\n")
    left = ExcludingDataset(dataset, Exclusion.read(rows)).split("train")
    assert len(left) == 11 and "train-1.tar/10001.jpg" not in list(left.keys)
    assert not isinstance(left.images, list)
    assert [image.name for image in left.images] == list(left.keys)
    splits = training_splits(ExcludingDataset(dataset, Exclusion.read(rows)), TrainOptions(train_on="train+val"))
    assert len(splits.train) == 17
    folder = shards.rename(tmp_path / "moved")
    assert DataIdentity.of(opened(folder / "index.shards")) == identity


def test_shards_in_a_store(shards, tmp_path):
    memory = fsspec.filesystem("memory")
    for path in shards.glob("*.tar"):
        memory.pipe(f"/bucket/{path.name}", path.read_bytes())
    local = opened(index(shards))
    remote = opened(index("memory://bucket", out=tmp_path / "remote.shards"))
    assert remote.identity()["folder"] == "memory://bucket"
    assert [image.read() for image in remote.split("val").images] == [i.read() for i in local.split("val").images]
    elsewhere = opened(tmp_path / "remote.shards", base=str(shards))
    assert elsewhere.split("val").images[0].read() == local.split("val").images[0].read()


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"a.cls": b"0"}, "'a' has no image"),
        ({"a.jpg": b"x"}, "'a' has no class"),
        ({"a.jpg": b"x", "a.png": b"x", "a.cls": b"0"}, "two images"),
        ({"a.jpg": b"x", "a.cls": b"3"}, "'3' is none of the 3 classes"),
        ({"a.jpg": b"x", "a.cls": b"owl"}, "'owl' is none of the 3 classes"),
        ({"a.jpg": b"x", "a.json": b"{"}, "a.json"),
        ({}, "no image"),
    ],
)
def test_samples_that_cannot_be_used(shards, tmp_path, members, said):
    write_tar(tmp_path / "bad" / "train-0.tar", members)
    with pytest.raises(FgvcError, match=said) as raised:
        index(tmp_path / "bad", shards / "classes.txt")
    assert "\n" not in str(raised.value)


def test_shards_that_cannot_be_used(shards, tmp_path):
    path = index(shards)
    whole = (shards / "val-0.tar").read_bytes()
    (shards / "val-0.tar").write_bytes(whole[:2000])
    with pytest.raises(FgvcError, match=r"val-0.tar is truncated"):
        index(shards)
    with pytest.raises(FgvcError, match=r"val-0.tar has 2000 bytes and had"):
        opened(path)
    (shards / "val-0.tar").unlink()
    with pytest.raises(FgvcError, match=r"no shard val-0.tar in .*dataset.base"):
        opened(path)
    members = {f"9{i:04}.jpg": jpeg(i) for i in range(6)} | {f"9{i:04}.cls": b"0" for i in range(6)}
    write_tar(shards / "val-0.tar", members)
    assert (shards / "val-0.tar").stat().st_size == len(whole)  # tar files come in blocks
    with pytest.raises(ImageError, match="written again"):
        read_image(opened(path).split("val").images[0])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FgvcError, match="damaged"):
        opened(path)
    with pytest.raises(FgvcError, match="no such file"):
        opened(tmp_path / "no.shards")
    write_tar(tmp_path / "packed" / "a.tar", {"robin/1.jpg": jpeg(1)}, "w:gz")
    with pytest.raises(FgvcError, match=r"a.tar"):
        index(tmp_path / "packed")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FgvcError, match=r"has no .tar files"):
        index(tmp_path / "empty")
    with pytest.raises(UsageError, match="ends in .shards"):
        index(shards, out=tmp_path / "x.txt")


def test_errors_say_how_to_train_on_shards(shards, tmp_path):
    settings = {"backbone": "timm/test_resnet", "weights": "none", "epochs": 1, "out": tmp_path / "run"}
    for data in (shards, "s3://bucket/birds"):
        with pytest.raises(FgvcError, match="fgvc data index"):
            fgvc_cli.train(data=data, **settings)
    with pytest.raises(FgvcError, match=r"train\.cache=on"):
        fgvc_cli.train(data=index(shards, shards / "classes.txt"), settings={"train.cache": "on"}, **settings)
