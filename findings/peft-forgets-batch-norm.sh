#!/usr/bin/env bash
# peft's LoRA on a network with batch normalization: the saved adapter is not the network that was trained.
#
# A good guess: with LoRA the base network is frozen, the adapter holds all that was learned, and
# `PeftModel.from_pretrained(base, adapter)` predicts what the trained network predicted; `disable_adapter()` gives the base
# network back.
# What happens (peft 0.21.2, timm 1.0.31, torch 2.14.1): running means and variances of batch normalization are buffers,
# which freezing does not stop; they follow the new images while `train()` is on. `save_pretrained` leaves them out without
# a word, and `disable_adapter()` keeps the moved ones. ResNet-18 with LoRA on two convolutions, 20 updates: the reloaded
# network differs from the trained one by as much as the outputs themselves are large.
#
# Output seen:
#   saved tensors: 4, of batch normalization: 0
#   largest output of the trained network                   0.39
#   trained and reloaded differ by up to                    0.36
#   base and trained with disable_adapter() differ by up to 0.36
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 timm==1.0.31 peft==0.21.2
cd "$work"
"$work/venv/bin/python" - 2> "$work/log" <<'PY' || { cat "$work/log" >&2; exit 1; }
import timm
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file


def base():
    torch.manual_seed(0)
    return timm.create_model("resnet18", num_classes=5)


def gap(one, other):
    return float((one - other).abs().max())


config = LoraConfig(target_modules=["layer4.0.conv1", "layer4.1.conv1"], r=4)
network = get_peft_model(base(), config).train()
optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.01)
for _ in range(20):
    optimizer.zero_grad()
    network(2 * torch.randn(8, 3, 64, 64) + 1).square().mean().backward()
    optimizer.step()
network.eval()
network.save_pretrained("adapter")
saved = list(load_file("adapter/adapter_model.safetensors"))
print(f"saved tensors: {len(saved)}, of batch normalization: {sum('running' in name for name in saved)}")

images = torch.randn(4, 3, 64, 64)
with torch.no_grad():
    trained = network(images)
    reloaded = PeftModel.from_pretrained(base(), "adapter").eval()(images)
    with network.disable_adapter():
        disabled = network(images)
    original = base().eval()(images)
largest = float(trained.abs().max())
print(f"largest output of the trained network                   {largest:.2f}")
print(f"trained and reloaded differ by up to                    {gap(trained, reloaded):.2f}")
print(f"base and trained with disable_adapter() differ by up to {gap(original, disabled):.2f}")
assert len(saved) == 4 and not any("running" in name for name in saved), "changed since this was written"
assert gap(trained, reloaded) > 0.1 * largest and gap(original, disabled) > 0.1 * largest, "changed since this was written"
PY
