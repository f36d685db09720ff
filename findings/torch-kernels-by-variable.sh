#!/usr/bin/env bash
# torch: ATEN_CPU_CAPABILITY does not compute what an older processor computes, and `default` changes seeded weights.
#
# A good guess: to see how far results depend on the processor, set ATEN_CPU_CAPABILITY to avx2 or default and train again;
# the seed fixes the initial weights.
# What happens (torch 2.14.1, a processor with AVX-512): with avx2, `torch.backends.cpu.get_cpu_capability()` says AVX2, but
# convolutions, matrix products, batch and layer normalization are the same to the last bit: of the operations below only
# softmax differs. Convolutions are oneDNN's, which has a variable of its own (ONEDNN_MAX_CPU_ISA) and moves with that one.
# With default, `randn` of 16 or more values gives other values for the same seed (by about 1e-6), and with them every
# normal initialization; `rand`, dropout and `randperm` stay the same.
#
# Output seen:
#   ATEN_CPU_CAPABILITY=avx2     differs in: softmax
#   ATEN_CPU_CAPABILITY=default  differs in: batch norm, kaiming_normal_, layer norm, randn(16), softmax
#   ONEDNN_MAX_CPU_ISA=AVX2      differs in: conv2d
set -euo pipefail
grep -q avx512f /proc/cpuinfo || { echo "skipped: this processor has no AVX-512"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.14.1
cat > "$work/compute.py" <<'PY'
import sys

import torch
from torch.nn import functional as F

torch.set_num_threads(1)
numbers = torch.Generator().manual_seed(0)
images = torch.rand(4, 32, 28, 28, generator=numbers)  # the same under every variable
weight = torch.rand(64, 32, 3, 3, generator=numbers)
results = {
    "conv2d": F.conv2d(images, weight),
    "linear": F.linear(images.flatten(1)[:, :1568], torch.rand(256, 1568, generator=numbers)),
    "batch norm": F.batch_norm(images, None, None, training=True),
    "layer norm": F.layer_norm(images, (28,)),
    "softmax": images.softmax(-1),
    "randn(15)": torch.randn(15, generator=torch.Generator().manual_seed(0)),
    "randn(16)": torch.randn(16, generator=torch.Generator().manual_seed(0)),
    "rand": torch.rand(1000, generator=torch.Generator().manual_seed(0)),
}
torch.manual_seed(0)
results["kaiming_normal_"] = torch.nn.init.kaiming_normal_(torch.empty(64, 16))
torch.save(results, sys.argv[1])
PY
cat > "$work/compare.py" <<'PY'
import sys

import torch

one, other = (torch.load(path) for path in sys.argv[1:3])
print(", ".join(sorted(name for name in one if not torch.equal(one[name], other[name]))))
PY
run() { env "$@" "$work/venv/bin/python" "$work/compute.py" "$work/$1.pt" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }; }
differs() { "$work/venv/bin/python" "$work/compare.py" "$work/A=1.pt" "$work/$1.pt"; }
run A=1
failed=0
while IFS='|' read -r variable expected; do
    run "$variable"
    found=$(differs "$variable")
    printf '%-28s differs in: %s\n' "$variable" "$found"
    [ "$found" = "$expected" ] || failed=1
done <<'CASES'
ATEN_CPU_CAPABILITY=avx2|softmax
ATEN_CPU_CAPABILITY=default|batch norm, kaiming_normal_, layer norm, randn(16), softmax
ONEDNN_MAX_CPU_ISA=AVX2|conv2d
CASES
[ "$failed" = 0 ] || { echo "changed since this was written" >&2; exit 1; }
