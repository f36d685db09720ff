"""cub200 and nabirds, in tiny sets of the exact official layout."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import pytest
from PIL import Image

from fgvc_cli.contracts import DatasetRequest
from fgvc_cli.errors import FgvcError
from fgvc_cli.options import NoOptions
from fgvc_datasets.visipedia import Cub200Dataset, NabirdsDataset, VisipediaDataset

CUB = {
    "images.txt": "1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg\n"
    "2 001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg\n"
    "3 002.Laysan_Albatross/Laysan_Albatross_0002_1027.jpg\n"
    "4 010.Red_winged_Blackbird/Red_Winged_Blackbird_0011_5845.jpg\n"
    "5 010.Red_winged_Blackbird/Red_Winged_Blackbird_0079_4527.jpg\n",
    "image_class_labels.txt": "1 1\n2 1\n3 2\n4 10\n5 10\n",
    "train_test_split.txt": "1 0\n2 1\n3 1\n4 1\n5 0\n",
    "classes.txt": "1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n10 010.Red_winged_Blackbird\n",
    "bounding_boxes.txt": "1 60.0 27.0 325.0 304.0\n",
    "parts/parts.txt": "1 back\n2 beak\n",
}
NABIRDS = {
    "images.txt": "0000139e-21dc-4d0c-bfe1-4cae3c85c829 0817/0000139e21dc4d0cbfe14cae3c85c829.jpg\n"
    "0000d9fc-4e02-4c06-a0af-a55cfb16b12b 0328/0000d9fc4e024c06a0afa55cfb16b12b.jpg\n"
    "00019306-9d83-4334-b255-a447742edce3 1003/000193069d834334b255a447742edce3.jpg\n",
    "image_class_labels.txt": "0000139e-21dc-4d0c-bfe1-4cae3c85c829 817\n0000d9fc-4e02-4c06-a0af-a55cfb16b12b 328\n"
    "00019306-9d83-4334-b255-a447742edce3 1003\n",
    "train_test_split.txt": "0000139e-21dc-4d0c-bfe1-4cae3c85c829 1\n0000d9fc-4e02-4c06-a0af-a55cfb16b12b 0\n"
    "00019306-9d83-4334-b255-a447742edce3 0\n",
    "classes.txt": "0 Birds\n1 Ducks, Geese, and Swans\n328 Brandt's Cormorant\n817 Oak Titmouse\n"
    "1003 House Sparrow (Female/Juvenile)\n",
    "hierarchy.txt": "1 0\n328 1\n",
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for line in files["images.txt"].splitlines():
        image = folder / "images" / line.split(" ")[1]
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(image)


def opened(kind: type[VisipediaDataset], root: Path) -> tuple[VisipediaDataset, list[str]]:
    notes: list[str] = []
    dataset = kind(request=DatasetRequest(None, root, root / "cache", 0, notes.append), options=NoOptions())
    return dataset, notes


@pytest.fixture
def cub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with five images of CUB-200-2011, as if five were all."""
    monkeypatch.setattr(Cub200Dataset, "published", MappingProxyType({"train": 3, "test": 2}))
    write(tmp_path / "cub200" / "CUB_200_2011", CUB)
    return tmp_path


@pytest.fixture
def nabirds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with three images of NABirds, as if three were all."""
    monkeypatch.setattr(NabirdsDataset, "published", MappingProxyType({"train": 1, "test": 2}))
    write(tmp_path / "nabirds", NABIRDS)
    return tmp_path


def test_cub200_follows_the_official_lists(cub: Path) -> None:
    dataset, notes = opened(Cub200Dataset, cub)
    assert dataset.name == "cub200" and notes == []
    assert dataset.class_names == ("Black footed Albatross", "Laysan Albatross", "Red winged Blackbird")
    assert dataset.splits() == ("train", "test")
    train, test = dataset.split("train"), dataset.split("test")
    assert [key.split("/")[1] for key in train.keys] == [
        "Black_Footed_Albatross_0009_34.jpg",
        "Laysan_Albatross_0002_1027.jpg",
        "Red_Winged_Blackbird_0011_5845.jpg",
    ]
    assert list(train.labels) == [0, 1, 2] and list(test.labels) == [0, 2]
    assert train.origin == test.origin == "official"
    assert all(Path(image).is_file() for split in (train, test) for image in split.images)
    assert dataset.identity()["images"] == {"train": 3, "test": 2}


def test_nabirds_has_the_classes_with_images_in_the_order_of_their_numbers(nabirds: Path) -> None:
    dataset, notes = opened(NabirdsDataset, nabirds)
    assert dataset.class_names == ("Brandt's Cormorant", "Oak Titmouse", "House Sparrow (Female/Juvenile)")
    assert list(dataset.split("train").labels) == [1] and list(dataset.split("test").labels) == [0, 2]
    assert dataset.split("train").origin == "official" and notes == []
    assert all(Path(image).is_file() for image in dataset.split("test").images)


def test_equal_class_names_get_their_number_appended(nabirds: Path) -> None:
    (nabirds / "nabirds/classes.txt").write_text("328 Gull\n817 Oak Titmouse\n1003 Gull\n")
    assert opened(NabirdsDataset, nabirds)[0].class_names == ("Gull [328]", "Oak Titmouse", "Gull [1003]")


@pytest.mark.parametrize(("kind", "published"), [(Cub200Dataset, (5994, 5794)), (NabirdsDataset, (23929, 24633))])
def test_a_different_number_of_images_is_not_official(kind, published, tmp_path: Path) -> None:
    write(tmp_path / kind.title / kind.below, CUB)
    dataset, notes = opened(kind, tmp_path)
    for split, count in zip(("train", "test"), published, strict=True):
        assert "not the official" in dataset.split(split).origin and f"{count:,}" in dataset.split(split).origin
        assert any(f"{count:,}" in note and split in note for note in notes)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("images.txt", "", r"images.txt: empty"),
        ("images.txt", "1 a.jpg\n1 b.jpg\n", r"images.txt, line 2: '1 b.jpg' repeats an identifier"),
        ("images.txt", "1 a.jpg\n7 b.jpg\n", r"image_class_labels.txt: no line for '7'"),
        ("images.txt", b"\xff\xfe1", r"images.txt: not UTF-8 text at byte 0"),
        ("image_class_labels.txt", "1\n", r"image_class_labels.txt, line 1: '1' is not an identifier"),
        ("image_class_labels.txt", "1 1\n2 1\n3 x\n4 1\n5 1\n", r"image_class_labels.txt: 'x' is not a class number"),
        ("train_test_split.txt", "1 0\n2 yes\n3 1\n4 1\n5 0\n", r"train_test_split.txt: image '2' has 'yes'"),
        ("classes.txt", "1 001.Black_footed_Albatross\n", r"classes.txt: no line for '2'"),
    ],
)
def test_a_damaged_list_is_named_in_one_line(name: str, text: str | bytes, message: str, cub: Path) -> None:
    (cub / "cub200/CUB_200_2011" / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FgvcError, match=message) as caught:
        opened(Cub200Dataset, cub)
    assert "\n" not in str(caught.value) and "prepare the dataset again" in str(caught.value)


@pytest.mark.parametrize(("kind", "files"), [(Cub200Dataset, CUB), (NabirdsDataset, NABIRDS)])
def test_exactly_the_needed_files_are_required(kind, files, tmp_path: Path) -> None:
    write(tmp_path / kind.title / kind.below, files)
    provision = kind.provision(DatasetRequest(None, tmp_path, tmp_path, 0), NoOptions())
    assert provision.missing() == () and provision.by_hand and provision.homepage.startswith("https://")
    for name in provision.needed:
        path = provision.folder / name
        path.rename(path.with_name("elsewhere"))
        assert provision.missing() == (name,)
        path.with_name("elsewhere").rename(path)
    kept = {str(provision.folder / name) for name in provision.needed}
    for path in (tmp_path / kind.title).rglob("*.txt"):
        if str(path) not in kept:
            path.unlink()
    opened(kind, tmp_path)


def test_cub200_downloads_all_files_and_nabirds_has_instructions(tmp_path: Path) -> None:
    request = DatasetRequest(None, tmp_path, tmp_path, 0)
    provision = Cub200Dataset.provision(request, NoOptions())
    assert {name for download in provision.downloads for name in download.results} == set(provision.needed)
    by_form = NabirdsDataset.provision(request, NoOptions())
    assert by_form.downloads == () and str(tmp_path) in by_form.by_hand and "dl.allaboutbirds.org" in by_form.by_hand
    blanks = DatasetRequest(None, Path("/my data"), tmp_path, 0)
    assert NabirdsDataset.provision(blanks, NoOptions()).by_hand.endswith("tar xzf nabirds.tar.gz -C '/my data'")


def test_cub_groups_birds_by_the_last_word_of_their_names(cub: Path) -> None:
    found = opened(Cub200Dataset, cub)[0].taxonomy()
    assert found is not None and found.levels == ("species", "last word")
    assert found.ancestors["Laysan Albatross"] == ("Albatross",)


def test_nabirds_has_the_groups_of_its_hierarchy(tmp_path: Path) -> None:
    write(tmp_path / "nabirds", NABIRDS)
    dataset, _ = opened(NabirdsDataset, tmp_path)
    found = dataset.taxonomy()
    assert found is not None and found.fault(dataset.class_names) == ""
    assert found.ancestors["Brandt's Cormorant"] == ("Ducks, Geese, and Swans",)
    assert found.ancestors["Oak Titmouse"] == ("",)
    (tmp_path / "nabirds/hierarchy.txt").write_text("328 1\n1 328\n")
    with pytest.raises(FgvcError, match=r"hierarchy\.txt"):
        dataset.taxonomy()
    (tmp_path / "nabirds/hierarchy.txt").unlink()
    assert dataset.taxonomy() is None
