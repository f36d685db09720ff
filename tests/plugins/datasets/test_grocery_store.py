from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fgvc_cli.contracts import DatasetRequest
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.options import build
from fgvc_datasets import grocery_store
from fgvc_datasets.grocery_store import GroceryStoreDataset
from fgvc_datasets.options import GroceryStoreOptions

# as published: lines end in \r\n, the last one in nothing
CLASSES = (
    "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),Iconic Image Path (str),"
    "Product Description Path (str)\r\n"
    "Royal-Gala,0,Apple,0,/iconic-images-and-descriptions/a.jpg,/iconic-images-and-descriptions/a.txt\r\n"
    "Granny-Smith,1,Apple,0,/iconic-images-and-descriptions/b.jpg,/iconic-images-and-descriptions/b.txt\r\n"
    "Zucchini,2,Zucchini,1,/iconic-images-and-descriptions/c.jpg,/iconic-images-and-descriptions/c.txt"
)
LISTS = {
    "train": "train/Fruit/Apple/Royal-Gala/Royal-Gala_001.jpg, 0, 0\n"
    "train/Fruit/Apple/Granny-Smith/Granny-Smith_001.jpg, 1, 0\n"
    "train/Vegetables/Zucchini/Zucchini_001.jpg, 2, 1\n",
    "val": "val/Vegetables/Zucchini/Zucchini_001.jpg, 2, 1\n",
    "test": "test/Vegetables/Zucchini/Zucchini_001.jpg, 2, 1\n"
    "test/Fruit/Apple/Granny-Smith/Granny-Smith_001.jpg, 1, 0\n",
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with six images, as if six were all."""
    monkeypatch.setattr(grocery_store, "PUBLISHED", {"train": 3, "val": 1, "test": 2})
    base = tmp_path / "grocery_store" / "dataset"
    base.mkdir(parents=True)
    (base / "classes.csv").write_bytes(CLASSES.encode())
    for split, text in LISTS.items():
        (base / f"{split}.txt").write_text(text)
        for line in text.splitlines():
            image = base / line.split(",")[0]
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(image)
    return tmp_path


def opened(root: Path, **options: str) -> tuple[GroceryStoreDataset, list[str]]:
    notes: list[str] = []
    request = DatasetRequest(None, root, root / "cache", 0, notes.append)
    return GroceryStoreDataset(request=request, options=build(GroceryStoreOptions, options, "dataset")), notes


def test_fine_classes_are_the_default(root: Path) -> None:
    dataset, notes = opened(root)
    assert dataset.class_names == ("Royal-Gala", "Granny-Smith", "Zucchini")
    assert {name: list(dataset.split(name).labels) for name in dataset.splits()} == {
        "train": [0, 1, 2],
        "val": [2],
        "test": [2, 1],
    }
    assert {dataset.split(name).origin for name in dataset.splits()} == {"official"} and notes == []
    assert dataset.split("val").keys[0] == "val/Vegetables/Zucchini/Zucchini_001.jpg"
    assert all(Path(image).is_file() for name in dataset.splits() for image in dataset.split(name).images)


def test_coarse_classes(root: Path) -> None:
    dataset, _ = opened(root, level="coarse")
    assert dataset.class_names == ("Apple", "Zucchini")
    assert list(dataset.split("train").labels) == [0, 0, 1] and list(dataset.split("test").labels) == [1, 0]
    assert dataset.identity()["level"] == "coarse" != opened(root)[0].identity()["level"]
    with pytest.raises(UsageError, match="fine or coarse"):
        opened(root, level="finest")


def test_a_shortened_list_is_not_called_official(root: Path) -> None:
    (root / "grocery_store/dataset/test.txt").write_text(LISTS["test"].splitlines()[0])
    dataset, notes = opened(root)
    assert dataset.split("train").origin == "official"
    assert dataset.split("test").origin == "not the official one: 1 images are listed here where 2 are published"
    assert len(notes) == 1 and "test split is not the official one" in notes[0]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes.csv", "name,number\n", "classes.csv: does not begin with 'Class Name"),
        ("classes.csv", "", "classes.csv: does not begin"),
        ("classes.csv", CLASSES.replace("Smith,1", "Smith,one"), "classes.csv: a line lacks a class name or number"),
        ("val.txt", "val/a.jpg, 2\n", r"val.txt, line 1: 'val/a.jpg, 2' is not a path and two class numbers"),
        ("val.txt", "val/a.jpg, 7, 1\n", r"val.txt: class 7 is not in classes.csv"),
    ],
)
def test_a_damaged_list_is_named_in_one_line(name: str, text: str, message: str, root: Path) -> None:
    (root / "grocery_store/dataset" / name).write_text(text)
    with pytest.raises(FgvcError, match=message) as caught:
        opened(root)
    assert "\n" not in str(caught.value)


def test_provision(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    def provision(root: Path):
        return GroceryStoreDataset.provision(DatasetRequest(None, root, root, 0), GroceryStoreOptions())

    assert provision(root).missing() == ()
    empty = provision(tmp_path_factory.mktemp("empty"))
    assert set(empty.missing()) == set(empty.needed) == set(empty.downloads[0].results)
    assert {"dataset/classes.csv", "dataset/val.txt", "dataset/test"} <= set(empty.needed)
    assert empty.downloads[0].strip == 1  # the archive has one folder around everything
    assert "GroceryStoreDataset '/my data/grocery_store'" in provision(Path("/my data")).by_hand
    with pytest.raises(FgvcError, match="grocery_store not found"):
        opened(empty.folder)


def test_coarse_classes_are_groups_of_the_fine_ones(root: Path) -> None:
    found = opened(root)[0].taxonomy()
    assert found is not None and found.levels == ("fine", "coarse")
    assert found.ancestors == {"Royal-Gala": ("Apple",), "Granny-Smith": ("Apple",), "Zucchini": ("Zucchini",)}
    assert opened(root, level="coarse")[0].taxonomy() is None
