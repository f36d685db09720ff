"""`fgvc data`: what there is, what is in it, whether it can be read, and the decode cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgvc_cli.cli import data_tables
from fgvc_cli.cli.data import EXAMPLES
from fgvc_cli.data.acquisition import check
from fgvc_cli.registry import get_registry


def noise(path: Path, seed: int, size: tuple[int, int] = (40, 44)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Sound photographs: train with 6 ants and 5 bees, test with 2 ants."""
    folder = tmp_path / "photos"
    for i in range(6):
        noise(folder / f"train/ant/{i}.png", i)
    for i in range(5):
        noise(folder / f"train/bee/{i}.png", 10 + i)
    for i in range(2):
        noise(folder / f"test/ant/{i}.png", 20 + i)
    return folder


@pytest.fixture
def spoilt(photos: Path) -> Path:
    """The same with everything that can be wrong."""
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


def test_without_a_command_the_help_is_shown(fgvc):
    result = fgvc("data")
    assert result.exit_code == 0 and all(f" {name} " in result.stdout for name in EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_commands_help_ends_with_its_example(fgvc, name):
    result = fgvc("data", name, "--help")
    assert result.exit_code == 0 and f"Usage: fgvc data {name}" in result.stdout
    assert EXAMPLES[name].startswith(f"fgvc data {name}")
    assert result.stdout.rstrip().endswith(f"Example: {EXAMPLES[name]}")


@pytest.mark.parametrize("command", ["info", "prepare", "check"])
def test_names_are_completed(command):
    words = f"fgvc data {command} de"
    environment = {**os.environ, "_FGVC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "3"}
    found = subprocess.run(
        [sys.executable, "-c", "from fgvc_cli.cli.app import main; main()"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.split() == ["demo"]


def test_all_data_sets(fgvc, tmp_path):
    result = fgvc("data", "info", "--json", "--data-root", tmp_path)
    document = json.loads(result.stdout)
    registered = get_registry().components("dataset")
    assert [entry["name"] for entry in document["datasets"]] == [component.name for component in registered]
    state = {entry["name"]: entry["state"] for entry in document["datasets"]}
    assert (state["demo"], state["folder"], state["table"]) == ("made when opened", "with --data", "with --data")
    assert state["flowers102"] == state["nabirds"] == "missing" and "broken" not in state.values()
    table = fgvc("data", "info", "--data-root", tmp_path)
    assert table.exit_code == 0 and all(component.name in table.stdout for component in registered)
    assert f"data root: {tmp_path}" in table.stdout
    assert not list(tmp_path.iterdir())


def test_one_that_is_not_here_says_what_is_missing_and_how_it_is_had(fgvc, tmp_path):
    result = fgvc("data", "info", "cub200", "--data-root", tmp_path)
    assert result.exit_code == 0
    assert "It is not here: CUB_200_2011/images.txt" in result.stdout
    assert "CUB_200_2011.tgz" in result.stdout and "data.caltech.edu" in result.stdout
    assert result.stdout.rstrip().endswith(f"next: fgvc data prepare cub200 --data-root {tmp_path}")
    by_hand = fgvc("data", "info", "nabirds", "--data-root", tmp_path)
    assert by_hand.exit_code == 0 and "There is no link to it." in by_hand.stdout and "by hand:" in by_hand.stdout


def test_one_that_is_here(fgvc, photos):
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
    ("arguments", "code", "message"),
    [
        (["info", "flowers101"], 2, "Did you mean 'flowers102' or"),
        (["info", "{photos}"], 2, "is no dataset but a path: write --data {photos}."),
        (["info", "--data", "{photos}x"], 1, "{photos}x: there is no such folder. Did you mean 'photos'?"),
        (["info", "folder"], 2, "is made from a folder: name it with --data"),
        (["info", "demo", "--set", "dataset.sise=3"], 2, "dataset.sise: no such option. Did you mean 'size'?"),
        (["info", "demo", "--set", "head.width=3"], 2, "only options of the dataset can be set here"),
        (["info", "--set", "dataset.size=3"], 2, "name the dataset that it is an option of"),
        (["info", "flowers102", "--data", "{photos}"], 2, "takes no folder: leave out --data {photos}"),
        (["check", "table", "--data", "{photos}"], 2, "is made from a .csv file or a .tsv file, which {photos} is not"),
        (["prepare"], 2, "Missing argument 'NAME'. See fgvc data prepare --help."),
        (["prepare", "folder"], 2, "is made from your own files: there is nothing to get."),
        (["check"], 2, "Which dataset? Name one (cub200, demo, "),
        (["check", "cub200"], 1, "Next: fgvc data prepare cub200"),
        (["check", "--data", "{photos}", "--split", "tset"], 2, "photos has no such split. Did you mean 'test'?"),
        (["check", "--data", "{photos}", "--workers", "-2"], 2, "Invalid value for '--workers'"),
        (["cache", "photos"], 2, "photos: the decode cache holds nothing of it. It holds: nothing."),
        (["prepar"], 2, "No such command 'prepar'. Did you mean 'prepare'? See fgvc data --help."),
    ],
)
def test_what_is_wrong_is_one_line(fgvc, photos, arguments, code, message):
    result = fgvc("data", *(argument.format(photos=photos) for argument in arguments))
    assert (result.exit_code, result.stdout) == (code, "")
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("fgvc: error: ")
    assert message.format(photos=photos) in result.stderr


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sound_set(fgvc, photos, workers):
    result = fgvc("data", "check", "--data", photos, "--workers", workers)
    assert result.exit_code == 0 and result.stdout.rstrip().endswith("All 13 images can be read.")
    assert "share" not in result.stdout and "more than once" not in result.stdout and " px" not in result.stdout


def test_everything_that_can_be_wrong_is_found(fgvc, spoilt):
    result = fgvc("data", "check", "--data", spoilt)
    assert result.exit_code == 3
    text = result.stdout
    assert "3 of 20 images cannot be read:\n  train: ant/0.png: the file is empty." in text
    assert "  train: bee/9.png: there is no such file." in text
    assert "  test: ant/1.png: the image is damaged" in text
    assert "leave these out" in text and "--strict-data" in text
    assert "train and test share 1 image: figures on test will be too good.\n" in text
    assert "  train: ant/1.png = test: ant/shared.png" in text
    assert "2 images in train more than once:" in text
    assert (
        "1 image under more than one class: some labels must be wrong.\n  train: ant/bee.png = train: bee/2.png" in text
    )
    assert "1 image under 32 px:\n  train: bee/small.png: 40x31 px" in text
    assert "  train: bee/long.png: 161x40 px" in text
    assert "1 class with under 5 images in train: cat (1)" in text


def test_the_same_as_json(fgvc, spoilt):
    result = fgvc("data", "check", "--data", spoilt, "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 3
    assert (document["dataset"], document["data"]) == ("folder", str(spoilt))
    assert (document["images"], document["checked"], document["complete"]) == (20, 20, True)
    assert [noted["key"] for noted in document["unreadable"]] == ["ant/0.png", "bee/9.png", "ant/1.png"]
    assert document["unreadable"][0]["cause"] == "the file is empty."
    assert document["shared_by_splits"] == {"train and test": 1} and document["repeated_in_split"] == {"train": 2}
    assert document["under_different_classes"] == 1 and document["classes_with_few_images"] == {"cat": 1}
    assert [noted["size"] for noted in document["small"] + document["odd_shape"]] == ["40x31 px", "161x40 px"]
    assert {len(group) for group in document["identical"]} == {2} and len(document["identical"]) == 3
    assert document["splits"]["train"]["class_counts"] == {"ant": 8, "bee": 8, "cat": 1}


def test_one_split_alone(fgvc, spoilt):
    document = json.loads(fgvc("data", "check", "--data", spoilt, "--split", "test", "--json").stdout)
    assert list(document["splits"]) == ["test"] and document["images"] == 3
    assert document["shared_by_splits"] == {} and document["classes_with_few_images"] == {}


def test_interrupted_it_tells_what_it_found(fgvc, spoilt, monkeypatch):
    real = check.decode_all

    def interrupted(images, workers):
        for done, outcome in enumerate(real(images, workers)):
            if done == 5:
                raise KeyboardInterrupt
            yield outcome

    monkeypatch.setattr(check, "decode_all", interrupted)
    result = fgvc("data", "check", "--data", spoilt, "--workers", 0)
    assert result.exit_code == 130
    assert "1 of 5 images cannot be read:\n  train: ant/0.png: the file is empty." in result.stdout
    assert "Interrupted: 5 of 20 images were checked, and no files compared." in result.stdout


def test_a_list_of_many_is_cut_short(fgvc, photos):
    for i in range(25):
        (photos / f"train/ant/x{i}.png").write_bytes(b"")
    result = fgvc("data", "check", "--data", photos)
    assert result.stdout.count("the file is empty.") == 20 and "  and 5 more (--json lists all)" in result.stdout


def store(cache: Path, name: str, data: str, size: int, used: float) -> Path:
    folder = cache / "images" / name
    folder.mkdir(parents=True)
    (folder / "data.mdb").write_bytes(bytes(size))
    about = folder / "about.json"
    about.write_text(json.dumps({"data": data, "rendition": "short side 256 px"}))
    os.utime(about, (used, used))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with three stores and something else."""
    folder = tmp_path / "cache"
    now = time.time()
    store(folder, "a1", "flowers102 (/data/flowers-102)", 3_000_000, now - 3 * 86400 - 5)
    store(folder, "b2", "photos (/home/me/photos)", 2_000_000, now)
    store(folder, "c3", "photos (/other/photos)", 1_000_000, now - 7300)
    (folder / "demo-1").mkdir()
    (folder / "demo-1" / "parts.json").write_text("{}")
    return folder


def test_the_stores_of_the_decode_cache(fgvc, cache):
    result = fgvc("data", "cache", "--cache", cache, "--cache-limit", "50GB")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    order = [line.split()[0] for line in lines if "photos" in line or "flowers102" in line]
    assert order == ["photos", "photos", "flowers102"]
    assert any("3.0 MB" in line and "3 days ago" in line for line in lines)
    assert f"decode cache: 6.0 MB of at most 50 GB, in {cache}" in lines


def test_the_stores_as_json(fgvc, cache):
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
def test_what_is_named_is_cleared_and_nothing_else(fgvc, cache, names, left):
    result = fgvc("data", "cache", "--clear", *names, "--cache", cache)
    assert result.exit_code == 0
    assert sorted(path.name for path in (cache / "images").iterdir()) == left
    assert (cache / "demo-1" / "parts.json").exists()
    stores = 3 - len(left)
    assert result.stdout.startswith(f"cleared: {stores} store{'' if stores == 1 else 's'}, ")
    assert " MB freed" in result.stdout


def test_a_name_that_has_no_store_clears_nothing(fgvc, cache):
    result = fgvc("data", "cache", "--clear", "photos", "flowers", "--cache", cache)
    assert result.exit_code == 2 and "flowers: the decode cache holds nothing of it." in result.stderr
    assert len(list((cache / "images").iterdir())) == 3


def test_an_empty_cache(fgvc, tmp_path):
    result = fgvc("data", "cache", "--cache", tmp_path)
    assert (result.exit_code, result.stdout) == (0, f"decode cache: 0 bytes of at most 64 GB, in {tmp_path}\n")
    document = json.loads(fgvc("data", "cache", "--clear", "--json", "--cache", tmp_path).stdout)
    assert (document["stores"], document["freed"]) == ([], 0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "just now"), (61, "1 minute ago"), (7300, "2 hours ago"), (86400 * 3, "3 days ago"), (-5, "just now")],
)
def test_ages(seconds, text):
    assert data_tables.age_text(seconds) == text
