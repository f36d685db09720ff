"""Open the same class folders with fgvc and with other tools, and compare the labels that their images get.

Nothing is trained. Each tool opens the folders as its training program does, with its default settings, in a process of
its own; a label is right if it is the number of the image's folder among the classes of the training split. The peers
(fastai, autotimm, birder, ultralytics) must be installed beside fgvc; those that are not are left out. docs/data.md has
the results in short.

    python benchmarks/peers_folders.py
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image

Labels = dict[str, list[tuple[str, int]]]
"""For each split, the files that a tool found with their labels."""

SPLITS = ("train", "val", "test")
COMPLETE = {f"{split}/{name}": 4 for split in SPLITS for name in ("crow", "gull", "tern")}

LAYOUTS: dict[str, tuple[str, Mapping[str, int]]] = {
    "val-lacks-class": (
        "`val/` lacks the class `crow`",
        {folder: n for folder, n in COMPLETE.items() if folder != "val/crow"},
    ),
    "empty-class": ("`val/crow/` is empty", COMPLETE | {"val/crow": 0}),
    "extra-class": ("`test/` has a class `auk` that `train/` lacks", COMPLETE | {"test/auk": 4}),
    "hidden-folder": ("a hidden folder of copies in `train/`", COMPLETE | {"train/.ipynb_checkpoints": 4}),
    "nested": (
        "`train/GENUS/SPECIES/`, two genera with a species of the same name",
        {f"{s}/{name}": 4 for s in SPLITS for name in ("Corvus/minor", "Larus/minor", "Larus/canus")},
    ),
    "one-image": ("no splits, a class with one image", {"crow": 10, "gull": 10, "tern": 1}),
}
ENDINGS = (".jpg", ".JPG", ".Jpeg", ".png")


def write(root: Path, folders: Mapping[str, int]) -> None:
    """Write folders of small photographs whose endings vary."""
    for number, (folder, images) in enumerate(folders.items()):
        (root / folder).mkdir(parents=True)
        for index in range(images):
            image = Image.new("RGB", (40, 30), (40 + number, 40 + index, 90))
            image.save(root / folder / f"{number}-{index}{ENDINGS[index % 4]}")


def open_torchvision(root: Path) -> tuple[list[str], Labels]:
    """torchvision's ImageFolder, once for each split, as in its reference scripts."""
    from torchvision.datasets import ImageFolder

    splits = {split: ImageFolder(root / split) for split in SPLITS if (root / split).is_dir()}
    splits = splits or {"train": ImageFolder(root)}
    return splits["train"].classes, {split: data.samples for split, data in splits.items()}


def open_timm(root: Path) -> tuple[list[str], Labels]:
    """timm's reader, which its train.py opens once for each split."""
    from timm.data import create_dataset

    splits = {split: create_dataset("", root, split=split) for split in SPLITS if (root / split).is_dir()}
    splits = splits or {"train": create_dataset("", root, split="train")}
    return list(splits["train"].reader.class_to_idx), {split: data.reader.samples for split, data in splits.items()}


def open_fastai(root: Path) -> tuple[list[str], Labels]:
    """fastai's ImageDataLoaders, whose test images are those of `test_dl` on the files of a folder."""
    from fastai.vision.all import ImageDataLoaders, Resize, get_image_files

    split = {"valid": "val"} if (root / "train").is_dir() else {"valid_pct": 0.2, "seed": 0}
    loaders = ImageDataLoaders.from_folder(root, **split, bs=1, item_tfms=Resize(32), num_workers=0)
    labels = {
        name: [(str(file), int(label)) for file, (_, label) in zip(data.items, data, strict=True)]
        for name, data in (("train", loaders.train_ds), ("val", loaders.valid_ds))
    }
    if (root / "test").is_dir():
        test = loaders.test_dl(get_image_files(root / "test"), with_labels=True).dataset
        labels["test"] = [(str(file), int(label)) for file, (_, label) in zip(test.items, test, strict=True)]
    return list(loaders.vocab), labels


def open_autotimm(root: Path) -> tuple[list[str], Labels]:
    """autotimm's ImageDataModule."""
    from autotimm import ImageDataModule

    module = ImageDataModule(data_dir=root, num_workers=0, batch_size=1)
    module.setup("fit")
    module.setup("test")
    found = {"train": module.train_dataset, "val": module.val_dataset, "test": getattr(module, "test_dataset", None)}
    return module.class_names, {split: data.samples for split, data in found.items() if data is not None}


def open_ultralytics(root: Path) -> tuple[list[str], Labels]:
    """ultralytics' ClassificationDataset, as its classification trainer opens it."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import ClassificationDataset
    from ultralytics.data.utils import check_cls_dataset

    data = check_cls_dataset(root)
    labels = {}
    for split in SPLITS:
        if data[split] and (split != "test" or data["test"] != data["val"]):
            opened = ClassificationDataset(data[split], get_cfg(), split == "train", split, data["names"])
            labels[split] = [(sample[0], sample[1]) for sample in opened.samples]
    return list(data["names"].values()), labels


def open_birder(root: Path) -> tuple[list[str], Labels]:
    """birder's CustomImageFolder, with the check of classes that its train script makes first."""
    from birder.data.datasets.directory import CustomImageFolder, class_to_idx_from_paths

    folders = {split: root / split for split in ("train", "val") if (root / split).is_dir()} or {"train": root}
    classes = [class_to_idx_from_paths([str(folder)], hierarchical=False) for folder in folders.values()]
    if classes.count(classes[0]) != len(classes):
        raise AssertionError("class_to_idx == validation_class_to_idx")
    splits = {s: CustomImageFolder(str(folder), allow_empty=s != "train") for s, folder in folders.items()}
    return splits["train"].classes, {split: data.samples for split, data in splits.items()}


def open_fgvc(root: Path) -> tuple[list[str], Labels]:
    """fgvc's folder data set, with the validation images that training holds out."""
    from fgvc_cli.config.train_options import TrainOptions
    from fgvc_cli.data.opening import open_dataset
    from fgvc_cli.data.splits import training_splits
    from fgvc_cli.options import build
    from fgvc_cli.registry import get_registry

    component = get_registry().find("dataset", "folder")
    dataset = open_dataset(component, build(component.options_type(), {}, "dataset"), root, seed=0)
    splits = training_splits(dataset, TrainOptions())
    found = {"train": splits.train, "val": splits.val, "test": splits.test}
    return list(dataset.class_names), {
        name: list(zip(map(str, split.images), map(int, split.labels), strict=True))
        for name, split in found.items()
        if split is not None
    }


PEERS: dict[str, Callable[[Path], tuple[list[str], Labels]]] = {
    "torchvision": open_torchvision,
    "timm": open_timm,
    "fastai": open_fastai,
    "autotimm": open_autotimm,
    "ultralytics": open_ultralytics,
    "birder": open_birder,
    "fgvc": open_fgvc,
}


def outcome(root: Path, folders: Mapping[str, int], names: list[str], labels: Labels) -> str:
    """Say how many classes and which images a tool took, and how many of them have another class's label."""
    if any(folder.count("/") > 1 for folder in folders):
        return f"{len(names)} classes: {', '.join(names)}"
    found = [f"{len(names)} classes"]
    for split in SPLITS:
        files = labels.get(split, [])
        expected = sum(n for folder, n in folders.items() if folder.split("/")[0] == split or "/" not in folder)
        wrong = sum(names[label : label + 1] != [_class_of(root, Path(file))] for file, label in files)
        if split in labels and any(folder.startswith(f"{split}/") for folder in folders):
            lost = expected - len(files)
            said = [f"{wrong} of {len(files)} labels wrong"] * bool(wrong) + [f"{lost} images left out"] * bool(lost)
            found += [f"{split}: {', '.join(said)}"] if said else []
        elif files:
            rare = sum(Path(file).parent.name == "tern" for file, _ in files)
            found.append(f"{split}: {len(files)} images, {rare} of the class with one")
    return "; ".join(found)


def _class_of(root: Path, file: Path) -> str:
    """Return the folders between the split, if there is one, and the file."""
    parts = file.resolve().relative_to(root.resolve().parent).parts[1:-1]  # ultralytics splits into a folder beside it
    return "/".join(parts[1:] if parts[0] in SPLITS else parts)


def run(tool: str) -> dict[str, str]:
    """Open every layout with one tool and return the outcomes."""
    outcomes = {}
    with tempfile.TemporaryDirectory() as scratch:
        for layout, (_, folders) in LAYOUTS.items():
            root = Path(scratch) / layout
            write(root, folders)
            try:
                names, labels = PEERS[tool](root)
            except (Exception, SystemExit) as error:  # whatever a tool raises is what it does
                text = f"{type(error).__name__}: {' '.join(str(error).split())}".replace(scratch + "/", "")
                outcomes[layout] = f"refused ({text[:150]})"
            else:
                outcomes[layout] = outcome(root, folders, names, labels)
    return outcomes


def main() -> None:
    """Open every layout with every tool and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--one", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one)))
        return
    tools = [tool for tool in options.tools if importlib.util.find_spec("fgvc_cli" if tool == "fgvc" else tool)]
    with tempfile.TemporaryDirectory() as settings:
        environment = {**os.environ, "YOLO_CONFIG_DIR": settings, "HF_HUB_OFFLINE": "1"}
        rows = {}
        for tool in tools:
            command = [sys.executable, __file__, "--one", tool]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
            rows[tool] = json.loads(done.stdout.splitlines()[-1])
    print(f"| tool | {' | '.join(title for title, _ in LAYOUTS.values())} |")
    print("| --- " * (len(LAYOUTS) + 1) + "|")
    for tool, outcomes in rows.items():
        version = importlib.metadata.version("fgvc-cli" if tool == "fgvc" else tool)
        print(f"| {tool} {version} | {' | '.join(outcomes.values())} |")


if __name__ == "__main__":
    main()
