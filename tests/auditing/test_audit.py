"""Faults planted among generated birds: found, and excluded from training by the CSV file."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from typer.testing import CliRunner

import fgvc_cli as fgvc
from fgvc_cli.auditing import photographs
from fgvc_cli.cli.app import build_app
from fgvc_cli.data.acquisition.select import choose_dataset
from fgvc_cli.data.images import read_image
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.registry import get_registry

NETWORK = {"backbone": "timm/test_resnet", "weights": "none", "image_size": 32, "workers": 0}


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    """A folder of generated birds: two classes, 12 training and 4 test images each."""
    texts = [f"dataset.{name}" for name in ("train=12", "val=1", "test=4", "size=96")]
    birds = choose_dataset("demo", None, texts, get_registry()).open()
    root = tmp_path_factory.mktemp("birds") / "birds"
    for name in ("train", "test"):
        split = birds.split(name)
        for image, label, key in zip(split.images, split.labels, split.keys, strict=True):
            if label < 2:
                target = root / name / f"class{label}" / f"{Path(key).stem.replace('/', '-')}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                read_image(image).save(target)
    return root


@pytest.fixture
def faulty(clean, tmp_path) -> tuple[Path, dict[str, Path]]:
    """A copy of the folder with faults, by name."""
    root = tmp_path / "faulty"
    shutil.copytree(clean, root)
    images = sorted((root / "train/class0").glob("*.png"))
    opened = [Image.open(image) for image in images]
    tests = root / "test/class0"
    faults = {
        "identical": tests / "identical.png",
        "recompressed": tests / "recompressed.jpg",
        "mirrored": tests / "mirrored.png",
        "cropped": tests / "cropped.png",
        "resized": root / "train/class0/z-resized.png",
        "relabeled": root / "train/class1/relabeled.png",
        "blurred": root / "train/class0/z-blurred.png",
        "dark": root / "train/class0/z-dark.png",
        "bright": root / "train/class0/z-bright.png",
        "tiny": root / "train/class0/z-tiny.png",
        "narrow": root / "train/class0/z-narrow.png",
        "unreadable": root / "train/class0/z-unreadable.png",
    }
    shutil.copy(images[0], faults["identical"])
    opened[1].save(faults["recompressed"], quality=40)
    ImageOps.mirror(opened[2]).save(faults["mirrored"])
    opened[3].crop((6, 8, 86, 88)).save(faults["cropped"])
    opened[4].resize((60, 60)).save(faults["resized"])
    opened[5].save(faults["relabeled"])
    opened[6].filter(ImageFilter.GaussianBlur(4)).save(faults["blurred"])
    ImageEnhance.Brightness(opened[7]).enhance(0.2).save(faults["dark"])
    ImageEnhance.Brightness(opened[8]).enhance(5).save(faults["bright"])
    opened[9].resize((20, 20)).save(faults["tiny"])
    opened[10].crop((0, 40, 96, 56)).resize((240, 40)).save(faults["narrow"])
    faults["unreadable"].write_bytes(images[11].read_bytes()[:500])
    return root, faults


def test_planted_faults_are_found_and_clean_images_are_not(faulty, clean) -> None:
    assert fgvc.audit(data=clean, **NETWORK).findings == []
    root, faults = faulty
    found = fgvc.audit(data=root, **NETWORK)
    names = [Path(image.name).stem for image in sorted((root / "train/class0").glob("[!z]*.png"))]
    leaked = {Path(f.image.key).stem: f for f in found.of("leak")}
    copies = ("identical", "recompressed", "mirrored", "cropped")
    assert [leaked[name].other.file.stem for name in names[:4]] == list(copies)
    assert [leaked[name].detail for name in names[:4]] == [
        "identical files", "perceptual hash", "perceptual hash, mirrored", "overlapping view",
    ]  # fmt: skip
    assert found.leaks == {("train", "test"): 4} and len(leaked) == 4
    conflict = found.of("conflict")
    assert {Path(f.image.key).stem for f in conflict} == {names[5], "relabeled"} and all(f.exclude for f in conflict)
    duplicates = {Path(f.image.key).stem: Path(f.other.key).stem for f in found.of("duplicate")}
    assert duplicates["z-resized"] == names[4]
    for problem in ("blurred", "dark", "bright", "tiny", "narrow", "unreadable"):
        (finding,) = found.of(problem)
        assert finding.image.file == faults[problem] and finding.exclude == (problem == "unreadable")


def test_the_table_excludes_what_was_found_and_the_page_shows_it(faulty, tmp_path) -> None:
    root, _ = faulty
    common = ["--data", str(root), "--backbone", "timm/test_resnet", "--weights", "none", "--image-size", "32"]
    out = tmp_path / "out"
    result = CliRunner().invoke(build_app(), ["audit", *common, "--workers", "0", "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    with (out / "audit.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(document["findings"]) and rows[0]["problem"] == "leak"
    excluded = {(row["split"], row["file"]) for row in rows if row["exclude"] == "yes"}
    assert len(excluded) == document["excluded"]
    page = (out / "audit.html").read_text()
    assert "4 of 12 images in test have copies in train" in page and page.count("<img") > 12 and "http:" not in page
    left = fgvc.audit(data=root, exclude=out / "audit.csv", **NETWORK)
    assert not any(left.of(problem) for problem in ("leak", "conflict", "unreadable", "duplicate"))
    assert sum(left.images.values()) == sum(document["images"].values()) - len(excluded)
    again = CliRunner().invoke(build_app(), ["audit", *common, "--out", str(out)])
    assert again.exit_code == 2 and "--force" in again.output


def test_what_cannot_be_audited_is_one_clear_line(clean, tmp_path, monkeypatch) -> None:
    for k in range(3):
        (tmp_path / f"single/class{k}").mkdir(parents=True)
        shutil.copy(sorted(clean.rglob("*.png"))[k], tmp_path / f"single/class{k}")
    notes = fgvc.audit(data=tmp_path / "single", **NETWORK).notes
    assert "Labels were not checked" in notes[0]
    with pytest.raises(UsageError, match="`weights=none` is for `backbone`"):
        fgvc.audit(data=clean, weights="none", out=tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(UsageError, match="no such split"):
        fgvc.audit(data=clean, split="dev", **NETWORK)
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    with pytest.raises(FgvcError, match="cleanlab and imagehash: pip install 'fgvc-cli.audit.'"):
        fgvc.audit(data=clean)


def test_without_a_backbone_hashes_and_pixels_are_compared(faulty, monkeypatch) -> None:
    monkeypatch.setattr("fgvc_cli.auditing.audit.DEFAULT_BACKBONE", "resnet50")  # no package has its weights
    found = fgvc.audit(data=faulty[0], workers=0)
    assert "Name a `backbone`" in found.notes[0] and not found.backbone
    assert found.leaks == {("train", "test"): 3} and not found.of("label")


def test_thumbnails_are_small_whatever_the_size(monkeypatch) -> None:
    found = photographs.measure(Image.fromarray(np.zeros((2, 150, 3), np.uint8)))
    assert found.thumbnail.shape == (32, 96) and found.sharpness == np.inf


def test_a_run_judges_the_labels_of_images_that_it_was_not_trained_on(tmp_path) -> None:
    rng = np.random.default_rng(0)
    colors = {"blue": (30, 60, 220), "green": (40, 200, 60), "red": (220, 40, 40)}
    for split, count in (("train", 6), ("test", 10)):
        for name, color in colors.items():
            for k in range(count):
                wrong = split == "test" and (name, k) == ("red", 0)
                pixels = np.clip(np.array(colors["blue"] if wrong else color) + rng.normal(0, 40, (32, 32, 3)), 0, 255)
                (tmp_path / "data" / split / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / split / name / f"{k}.png")
    run = fgvc.train(
        data=tmp_path / "data", backbone="timm/test_resnet", head="probe", weights="none", image_size=32, workers=0,
        device="cpu", out=tmp_path / "run",
    )  # fmt: skip
    found = fgvc.audit(data=tmp_path / "data", run=run, workers=0)
    (error,) = found.of("label")
    assert (error.image.split, error.image.key) == ("test", "red/0.png") and "blue" in error.detail
    assert not error.exclude and any("train were not checked" in note for note in found.notes)
