"""Embeddings of images and their files, and classes added to fitted runs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

import fgvc_cli as fgvc
from fgvc_cli.data.images import read_image
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.evaluation.embedding_files import WRITERS, check_path, embedding_file
from fgvc_cli.experiments.compare import select_runs
from fgvc_cli.runs.folder import Run
from fgvc_cli.testing.tiny import write_folder
from fgvc_cli.training.classes import find_classes
from fgvc_cli.training.weights.manage import import_weights


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_folder(folder / "all")
    for split in ("train", "val", "test"):
        (folder / "two" / split).mkdir(parents=True)
        for name in ("blue", "green"):
            (folder / "two" / split / name).symlink_to(folder / "all" / split / name)
    return folder


@pytest.fixture(scope="module")
def runs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs that know blue and green."""
    made = {}
    for head, settings in (("prototypes", {}), ("knn", {"head.k": 3}), ("probe", {})):
        made[head] = fgvc.train(
            data=photos / "two", head=head, backbone="timm/test_resnet", image_size=64, weights="none", device="cpu",
            settings=settings, out=tmp_path_factory.mktemp("runs") / head,
        )  # fmt: skip
    return made


def test_embeddings_are_those_that_the_head_reads(photos: Path, runs: dict[str, Run], tmp_path: Path) -> None:
    images = sorted((photos / "all" / "test").rglob("*.png"))
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    found = fgvc.embed([*images, tmp_path / "bad.jpg"], run=runs["probe"], batch_size=4)
    classifier = fgvc.load(runs["probe"])
    pixels = torch.stack([classifier.preprocessing(read_image(image)) for image in images])
    with torch.inference_mode():
        expected = classifier.backbone(classifier.normalize(pixels), classifier.head.reads()).embedding
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert found.images == tuple(map(str, images)) and list(found.failures) == [str(tmp_path / "bad.jpg")]
    same = fgvc.embed(images[:2], backbone="timm/test_resnet", weights=str(runs["probe"].path), image_size=64)
    assert same.values.shape == (2, expected.shape[1])
    with pytest.raises(UsageError):
        fgvc.embed(images, run=runs["probe"], backbone="timm/test_vit")
    with pytest.raises(UsageError, match="image_size=128"):
        fgvc.embed(images, run=runs["probe"], image_size=128)


def test_the_backbone_of_a_run_becomes_stored_weights(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FGVC_WEIGHTS", str(tmp_path))
    stored = import_weights(runs["knn"].path, "timm/test_resnet")
    assert stored.entries == len(fgvc.load(runs["knn"]).backbone.state_dict())


@pytest.mark.parametrize("suffix", WRITERS)
def test_files_hold_every_value(tmp_path: Path, suffix: str) -> None:
    path, values = tmp_path / f"e{suffix}", np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    rows = [("a,b.jpg", "x", "train"), ("\udcff.jpg", "y", "test"), ("c.jpg", "", "")]
    if suffix == ".parquet":
        from pyarrow import parquet
    with embedding_file(path, 4) as file:
        file.write(rows[:2], values[:2])
        file.write(rows[2:], values[2:])
    if suffix == ".csv":
        table = list(csv.reader(path.open(encoding="utf-8")))[1:]
        read, labels = np.array([row[3:] for row in table], np.float32), [row[1] for row in table]
    elif suffix == ".npz":
        archive = np.load(path)
        read, labels = archive["embedding"], archive["label"].tolist()
    else:
        columns = parquet.read_table(path).to_pydict()
        read, labels = np.array(columns["embedding"], np.float32), columns["label"]
    np.testing.assert_array_equal(read, values)
    assert labels == ["x", "y", ""] and [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(UsageError, match="exists"):
        check_path(path, force=False)
    with pytest.raises(UsageError, match="parquet"):
        check_path(tmp_path / "e.txt", force=False)


@pytest.mark.parametrize("head", ["prototypes", "knn"])
def test_an_added_class_is_predicted_and_evaluated(
    photos: Path, runs: dict[str, Run], tmp_path: Path, head: str
) -> None:
    before = runs[head].model_file.read_bytes()
    run = fgvc.add_classes(runs[head], [photos / "all" / "train" / "red"], out=tmp_path / "new")
    assert runs[head].model_file.read_bytes() == before
    assert fgvc.load(run).class_names == ("blue", "green", "red") and run.summary.classes == 3
    image = photos / "all" / "test" / "red" / "0.png"
    assert fgvc.load(run).predict(image).classes[0][0] == "red"
    assert fgvc.evaluate(run, data=photos / "all", split="test").top1 >= 0.8
    assert fgvc.explain(run, image).predicted == "red"


def test_a_linked_folder_is_a_class_with_the_name_of_the_link(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "plum").symlink_to(photos / "all" / "train" / "red")
    assert list(find_classes([tmp_path / "plum"])) == list(find_classes([tmp_path])) == ["plum"]


def test_what_cannot_be_added_is_refused(photos: Path, runs: dict[str, Run], tmp_path: Path) -> None:
    red, run = photos / "all" / "train" / "red", runs["knn"]
    with pytest.raises(UsageError, match="knn and prototypes"):
        fgvc.add_classes(runs["probe"], [red], out=tmp_path / "new")
    with pytest.raises(UsageError, match="green"):
        fgvc.add_classes(run, [photos / "all" / "train"], out=tmp_path / "new")
    with pytest.raises(UsageError, match="twice"):
        fgvc.add_classes(run, [red, red], out=tmp_path / "new")
    with pytest.raises(UsageError, match="out="):
        fgvc.add_classes(run, [red], out=run.path, force=True)
    with pytest.raises(FgvcError, match="test.*name it"):  # a dataset, whose splits are no classes
        fgvc.add_classes(run, [photos / "all"], out=tmp_path / "new")
    (tmp_path / "plum").mkdir()
    with pytest.raises(FgvcError, match="plum"):
        fgvc.add_classes(run, [tmp_path / "plum"], out=tmp_path / "new")
    (tmp_path / "plum" / "0.jpg").write_bytes(b"no image")
    with pytest.raises(FgvcError, match="plum"):
        fgvc.add_classes(run, [tmp_path / "plum"], out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_classes_are_added_to_a_lone_model_file(runs: dict[str, Run], photos: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone.safetensors"
    lone.write_bytes(runs["knn"].model_file.read_bytes())
    for _ in range(2):  # it may be replaced like a run
        run = fgvc.add_classes(lone, [photos / "all" / "train" / "red"], out=tmp_path / "new", force=True)
    assert fgvc.load(run).class_names == ("blue", "green", "red")
    with pytest.raises(FgvcError, match="no results of a training"):
        select_runs([run.path])
