#!/usr/bin/env bash
# torchcam without a target layer, on timm's transformers.
#
# A good guess: where no layer is named, torchcam finds the last layer with a spatial map, or refuses the network.
# What happens (torchcam 0.5.0, timm 1.0.31, torch 2.14.1): it takes the last module whose output has more than two
# dimensions and none of size 1. In Swin that is the final norm, whose output is B,H,W,C, and C is taken for the width;
# in a ViT it is the norm of the attention keys, B,heads,tokens,dim, and tokens x dim is taken for the map; in CoaT it
# is a relative position encoding. No error or warning: the "map" is returned, and has the shape of no image grid.
#
# Output seen:
#   resnet18                       layer4                    map 7 x 7
#   swin_tiny_patch4_window7_224   norm                      map 7 x 768
#   vit_tiny_patch16_224           blocks.11.attn.k_norm     map 197 x 64
#   coat_tiny                      crpe4                     map 50 x 19
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 timm==1.0.31 torchcam==0.5.0
"$work/venv/bin/python" - 2> "$work/log" <<'PY' || { cat "$work/log" >&2; exit 1; }
import timm
import torch
from torchcam.methods import GradCAM

EXPECTED = {
    "resnet18": ("layer4", (7, 7)),
    "swin_tiny_patch4_window7_224": ("norm", (7, 768)),
    "vit_tiny_patch16_224": ("blocks.11.attn.k_norm", (197, 64)),
    "coat_tiny": ("crpe4", (50, 19)),
}
found = {}
for name in EXPECTED:
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    with GradCAM(model, input_shape=(3, 224, 224)) as extractor:
        (saliency,) = extractor(0, model(torch.randn(1, 3, 224, 224)))
        found[name] = extractor.target_names[0], tuple(saliency.shape[1:])
    print(f"{name:30} {found[name][0]:25} map {found[name][1][0]} x {found[name][1][1]}")
assert found == EXPECTED, "changed since this was written"
PY
