#!/usr/bin/env bash
# webdataset and photographs whose names have a dot before the ending.
#
# A good guess: 2024.06.01.jpg and 2024.06.01.cls are the image and the label of one sample, as a.jpg and a.cls are; or
# TarWriter refuses a key that it cannot read back.
# What happens (webdataset 1.0.2): everything after the FIRST dot of a name is its field. Photographs that are named by
# date become fields of one sample, and none of them has a field "jpg"; a species written "Larus v. argentatus" loses the
# rest of its name. TarWriter writes such keys without a word. A shard whose members are sorted by ending instead of by
# name (a.jpg, b.jpg, a.cls, b.cls) gives four samples with half of the fields each. No error or warning in any case.
#
# Output seen:
#   written: 3 samples with keys 2024.06.01, 2024.06.02, 2024.07.15
#   read:    1 sample with key 2024 and fields 06.01.cls 06.01.jpg 06.02.cls 06.02.jpg 07.15.cls 07.15.jpg
#   sorted by ending: a: jpg, b: jpg, a: cls, b: cls
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet webdataset==1.0.2
cd "$work"
"$work/venv/bin/python" - 2> "$work/log" <<'PY' || { cat "$work/log" >&2; exit 1; }
import io
import tarfile

import webdataset


def read(shard):
    fields = lambda sample: sorted(name for name in sample if not name.startswith("__"))
    return [(sample["__key__"], fields(sample)) for sample in webdataset.WebDataset(shard, shardshuffle=False)]


keys = ["2024.06.01", "2024.06.02", "2024.07.15"]
with webdataset.TarWriter("dates.tar") as writer:
    for label, key in enumerate(keys):
        writer.write({"__key__": key, "jpg": b"a photograph", "cls": label})
print(f"written: {len(keys)} samples with keys {', '.join(keys)}")
((key, fields),) = read("dates.tar")
print(f"read:    1 sample with key {key} and fields {' '.join(fields)}")
assert key == "2024" and len(fields) == 6 and "jpg" not in fields, "changed since this was written"

with tarfile.open("sorted.tar", "w") as shard:
    for name in ("a.jpg", "b.jpg", "a.cls", "b.cls"):
        shard.addfile(tarfile.TarInfo(name), io.BytesIO())
halves = read("sorted.tar")
print("sorted by ending:", ", ".join(f"{key}: {' '.join(fields)}" for key, fields in halves))
assert halves == [("a", ["jpg"]), ("b", ["jpg"]), ("a", ["cls"]), ("b", ["cls"])], "changed since this was written"
PY
