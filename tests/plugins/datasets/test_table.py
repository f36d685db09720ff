from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fgvc_cli.contracts import DatasetRequest
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_datasets.options import TableOptions
from fgvc_datasets.table.dataset import TableDataset

IMAGES = ("a.jpg", "b.jpg", "sub/c.png", "one, two.jpg", "Žluťásek č. 1.jpg")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the images that the tables name."""
    for name in IMAGES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    return tmp_path


class Opened:
    """A table that was written and opened, and what it noted."""

    def __init__(self, folder: Path, text: str | bytes, name: str = "photos.csv", **options: str) -> None:
        self.file = folder / name
        self.file.write_bytes(text if isinstance(text, bytes) else text.encode())
        self.notes: list[str] = []
        request = DatasetRequest(self.file, folder / "data", folder / "cache", 0, self.notes.append)
        self.dataset = TableDataset(request=request, options=TableOptions(**options))

    def rows(self, split: str = "train") -> list[tuple[str, str]]:
        found = self.dataset.split(split)
        return [(key, self.dataset.class_names[label]) for key, label in zip(found.keys, found.labels, strict=True)]


AB = [("a.jpg", "cat"), ("b.jpg", "dog")]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("path,label\na.jpg,cat\nb.jpg,dog\n", "photos.csv"),
        ("path,label\r\na.jpg,cat\r\nb.jpg,dog\r\n", "photos.csv"),
        ("\ufeffpath,label\na.jpg,cat\nb.jpg,dog", "photos.csv"),
        ("\ufeffa.jpg,cat\nb.jpg,dog", "photos.csv"),
        ("a.jpg,cat\nb.jpg,dog\n", "photos.csv"),
        ("a.jpg;cat\nb.jpg;dog\n", "photos.csv"),
        ("path;label\na.jpg;cat\nb.jpg;dog\n", "PHOTOS.CSV"),
        ("path\tlabel\na.jpg\tcat\nb.jpg\tdog\n", "photos.tsv"),
        ("a.jpg\tcat\nb.jpg\tdog\n", "photos.tsv"),
        ("path\tlabel\na.jpg\tcat\nb.jpg\tdog\n", "photos.csv"),
        ("CLASS, FileName\ncat, a.jpg\ndog, b.jpg\n", "photos.csv"),
        ('"image","category"\n"a.jpg","cat"\n"b.jpg","dog"\n', "photos.csv"),
        (",image_path,class_name\n0,a.jpg,cat\n1,b.jpg,dog\n", "photos.csv"),
        ("\n\npath,label,\na.jpg,cat,\n,,\nb.jpg,dog,,,\n\n", "photos.csv"),
    ],
)
def test_formats_of_a_table(text: str, name: str, folder: Path) -> None:
    opened = Opened(folder, text, name)
    assert opened.rows() == AB and opened.notes == []
    assert opened.dataset.splits() == ("train",)
    assert opened.dataset.split("train").origin == f"all of {opened.file}, which has no column of splits"
    assert [Path(image) for image in opened.dataset.split("train").images] == [folder / "a.jpg", folder / "b.jpg"]


@pytest.mark.parametrize("header", ["path,label,split\n", "path,label,Subset\n", "image,class,partition\n", ""])
def test_splits(header: str, folder: Path) -> None:
    dataset = Opened(folder, f"{header}a.jpg,cat,Test\nb.jpg,dog,training\nsub/c.png,cat,valid\n").dataset
    assert dataset.splits() == ("train", "val", "test")
    assert {name: list(dataset.split(name).keys) for name in dataset.splits()} == {
        "train": ["b.jpg"],
        "val": ["sub/c.png"],
        "test": ["a.jpg"],
    }
    assert dataset.class_names == ("cat", "dog") and list(dataset.split("train").labels) == [1]
    assert dataset.split("train").origin == ""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('path,label\n"one, two.jpg",say ""hm""\n', "photos.csv"),
        ('path,label\n"one, two.jpg","say """"hm"""""\n', "photos.csv"),
        ('one, two.jpg;"say """"hm"""""\n', "photos.csv"),
        ('one, two.jpg\tsay ""hm""\n', "photos.tsv"),
    ],
)
def test_quotes_and_commas(text: str, name: str, folder: Path) -> None:
    opened = Opened(folder, text, name)
    assert opened.rows() == [("one, two.jpg", 'say ""hm""')]
    assert Path(opened.dataset.split("train").images[0]).is_file()


def test_numbered_folds_are_no_splits(folder: Path) -> None:
    opened = Opened(folder, "file_name,label,fold\na.jpg,cat,0\nb.jpg,dog,1\n")
    assert opened.rows() == AB and opened.dataset.splits() == ("train",)
    (note,) = opened.notes
    assert "'fold' is not used" in note and "is_valid" in note
    assert Opened(folder, "path,label,fold,is_valid\na.jpg,cat,0,True\nb.jpg,dog,1,False\n").rows() == AB[1:]


def test_a_quoted_cell_may_run_over_lines_and_later_errors_name_the_right_line(folder: Path) -> None:
    assert Opened(folder, 'path,label\na.jpg,"big\ncat"\n').rows() == [("a.jpg", "big\ncat")]
    with pytest.raises(FgvcError, match=r"photos.csv, line 4: the label is empty"):
        Opened(folder, 'path,label\na.jpg,"big\ncat"\nb.jpg,\n')


def test_named_columns(folder: Path) -> None:
    text = "photo,species,fold,label\na.jpg,cat,train,1\nb.jpg,dog,test,2\n"
    opened = Opened(folder, text, path="photo", label="Species", split="fold")
    assert opened.rows() == AB[:1] and opened.rows("test") == AB[1:]
    assert Opened(folder, text, path="photo").rows() == [("a.jpg", "1")]  # a fold with the names of splits is one
    with pytest.raises(UsageError, match=r"line 1: no column 'specis'.*Did you mean 'species'"):
        Opened(folder, text, label="specis")
    with pytest.raises(FgvcError, match=r"line 1: several columns are called 'kind'"):
        Opened(folder, "photo,kind,kind\na.jpg,cat,1\n", path="photo", label="kind")
    twice = "photo,kind,KIND\na.jpg,cat,1\n"
    assert [Opened(folder, twice, path="photo", label=k).rows()[0][1] for k in ("kind", "KIND")] == ["cat", "1"]


def test_paths_are_relative_to_root(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    lists = tmp_path_factory.mktemp("lists")
    text = "path,label\na.jpg,cat\nb.jpg,dog\n"
    opened = Opened(lists, text, root=str(folder))
    assert Path(opened.dataset.split("train").images[0]) == folder / "a.jpg"
    assert opened.dataset.identity()["folder"] == str(folder)
    (lists / "sub").mkdir()
    relative = Opened(lists / "sub", text, root=f"../../{folder.name}")
    assert Path(relative.dataset.split("train").images[0]) == folder / "a.jpg"
    with pytest.raises(UsageError, match=r"dataset.root=nowhere.*/nowhere"):
        Opened(lists, text, root="nowhere")
    absolute = Opened(lists, f"path,label\n{folder / 'a.jpg'},cat\n")
    assert Path(absolute.dataset.split("train").images[0]) == folder / "a.jpg"


def test_numbers_are_names_sorted_by_value_if_all_are_numbers(folder: Path) -> None:
    assert Opened(folder, "a.jpg,10\nb.jpg,9\nsub/c.png,-1\n").dataset.class_names == ("-1", "9", "10")
    assert Opened(folder, "a.jpg,10\nb.jpg,9\nsub/c.png,x\n").dataset.class_names == ("10", "9", "x")


@pytest.mark.parametrize(("one", "other"), [("Cat", "cat"), ("Gr\u00fcn", "Gru\u0308n")], ids=["case", "umlaut"])
def test_similar_class_names_are_noted(one: str, other: str, folder: Path) -> None:
    opened = Opened(folder, f"a.jpg,{one}\nb.jpg,dog\nsub/c.png,{other}\n")
    assert set(opened.dataset.class_names) == {one, "dog", other}
    first, second = sorted((one, other))
    (note,) = opened.notes
    assert note.startswith(f"{opened.file}: '{first}' and '{second}' are two classes")


def test_repeated_rows_count_once_and_are_noted(folder: Path) -> None:
    opened = Opened(folder, "path,label\na.jpg,cat\nb.jpg,dog\n./a.jpg,cat\n")
    assert opened.rows() == AB
    (note,) = opened.notes
    assert note.startswith(f"{opened.file}: 1 row is ignored") and "line 4" in note


def test_an_image_in_two_splits_is_noted(folder: Path) -> None:
    opened = Opened(folder, "path,label,split\na.jpg,cat,train\nb.jpg,dog,train\na.jpg,cat,test\n")
    assert opened.rows() == AB and opened.rows("test") == AB[:1]
    assert opened.notes == [f"{opened.file}: 1 image is in more than one split, such as a.jpg in train and test"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n \n", "photos.csv: empty"),
        ("path,label\n", "has a header but no images"),
        ("path,label\na.jpg,\n", "line 2: the label is empty"),
        ("path,label\na.jpg,cat\n ,cat\n", "line 3: the path is empty"),
        ("path,label\na.jpg,cat\nb.jpg\n", "line 3: 1 column where the first line has 2"),
        ("path,label\na.jpg,cat\none, two.jpg,cat\n", "line 3: 3 columns where the first line has 2.*quote"),
        ("path,label,split\na.jpg,cat,tests\n", r"line 2: 'tests' is not a split. Did you mean 'test'"),
        ("path,label,split\na.jpg,cat,\n", "line 2: the split is empty"),
        ("path,label\na.jpg,cat\na.jpg,dog\n", "line 3: a.jpg is 'dog' here and 'cat' in line 2"),
        ("name,label\na.jpg,cat\n", r"line 1: no column for the path .* among 'name', 'label'.*`dataset.path`"),
        ("path,species\na.jpg,cat\n", r"line 1: no column for the label .*`dataset.label`"),
        ("path,label,class\na.jpg,cat,1\n", r"line 1: the columns 'label' and 'class' may all be the label"),
        ("path,label,label\na.jpg,cat,1\n", r"line 1: several columns are called 'label'.*rename all but one"),
        (f"path,label,{'x' * 200_000}\na.jpg,cat,1\n", r"line 1: field larger than field limit"),
        ("sub\\a.jpg,cat\n", r"none of its 1 images exists.*between folders by /"),
        ("a.jpg,cat,train,3\n", "line 1: without a header line .* and this line has 4 columns"),
        ("a.jpg\nb.jpg\n", "line 1: without a header line .* and this line has 1 column"),
        ("cat,a.jpg\n", "line 1: without a header line .* has its image in another column"),
        ('path,label\n"a.jpg,cat\n', "line 2: unexpected end of data; close quotes"),
        ('path,label\n"a"b.jpg,cat\n', "line 2: .*close quotes"),
        ("path,label\na\0.jpg,cat\n", "line 2: the path contains a null byte|line 2: line contains NUL"),
        ("path,label\na.jpg,Grö\n".encode("latin-1"), r"photos.csv: not UTF-8 text \(byte 19\)"),
        ("path,label\na.jpg,cat\n".encode("utf-16"), r"photos.csv: not UTF-8 text \(byte 0\)"),
    ],
)
def test_invalid_tables_are_rejected_in_one_line(text: str | bytes, message: str, folder: Path) -> None:
    with pytest.raises(FgvcError, match=message) as caught:
        Opened(folder, text)
    assert "\n" not in str(caught.value) and str(folder / "photos.csv") in str(caught.value)


def test_missing_images_are_rejected_only_if_all_of_the_first_are_missing(folder: Path) -> None:
    lost = [f"lost{n}.jpg,cat\n" for n in range(30)]
    assert len(Opened(folder, "".join([*lost[:10], "a.jpg,dog\n", *lost[10:]])).rows()) == 31
    with pytest.raises(FgvcError, match=r"none of the first 20 images exists, such as .*lost0.jpg") as caught:
        Opened(folder, "".join([*lost, "a.jpg,dog\n"]))
    assert f"relative to {folder}," in str(caught.value) and "`dataset.root`" in str(caught.value)
    with pytest.raises(FgvcError, match="none of its 2 images exists"):
        Opened(folder, "".join(lost[:2]))


def test_a_missing_file_and_a_folder_are_rejected(folder: Path) -> None:
    def made(file: Path | None) -> TableDataset:
        return TableDataset(request=DatasetRequest(file, folder, folder, 0), options=TableOptions())

    (folder / "photos.csv").write_text("a.jpg,cat\n")
    with pytest.raises(FgvcError, match=r"photo.csv: no such file. Did you mean 'photos.csv'"):
        made(folder / "photo.csv")
    with pytest.raises(FgvcError, match="is not a file"):
        made(folder / "sub")
    with pytest.raises(UsageError, match="`data`"):
        made(None)


def test_identity_changes_with_labels_and_rows_alone(folder: Path) -> None:
    def digest(text: str) -> str:
        return str(Opened(folder, text).dataset.identity()["rows_sha256"])

    same = {digest("path,label\na.jpg,cat\nb.jpg,dog\n"), digest("a.jpg;cat\r\nb.jpg;dog\r\n")}
    assert len(same | {digest("a.jpg,cat\nb.jpg,cat\n"), digest("b.jpg,dog\na.jpg,cat\n")}) == 3
    identity = Opened(folder, "a.jpg,cat,train\nb.jpg,dog,test\n").dataset.identity()
    assert identity["images"] == {"train": 1, "test": 1} and identity["file"] == str(folder / "photos.csv")


def test_columns_of_other_libraries(folder: Path) -> None:
    text = "file_name,label,is_valid\na.jpg,cat,False\nb.jpg,dog,False\nsub/c.png,cat,True\n"
    opened = Opened(folder, text)
    assert opened.rows() == AB and opened.rows("val") == [("sub/c.png", "cat")]
    with pytest.raises(FgvcError, match="'2' is not a split.*true"):
        Opened(folder, text.replace("True", "2"))
    assert Opened(folder, "image_id,path,label\n1,a.jpg,cat\n2,b.jpg,dog\n").rows() == AB


def test_identifiers_without_a_suffix(folder: Path) -> None:
    opened = Opened(folder, "image_id,label\na,cat\nb,dog\n")
    assert opened.rows() == [("a", "cat"), ("b", "dog")]
    assert [path.name for path in opened.dataset.split("train").images] == ["a.jpg", "b.jpg"]
    assert "a.jpg" in opened.notes[0]


GENERA = (
    "path,label,family,genus\na.jpg,gull,Laridae,Larus\nb.jpg,tern,Laridae,Sterna\nsub/c.png,crow,Corvidae,Corvus\n"
)


@pytest.mark.parametrize("options", [{}, {"parents": "family,genus"}, {"parents": "Genus, family"}])
def test_columns_of_groups(folder: Path, options: dict[str, str]) -> None:
    found = Opened(folder, GENERA, **options).dataset.taxonomy()
    assert found is not None and found.levels == ("class", "genus", "family")
    assert found.ancestors["tern"] == ("Sterna", "Laridae")


def test_some_columns_of_groups_or_none(folder: Path) -> None:
    found = Opened(folder, GENERA, parents="family").dataset.taxonomy()
    assert found is not None and found.levels == ("class", "family")
    assert Opened(folder, "path,label\na.jpg,cat\nb.jpg,dog\n").dataset.taxonomy() is None


def test_groups_that_are_no_tree_are_refused_if_named_and_noted_otherwise(folder: Path) -> None:
    two = "path,label,genus\na.jpg,gull,Larus\nb.jpg,gull,Sterna\nsub/c.png,crow,Corvus\n"
    opened = Opened(folder, two)
    assert opened.dataset.taxonomy() is None and any("'gull' has two parents" in note for note in opened.notes)
    with pytest.raises(FgvcError, match=r"'gull' has two parents, genus 'Larus' in line 2 and 'Sterna' in line 3"):
        Opened(folder, two, parents="genus")
    with pytest.raises(UsageError, match="no column 'genera'"):
        Opened(folder, two, parents="genera")
    with pytest.raises(UsageError, match="twice"):
        Opened(folder, GENERA, parents="genus,genus")
