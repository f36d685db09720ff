"""What holds for each dataset that torchvision knows, at each of its levels and in each of its versions."""

from __future__ import annotations

import re
from contextlib import contextmanager

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from fgvc_cli.errors import FgvcError


def by_split(dataset):
    """Return the class of each image by its key, for each split."""
    return {
        name: {
            key: dataset.class_names[label]
            for key, label in zip(dataset.split(name).keys, dataset.split(name).labels, strict=True)
        }
        for name in dataset.splits()
    }


def test_splits_labels_and_origins_are_the_official_ones(sets, case):
    truth = sets.write(case)
    sets.expect(case, truth)
    dataset = sets.open(case.dataset, **case.options)
    assert by_split(dataset) == truth
    assert {name: dataset.split(name).origin for name in dataset.splits()} == case.origins
    assert next(iter(dataset.splits())) == "train"
    assert sets.notes == []


def test_an_incomplete_dataset_is_not_official(sets, case):
    sets.write(case)
    dataset = sets.open(case.dataset, **case.options)
    for name in dataset.splits():
        assert re.search(r"not the official one: \d+ images are listed here where", dataset.split(name).origin)
    assert len(sets.notes) == len(dataset.splits())


def test_missing_files_are_named(sets, case):
    default = {"level": "variant"} if case.dataset == "fgvc_aircraft" else {"version": "2021"}
    chosen = "".join(f" `dataset.{k}={v}`" for k, v in case.options.items() if default[k] != v)
    with pytest.raises(FgvcError) as raised:
        sets.open(case.dataset, **case.options)
    message = str(raised.value)
    assert message.startswith(f"{case.dataset} not found: {sets.root / case.folder} lacks ")
    assert message.endswith(f"Next: fgvc data prepare {case.dataset}{chosen}")
    assert not (sets.root / case.folder).exists()  # looking leaves nothing behind


def test_the_layout_is_complete_and_every_part_is_provided(sets, case):
    assert sets.provision(case.dataset, **case.options).missing()
    sets.write(case)
    provision = sets.provision(case.dataset, **case.options)
    assert provision.missing() == ()
    dataset = sets.open(case.dataset, **case.options)
    assert {name for split in dataset.published_images() for name in dataset.lists(split)} <= set(provision.needed)
    given = {name for download in provision.downloads for name in download.results}
    for name in provision.needed:
        assert name in given or re.search(rf"\b{re.escape(name)}(\b|/)", provision.by_hand), name
    assert provision.homepage.startswith("https://") and provision.license
    assert all(re.fullmatch(r"md5:[0-9a-f]{32}|", download.checksum) for download in provision.downloads)


def lists_of(sets, case):
    """Return the lists that the set is read from, as files."""
    provision = sets.provision(case.dataset, **case.options)
    return [provision.folder / name for name in provision.needed if (provision.folder / name).is_file()]


@contextmanager
def suppress_damage(path, command):
    """Let an `FgvcError` pass that says in one line which file is damaged, and what to do."""
    try:
        yield
    except FgvcError as error:
        told = str(error)
    else:
        return
    assert path.name in told and command in told and "\n" not in told


def test_a_damaged_list_is_named_in_one_line(sets, case):
    truth = sets.write(case)
    sets.expect(case, truth)
    for path in lists_of(sets, case):
        whole = path.read_bytes()
        for damage in (whole[: len(whole) // 2], b"", b"\xff\xfe<html>404</html>\n", whole + b"\nx"):
            path.write_bytes(damage)
            with suppress_damage(path, f"prepare {case.dataset} again"):
                dataset = sets.open(case.dataset, **case.options)
                # half a list of plain lines is a list, but must not pass for the official one
                origins = [dataset.split(name).origin for name in dataset.splits()]
                assert by_split(dataset) == truth or any("not the official one" in origin for origin in origins)
        path.write_bytes(whole)
    assert sets.open(case.dataset, **case.options).class_names


def test_missing_images_are_accepted_unless_all_are_missing(sets, case):
    truth = sets.write(case)
    folder = sets.root / case.folder
    first, *others = [folder / name for name in truth["test"]]
    if case.options.get("version", "").startswith("2021"):
        return  # these go by the files that there are
    first.unlink()
    assert len(sets.open(case.dataset, **case.options).split("test")) == len(others) + 1
    for path in others:
        path.unlink()
    with pytest.raises(FgvcError, match=r"does not exist, nor does any other image"):
        sets.open(case.dataset, **case.options)


@pytest.mark.parametrize(
    ("labels", "names", "cause"),
    [
        ([3, 1, 2, 4], ("Hummer", "Acura", "Ram"), "cars_train_annos.mat: .*a label exceeds the 3 classes"),
        ([3, 1, 2, 1], ("Hummer", "Acura", "Hummer"), "cars_train_annos.mat: .*two classes have the same name"),
    ],
    ids=["label", "name"],
)
def test_contradicting_lists_are_rejected(sets, labels, names, cause):
    sets.write(sets.case("stanford_cars"))
    devkit = sets.root / "stanford_cars" / "devkit"
    records = loadmat(devkit / "cars_train_annos.mat")["annotations"]
    for record, label in zip(records[0], labels, strict=True):
        record["class"] = label
    savemat(devkit / "cars_train_annos.mat", {"annotations": records})
    savemat(devkit / "cars_meta.mat", {"class_names": np.array([names], dtype=object)})
    with pytest.raises(FgvcError, match=cause):
        sets.open("stanford_cars")


def test_breeds_with_the_same_number_are_rejected(sets):
    sets.write(sets.case("oxford_pets"))
    for split in ("trainval", "test"):
        path = sets.root / "oxford-iiit-pet" / "annotations" / f"{split}.txt"
        path.write_text(path.read_text().replace(" 3 2 2", " 2 2 2"))
    with pytest.raises(FgvcError, match="image names and labels do not match"):
        sets.open("oxford_pets")
