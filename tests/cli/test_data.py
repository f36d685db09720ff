"""`fgvc data`: list, describe and check datasets, and manage the decode cache."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgvc_cli.cli.data import EXAMPLES
from fgvc_cli.data.acquisition import check
from fgvc_cli.registry import get_registry


def noise(path: Path, seed: int, size: tuple[int, int] = (40, 44)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Valid photographs: train with 6 ants and 5 bees, test with 2 ants."""
    folder = tmp_path / "photos"
    for i in range(6):
        noise(folder / f"train/ant/{i}.png", i)
    for i in range(5):
        noise(folder / f"train/bee/{i}.png", 10 + i)
    for i in range(2):
        noise(folder / f"test/ant/{i}.png", 20 + i)
    return folder


@pytest.fixture
def flawed(photos: Path) -> Path:
    """The same with every flaw that a check finds."""
    (photos / "train/ant/0.png").write_bytes(b"")
    damaged = photos / "test/ant/1.png"
    damaged.write_bytes(damaged.read_bytes()[:3000])
    (photos / "train/bee/9.png").symlink_to(photos / "nowhere.png")
    shutil.copy(photos / "train/ant/1.png", photos / "test/ant/shared.png")
    shutil.copy(photos / "train/ant/2.png", photos / "train/ant/again.png")
    shutil.copy(photos / "train/bee/2.png", photos / "train/ant/bee.png")
    noise(photos / "train/bee/small.png", 30, (31, 40))
    noise(photos / "train/bee/long.png", 31, (40, 161))
    noise(photos / "train/cat/1.png", 32)
    return photos


def test_help_of_the_group_and_its_commands(fgvc):
    result = fgvc("data")
    assert result.exit_code == 0 and all(f" {name} " in result.stdout for name in EXAMPLES)
    for name, example in EXAMPLES.items():
        result = fgvc("data", name, "--help")
        assert result.exit_code == 0 and result.stdout.rstrip().endswith(f"Example: {example}")


def test_all_datasets(fgvc, tmp_path):
    document = json.loads(fgvc("data", "info", "--json", "--data-root", tmp_path).stdout)
    registered = [component.name for component in get_registry().components("dataset")]
    assert [entry["name"] for entry in document["datasets"]] == registered
    state = {entry["name"]: entry["state"] for entry in document["datasets"]}
    assert (state["demo"], state["folder"], state["table"]) == ("made when opened", "with --data", "with --data")
    assert state["flowers102"] == state["nabirds"] == "missing" and "broken" not in state.values()
    table = fgvc("data", "info", "--data-root", tmp_path)
    assert table.exit_code == 0 and all(name in table.stdout for name in registered)
    assert f"data root: {tmp_path}" in table.stdout
    assert not list(tmp_path.iterdir())


def test_a_missing_dataset_and_how_to_get_it(fgvc, tmp_path):
    result = fgvc("data", "info", "cub200", "--data-root", tmp_path)
    facts = ["CUB_200_2011/images.txt", "CUB_200_2011.tgz", "data.caltech.edu"]
    assert result.exit_code == 0 and all(fact in result.stdout for fact in facts)
    assert result.stdout.rstrip().endswith(f"next: fgvc data prepare cub200 --data-root {tmp_path}")
    by_hand = fgvc("data", "info", "nabirds", "--data-root", tmp_path)
    assert by_hand.exit_code == 0 and "no download link" in by_hand.stdout and "by hand:" in by_hand.stdout


def test_a_complete_dataset(fgvc, photos):
    result = fgvc("data", "info", "--data", photos)
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["train", "11", "2", "5", "to", "6,", "median", "5.5"] in rows
    assert ["test", "2", "1", "of", "2", "2", "each"] in rows
    assert ["classes", "2:", "ant,", "bee"] in rows
    assert f"next: fgvc train --data {photos}" in result.stdout
    document = json.loads(fgvc("data", "info", "--data", photos, "--json").stdout)
    assert document["here"] and document["classes"] == ["ant", "bee"] and document["folder"] == str(photos)
    assert document["splits"]["test"] == {
        "images": 2, "classes": 1, "images_per_class": {"least": 2, "median": 2.0, "most": 2}, "origin": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "facts"),
    [
        (["info", "flowers101"], 2, ["Did you mean 'flowers102'"]),
        (["info", "{photos}"], 2, ["a path", "--data {photos}"]),
        (["info", "--data", "{photos}x"], 1, ["{photos}x", "Did you mean 'photos'?"]),
        (["info", "folder"], 2, ["'folder'", "--data"]),
        (["info", "demo", "--set", "dataset.sise=3"], 2, ["dataset.sise", "'size'"]),
        (["info", "demo", "--set", "head.width=3"], 2, ["head.width=3"]),
        (["info", "--set", "dataset.size=3"], 2, ["--set dataset.size=3"]),
        (["info", "flowers102", "--data", "{photos}"], 2, ["'flowers102'", "--data {photos}"]),
        (["check", "table", "--data", "{photos}"], 2, ["'table'", ".csv", "{photos}"]),
        (["prepare"], 2, ["NAME", "fgvc data prepare --help"]),
        (["prepare", "folder"], 2, ["'folder'", "no download"]),
        (["check"], 2, ["cub200, demo, ", "--data"]),
        (["check", "cub200"], 1, ["fgvc data prepare cub200"]),
        (["check", "--data", "{photos}", "--split", "tset"], 2, ["--split tset", "Did you mean 'test'?"]),
        (["check", "--data", "{photos}", "--workers", "-2"], 2, ["'--workers'"]),
        (["cache", "photos"], 2, ["photos has no decode cache"]),
        (["prepar"], 2, ["Did you mean 'prepare'?"]),
    ],
)
def test_errors_are_one_line(fgvc, photos, arguments, code, facts):
    result = fgvc("data", *(argument.format(photos=photos) for argument in arguments))
    assert (result.exit_code, result.stdout) == (code, "")
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("fgvc: error: ")
    assert all(fact.format(photos=photos) in result.stderr for fact in facts), result.stderr


@pytest.mark.parametrize("workers", [0, 1])
def test_checking_a_flawless_dataset(fgvc, photos, workers):
    result = fgvc("data", "check", "--data", photos, "--workers", workers)
    assert result.exit_code == 0 and result.stdout.rstrip().endswith("All 13 images can be read.")
    assert "share" not in result.stdout and "more than once" not in result.stdout and " px" not in result.stdout


def test_every_flaw_is_found(fgvc, flawed):
    result = fgvc("data", "check", "--data", flawed, "--workers", 0)
    assert result.exit_code == 3
    lines = result.stdout.splitlines()
    assert lines[lines.index("3 of 20 images cannot be read:") + 1 :][:2] == [
        "  train: ant/0.png: the file is empty",
        "  train: bee/9.png: file not found",
    ]
    for finding in [
        "  test: ant/1.png: damaged",
        "train and test share 1 image:",
        "  train: ant/1.png = test: ant/shared.png",
        "2 images more than once in train:",
        "1 image in more than one class:",
        "  train: ant/bee.png = train: bee/2.png",
        "  train: bee/small.png: 40x31 px",
        "  train: bee/long.png: 161x40 px",
        "1 class with under 5 training images: cat (1)",
    ]:
        assert any(line.startswith(finding) for line in lines), finding


def test_a_check_as_json(fgvc, flawed):
    result = fgvc("data", "check", "--data", flawed, "--workers", 0, "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 3
    assert (document["dataset"], document["data"]) == ("folder", str(flawed))
    assert (document["images"], document["checked"], document["complete"]) == (20, 20, True)
    assert [found["key"] for found in document["unreadable"]] == ["ant/0.png", "bee/9.png", "ant/1.png"]
    assert set(document["unreadable"][0]) == {"split", "key", "class", "file", "cause"}
    assert document["shared_by_splits"] == {"train and test": 1} and document["repeated_in_split"] == {"train": 2}
    assert document["under_different_classes"] == 1 and document["classes_with_few_images"] == {"cat": 1}
    assert [found["size"] for found in document["small"] + document["odd_shape"]] == ["40x31 px", "161x40 px"]
    assert {len(group) for group in document["identical"]} == {2} and len(document["identical"]) == 3
    assert document["splits"]["train"]["class_counts"] == {"ant": 8, "bee": 8, "cat": 1}
    only = json.loads(fgvc("data", "check", "--data", flawed, "--split", "test", "--workers", 0, "--json").stdout)
    assert list(only["splits"]) == ["test"] and only["images"] == 3
    assert only["shared_by_splits"] == {} and only["classes_with_few_images"] == {}


def test_an_interrupted_check_prints_the_results_so_far(fgvc, flawed, monkeypatch):
    real = check.decode_all

    def interrupted(*arguments):
        for done, result in enumerate(real(*arguments)):
            if done == 5:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(check, "decode_all", interrupted)
    result = fgvc("data", "check", "--data", flawed, "--workers", 0)
    assert result.exit_code == 130
    assert "1 of 5 images cannot be read:\n  train: ant/0.png" in result.stdout
    assert "5 of 20 images were checked" in result.stdout


def test_a_long_list_is_truncated(fgvc, photos):
    for i in range(25):
        (photos / f"train/ant/x{i}.png").write_bytes(b"")
    result = fgvc("data", "check", "--data", photos, "--workers", 0)
    assert result.stdout.count("the file is empty") == 20 and "  and 5 more (--json lists all)" in result.stdout


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache directory with three decode caches and something else."""
    root = tmp_path / "cache"
    now = time.time()
    for name, data, size, used in (
        ("a1", "flowers102 (/data/flowers-102)", 3_000_000, now - 3 * 86400 - 5),
        ("b2", "photos (/home/me/photos)", 2_000_000, now),
        ("c3", "photos (/other/photos)", 1_000_000, now - 7300),
    ):
        folder = root / "images" / name
        folder.mkdir(parents=True)
        (folder / "data.mdb").write_bytes(bytes(size))
        (folder / "about.json").write_text(json.dumps({"data": data, "rendition": "short side 256 px"}))
        os.utime(folder / "about.json", (used, used))
    (root / "demo-1").mkdir()
    (root / "demo-1" / "parts.json").write_text("{}")
    return root


def test_listing_decode_caches(fgvc, cache):
    result = fgvc("data", "cache", "--cache", cache, "--cache-limit", "50GB")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    order = [line.split()[0] for line in lines if "photos" in line or "flowers102" in line]
    assert order == ["photos", "photos", "flowers102"]
    assert any("3.0 MB" in line and "3 days ago" in line for line in lines)
    assert f"decode cache: 6.0 MB of at most 50 GB, in {cache}" in lines
    document = json.loads(fgvc("data", "cache", "photos", "--json", "--cache", cache).stdout)
    assert document["cache"] == str(cache) and document["limit"] == 64 * 10**9
    assert [Path(entry["path"]).name for entry in document["stores"]] == ["b2", "c3"]
    assert document["bytes"] == sum(entry["bytes"] for entry in document["stores"])
    assert document["stores"][0]["rendition"] == "short side 256 px"


@pytest.mark.parametrize(
    ("names", "left"),
    [
        ([], []),
        (["photos"], ["a1"]),
        (["/other/photos"], ["a1", "b2"]),
        (["flowers102", "/home/me/photos/"], ["c3"]),
    ],
)
def test_only_named_caches_are_cleared(fgvc, cache, names, left):
    result = fgvc("data", "cache", "--clear", *names, "--cache", cache)
    assert result.exit_code == 0
    assert sorted(path.name for path in (cache / "images").iterdir()) == left
    assert (cache / "demo-1" / "parts.json").exists()
    count = 3 - len(left)
    assert f"{count} cache{'' if count == 1 else 's'} " in result.stdout and " MB freed" in result.stdout


def test_an_unknown_name_clears_nothing(fgvc, cache):
    result = fgvc("data", "cache", "--clear", "photos", "flowers", "--cache", cache)
    assert result.exit_code == 2 and "flowers has no decode cache" in result.stderr
    assert len(list((cache / "images").iterdir())) == 3


def test_an_empty_cache(fgvc, tmp_path):
    result = fgvc("data", "cache", "--cache", tmp_path)
    assert (result.exit_code, result.stdout) == (0, f"decode cache: 0 bytes of at most 64 GB, in {tmp_path}\n")
    document = json.loads(fgvc("data", "cache", "--clear", "--json", "--cache", tmp_path).stdout)
    assert (document["stores"], document["freed"]) == ([], 0)
