"""The demo set: its table of species, its drawings and the folder it writes."""

from __future__ import annotations

import itertools
import json
import sys
import threading
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from fgvc_datasets.demo import drawing
from fgvc_datasets.demo.drawing import draw_image, generate
from fgvc_datasets.demo.scene import draw_scene
from fgvc_datasets.demo.species import (
    CLASS_NAMES,
    PARTS,
    SPECIES,
    UNKNOWN_SPECIES,
    deciding_parts,
    differing_parts,
)

SIZE = 64
COUNTS = {"train": 2, "val": 1, "test": 1}


def scene(seed: int, species: str, size: int = 96) -> tuple[np.ndarray, dict[str, tuple[int, int, int, int]]]:
    """Pixels with shape [size, size, 3] as integers that can be subtracted, and boxes."""
    image, parts = draw_scene(np.random.default_rng(seed), SPECIES[species], size)
    return np.asarray(image).astype(int), parts


def inside(boxes: list[tuple[int, int, int, int]], size: int, margin: int) -> np.ndarray:
    """True where a box, grown by `margin` pixels, is; shape [size, size]."""
    mask = np.zeros((size, size), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask[max(0, y0 - margin) : y1 + margin, max(0, x0 - margin) : x1 + margin] = True
    return mask


def test_deciding_parts_alone_distinguish_two_species():
    for species in CLASS_NAMES:
        expected = set()
        for other in CLASS_NAMES:
            pairs = zip(PARTS, *(vars(SPECIES[name]).values() for name in (species, other)), strict=True)
            different = [part for part, mine, theirs in pairs if mine != theirs]
            if len(different) == 1:
                expected.add(different[0])
        assert set(deciding_parts(species)) == expected
        assert len(expected) == 2
    assert deciding_parts("Bar-winged-Finch") == ("beak", "wing")
    assert Counter(part for name in CLASS_NAMES for part in deciding_parts(name)) == dict.fromkeys(PARTS, 4)


def test_an_image_depends_only_on_its_arguments():
    first, again = draw_image(3, "train", 17, SIZE), draw_image(3, "train", 17, SIZE)
    assert first.image.mode == "RGB"
    assert first.image.size == (SIZE, SIZE)
    assert first.label == 17 % 12
    assert first.image.tobytes() == again.image.tobytes()
    assert first.parts == again.parts
    others = [(4, "train", 17), (3, "test", 17), (3, "train", 29)]
    assert all(draw_image(*other, SIZE).image.tobytes() != first.image.tobytes() for other in others)


def test_a_scene_is_the_same_at_every_size():
    small, large = draw_image(0, "train", 6, 64), draw_image(0, "train", 6, 192)
    shrunk = np.asarray(large.image.reduce(3)).astype(float)
    assert np.abs(shrunk - np.asarray(small.image)).mean() < 8
    for part, box in small.parts.items():
        assert np.allclose(np.array(large.parts[part]) / 3, box, atol=1.5), part


@pytest.mark.parametrize("seed", range(4))
def test_another_species_in_the_same_scene_changes_only_the_parts_that_differ(seed):
    reference, boxes = scene(seed, CLASS_NAMES[0])
    for species in CLASS_NAMES[1:]:
        pixels, other = scene(seed, species)
        changed = np.abs(pixels - reference).max(axis=2) > 0
        differing = differing_parts(CLASS_NAMES[0], species)
        allowed = inside([table[part] for part in differing for table in (boxes, other)], 96, margin=3)
        assert changed.any()
        assert not (changed & ~allowed).any(), species


def test_the_deciding_part_is_never_hidden():
    for seed in range(4):
        for first, second in itertools.pairwise(list(SPECIES)):
            differing = differing_parts(first, second)
            if len(differing) != 1:
                continue
            (a, boxes), (b, _) = scene(seed, first, SIZE), scene(seed, second, SIZE)
            x0, y0, x1, y1 = boxes[differing[0]]
            visible = np.abs(a - b).max(axis=2)[y0:y1, x0:x1] > 24
            assert visible.sum() >= 4, (seed, first, second)


def test_generate_writes_images_and_ground_truth(tmp_path):
    seen = []
    folder = tmp_path / "new" / "demo"
    generate(folder, 5, SIZE, COUNTS, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 48) for done in range(1, 49)]
    truth = json.loads((folder / "parts.json").read_text())
    assert (truth["seed"], truth["size"], tuple(truth["classes"])) == (5, SIZE, CLASS_NAMES)
    assert {name: tuple(parts) for name, parts in truth["deciding_parts"].items()} == {
        name: deciding_parts(name) for name in CLASS_NAMES
    }
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    assert files == set(truth["images"])
    assert Counter(tuple(path.split("/")[:2]) for path in files) == {
        (split, name): count for split, count in COUNTS.items() for name in CLASS_NAMES
    }
    drawn = draw_image(5, "train", 12 + 3, SIZE)
    path = f"train/{CLASS_NAMES[3]}/0001.png"
    with Image.open(folder / path) as stored:
        assert stored.tobytes() == drawn.image.tobytes()
    assert {part: tuple(box) for part, box in truth["images"][path].items()} == drawn.parts
    assert [path.name for path in folder.parent.iterdir()] == ["demo"]


@pytest.mark.parametrize("executable", [sys.executable, "/bin/true", "/missing"])
def test_several_processes_write_the_same_files(tmp_path, monkeypatch, executable):
    generate(tmp_path / "one", 0, 32, COUNTS)
    monkeypatch.setattr(drawing, "SHARE", 10)
    monkeypatch.setattr(drawing, "_cores", lambda: 3)
    monkeypatch.setattr(sys, "executable", executable)  # what another process does not draw, this one does
    seen = []
    generate(tmp_path / "three", 0, 32, COUNTS, lambda done, total: seen.append(done))
    assert len(seen) == (16 if "python" in executable else 48)
    folders = tmp_path / "one", tmp_path / "three"
    one, three = ({path.relative_to(d): path.read_bytes() for path in d.rglob("*.*")} for d in folders)
    assert one == three and len(one) == 49


def test_an_interrupted_run_leaves_nothing(tmp_path):
    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "demo", 0, 16, COUNTS, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_concurrent_generation_succeeds(tmp_path):
    meet, errors = threading.Barrier(2), []

    def write() -> None:
        try:
            generate(tmp_path / "demo", 0, 16, {"train": 1}, lambda done, total: meet.wait(30) and None)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert len(list((tmp_path / "demo").rglob("*.png"))) == 12


def test_another_dataset_is_not_overwritten(tmp_path):
    generate(tmp_path / "demo", 0, 16, {"train": 1})
    with pytest.raises(FileExistsError, match="another dataset"):
        generate(tmp_path / "demo", 1, 16, {"train": 1})
    assert json.loads((tmp_path / "demo" / "parts.json").read_text())["seed"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_unknown_species_have_known_traits_in_other_combinations(tmp_path) -> None:
    every = {**SPECIES, **UNKNOWN_SPECIES}
    assert len(every) == 18 and len(set(every.values())) == 18
    for part in PARTS:
        assert {vars(t)[part] for t in UNKNOWN_SPECIES.values()} <= {vars(t)[part] for t in SPECIES.values()}
    nearest = [min(len(differing_parts(name, other, every)) for other in SPECIES) for name in UNKNOWN_SPECIES]
    assert sorted(nearest)[:3] == [1, 1, 1] and sorted(nearest)[3] > 1
    generate(tmp_path / "unknown", 0, 32, {"test": 1}, None, UNKNOWN_SPECIES, "unknown/")
    assert sorted(path.name for path in (tmp_path / "unknown/test").iterdir()) == sorted(UNKNOWN_SPECIES)
    known = [draw_image(0, "test", index, 32).image.getpixel((0, 0)) for index in range(6)]
    drawn = [draw_image(0, "unknown/test", index, 32, UNKNOWN_SPECIES).image.getpixel((0, 0)) for index in range(6)]
    assert known != drawn  # not the same scenes with other birds
