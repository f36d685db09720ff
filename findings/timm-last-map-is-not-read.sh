#!/usr/bin/env bash
# timm's last intermediate feature map, and what the classifier of the same model reads.
#
# A good guess: `forward_intermediates(x, indices=[-1])` gives the map that the classifier pools, and `num_features` is
# the width of the embedding before the last linear layer.
# What happens (timm 1.0.31): both hold for ResNet, ConvNeXt and RegNet, and for few others. A convolution follows the
# last map in EfficientNet (320 of 1,280 channels), FastViT and GhostNet, a norm in Swin and MambaOut, a norm and a class
# token in ViT and PiT. The embedding is wider than `num_features` where the head holds a hidden layer: MobileNetV3 and
# V4, VGG, EfficientViT, MambaOut, HGNet. `head_hidden_size` is right everywhere.
#
# Output seen: the table below (last map's channels, the classifier's map or tokens, equal or not, num_features, embedding).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 timm==1.0.31
"$work/venv/bin/python" - <<'PY'
import timm
import torch

# name: (last map is what the classifier reads, channels of the last map, num_features, width of the embedding)
EXPECTED = {
    "resnet50": (True, 2048, 2048, 2048),
    "convnext_atto": (True, 320, 320, 320),
    "regnety_002": (True, 368, 368, 368),
    "tf_efficientnet_lite0": (False, 320, 1280, 1280),
    "fastvit_t8": (False, 384, 768, 768),
    "ghostnet_100": (False, 160, 960, 1280),
    "swin_tiny_patch4_window7_224": (False, 768, 768, 768),
    "vit_tiny_patch16_224": (False, 192, 192, 192),
    "pit_ti_224": (False, 256, 256, 256),
    "mambaout_femto": (False, 288, 288, 1152),
    "mobilenetv3_small_050": (True, 288, 288, 1024),
    "mobilenetv4_conv_small": (True, 960, 960, 1280),
    "vgg11": (True, 512, 512, 4096),
    "efficientvit_b0": (True, 128, 128, 1280),
    "hgnetv2_b0": (True, 1024, 1024, 2048),
}
found = {}
torch.manual_seed(0)
images = torch.randn(1, 3, 224, 224)
for name in EXPECTED:
    model = timm.create_model(name, pretrained=False).eval()
    with torch.no_grad():
        read = model.forward_features(images)
        (last,) = model.forward_intermediates(images, indices=[-1], intermediates_only=True)
        embedding = model.forward_head(read, pre_logits=True)
    same = last.shape == read.shape and torch.equal(last, read)
    assert model.head_hidden_size == embedding.shape[1]
    found[name] = same, last.shape[1], model.num_features, embedding.shape[1]
    print(f"{name:30} last map {last.shape[1]:5} ch, read {tuple(read.shape[1:])!s:15} same {same!s:5} "
          f"num_features {model.num_features:5} embedding {embedding.shape[1]:5}")
assert found == EXPECTED, "changed since this was written"
PY
