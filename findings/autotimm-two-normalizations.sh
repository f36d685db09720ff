#!/usr/bin/env bash
# autotimm's normalization of images in training, and in `preprocess()` of the model so trained.
#
# A good guess: `ImageClassifier(..., transform_config=TransformConfig())`, the example of its docstring "for training with
# metrics", trained on an `ImageDataModule` of the same image size, prepares images for prediction as it saw them in
# training.
# What happens (autotimm 0.7.37, timm 1.0.31): the data module normalizes by ImageNet's mean and standard deviation,
# unless it too is given the configuration and the backbone; the model's `preprocess` by those of the backbone's weights.
# For weights of another normalization (EfficientNet-Lite, ViT, Inception: 0.5 and 0.5) a white pixel is 2.25 in training
# and 1.00 in prediction. There is no error or warning. And without any configuration, the default, these weights are
# fine-tuned on inputs that are not normalized as theirs were.
#
# Output seen (red channel of a white image):
#   tf_efficientnet_lite0           training 2.249  preprocess() 1.000
#   vit_tiny_patch16_224            training 2.249  preprocess() 1.000
#   resnet18                        training 2.249  preprocess() 2.249
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 timm==1.0.31 autotimm==0.7.37
cd "$work"
"$work/venv/bin/python" - 2> "$work/log" <<'PY' || { cat "$work/log" >&2; exit 1; }
from pathlib import Path

import timm
from autotimm import BackboneConfig, ImageClassifier, ImageDataModule, TransformConfig
from PIL import Image

white = Image.new("RGB", (224, 224), "white")
for split in ("train", "val"):
    Path("data", split, "paper").mkdir(parents=True)
    white.save(f"data/{split}/paper/1.png")
images = ImageDataModule(data_dir="data", image_size=224, batch_size=1, num_workers=0)
images.setup("fit")
(batch, _), *_ = images.val_dataloader()
for name, same in (("tf_efficientnet_lite0", False), ("vit_tiny_patch16_224", False), ("resnet18", True)):
    backbone = BackboneConfig(name, pretrained=False)  # the weights themselves do not matter here
    config = TransformConfig(image_size=224)
    model = ImageClassifier(backbone, num_classes=1, transform_config=config, compile_model=False)
    training, prediction = batch[0, 0].max().item(), model.preprocess(white)[0, 0].max().item()
    print(f"{name:30}  training {training:.3f}  preprocess() {prediction:.3f}")
    assert abs(training - 2.249) < 1e-3 and (abs(training - prediction) < 1e-3) == same, "changed since this was written"
    assert same == (timm.get_pretrained_cfg(name).mean == (0.485, 0.456, 0.406))
PY
