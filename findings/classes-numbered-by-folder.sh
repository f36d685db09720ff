#!/usr/bin/env bash
# A validation folder without some of the classes, in timm's train script and in autotimm.
#
# A good guess: the classes of train/ define the numbers, and an image in val/plum/ has the label that plum has in training;
# else the mismatch is refused. The official validation split of the Grocery Store dataset has 60 of its 81 classes.
# What happens (timm 1.0.31, autotimm 0.7.37): each folder numbers its own subfolders. Labels after the first missing
# class are shifted, so the validation loss and accuracy are those of wrong labels, and the best checkpoint, which both
# choose by them, is chosen by noise. There is no error or warning. timm's `--class-map FILE` avoids it.
#
# Output seen:
#   timm      train {'apple': 0, 'kiwi': 1, 'plum': 2}  labels of val/plum: [1]
#   autotimm  train {'apple': 0, 'kiwi': 1, 'plum': 2}  labels of val/plum: [1]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 timm==1.0.31 autotimm==0.7.37
cd "$work"
"$work/venv/bin/python" - 2> "$work/log" <<'PY' || { cat "$work/log" >&2; exit 1; }
from pathlib import Path

from autotimm import ImageDataModule
from PIL import Image
from timm.data import create_dataset

for folder in ("train/apple", "train/kiwi", "train/plum", "val/kiwi", "val/plum"):
    Path("data", folder).mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(f"data/{folder}/1.png")

# As timm's train.py makes them.
train, val = (create_dataset("", root="data", split=split, is_training=split == "train") for split in ("train", "val"))
plum = sorted({label for path, label in val.reader.samples if "plum" in str(path)})
print("timm     ", "train", train.reader.class_to_idx, " labels of val/plum:", plum)
assert train.reader.class_to_idx["plum"] == 2 and plum == [1], "changed since this was written"

images = ImageDataModule(data_dir="data", image_size=32, batch_size=1, num_workers=0)
images.setup("fit")
numbers = images.train_dataset.class_to_idx
plum = sorted({label for path, label in images.val_dataset.samples if "plum" in path})
print("autotimm ", "train", numbers, " labels of val/plum:", plum)
assert numbers["plum"] == 2 and plum == [1], "changed since this was written"
PY
