#!/usr/bin/env bash
# simplejpeg's fast options, against its default and Pillow.
#
# A good guess: `fastdct` and `fastupsample` cost a level or two, too little to matter to a network, and less at high quality.
# What happens (simplejpeg 1.9.0, Pillow 13.0.0, the photographs that scikit-image 0.26.0 brings): without the options
# both decode to the same bit. `fastupsample` moves pixels of 4:2:0 photographs (what cameras write) by up to 51 of 255
# levels, at the edges of saturated colors. `fastdct` errs *more* at quality 95 (up to 18 levels) than at 75 (5).
#
# Output seen (largest difference in levels):
#   quality 75: default 0, fastdct 5, fastupsample 45, both 46
#   quality 95: default 0, fastdct 18, fastupsample 51, both 55
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet simplejpeg==1.9.0 pillow==13.0.0 scikit-image==0.26.0
"$work/venv/bin/python" - 2> "$work/log" <<'PY' || { cat "$work/log" >&2; exit 1; }
import io

import numpy
import simplejpeg
from PIL import Image
from skimage import data

OPTIONS = {
    "default": {},
    "fastdct": {"fastdct": True},
    "fastupsample": {"fastupsample": True},
    "both": {"fastdct": True, "fastupsample": True},
}
found = {}
for quality in (75, 95):
    found[quality] = dict.fromkeys(OPTIONS, 0)
    for photograph in (data.astronaut(), data.chelsea(), data.coffee(), data.rocket()):
        file = io.BytesIO()
        Image.fromarray(photograph).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        exact = numpy.asarray(Image.open(file)).astype(int)
        for name, options in OPTIONS.items():
            decoded = simplejpeg.decode_jpeg(file.getvalue(), **options).astype(int)
            found[quality][name] = max(found[quality][name], int(abs(decoded - exact).max()))
    print(f"quality {quality}: " + ", ".join(f"{name} {levels}" for name, levels in found[quality].items()))
for row in found.values():
    assert row["default"] == 0 and row["fastupsample"] > 30, "changed since this was written"
assert found[95]["fastdct"] > 2 * found[75]["fastdct"], "changed since this was written"
PY
