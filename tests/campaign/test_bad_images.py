"""Photographs that are none: each costs itself, and one line.

Among the files are truncated and flipped ones of seven formats, sizes that no image has, modes that few programs
write, other files with the endings of images, and things that are no files. Every file is either read or skipped
with one line, and the photographs beside it are used. Memory is limited, so that none takes that of the machine.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]  # each process has its own

GOOD = 2
"""Number of photographs beside the bad files."""
MEMORY = 3 * 10**9
"""Bytes that a command may allocate beyond what importing takes."""
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tif": "TIFF", "ppm": "PPM"}


def photograph(seed: int, size: tuple[int, int] = (64, 48), mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(format: str, image: Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (photograph(1) if image is None else image).save(buffer, format=format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, color: int = 2, depth: int = 8, data: bytes = b"") -> bytes:
    """Return a PNG with a header for any size, and few or no pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def truncated() -> Iterator[tuple[str, bytes]]:
    for ending, format in FORMATS.items():
        data = encoded(format)
        for part in (0.02, 0.2, 0.5, 0.9):
            yield f"{part}.{ending}", data[: int(part * len(data))]
        yield f"last.{ending}", data[:-3]


def flipped() -> Iterator[tuple[str, bytes]]:
    rng = random.Random(0)
    for ending, format in FORMATS.items():
        for number in range(14):
            data = bytearray(encoded(format))
            for _ in range(1 + 4 * (number % 3)):
                at = rng.randrange(64 if number % 2 else len(data)) % len(data)
                data[at] ^= 1 << rng.randrange(8)
            yield f"{number}.{ending}", bytes(data)


def other_files() -> Iterator[tuple[str, bytes]]:
    contents = {
        "empty": b"", "byte": b"\xff", "zeros": bytes(10_000), "text": b"not an image\n" * 50,
        "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "zip": b"PK\x03\x04" + bytes(200),
        "pdf": b"%PDF-1.7\n" + bytes(200), "elf": b"\x7fELF" + bytes(200), "gzip": b"\x1f\x8b\x08" + bytes(50),
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "json": b'{"image": 1}',
        "heic": b"\0\0\0\x18ftypheic" + bytes(100), "ps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "random": random.Random(1).randbytes(5000),
    }  # fmt: skip
    for name, data in contents.items():
        yield f"{name}.jpg", data
        yield f"{name}.png", data
    for ending, format in FORMATS.items():  # an image of another format, which is read
        yield f"{format.lower()}-as.{'png' if ending == 'jpg' else 'jpg'}", encoded(format)


def sizes() -> Iterator[tuple[str, bytes]]:
    for width, height in ((1, 65_500), (65_500, 1), (100_000, 100_000), (2**31 - 1, 2**31 - 1), (0, 0), (0, 9), (9, 0),
                          (30_000, 30_000), (20_000, 9000), (1, 1), (2, 1), (3, 2)):  # fmt: skip
        yield f"{width}x{height}.png", png_of(width, height)
    row = b"\0" + bytes(3)
    yield "strip.png", png_of(1, 65_500, data=row * 65_500)
    yield "wide.png", png_of(65_500, 1, data=b"\0" + bytes(3 * 65_500))
    yield "large-gray.png", png_of(12_000, 12_000, color=0, depth=1, data=(b"\0" + bytes(1500)) * 12_000)
    yield "bomb.png", png_of(20_000, 20_000, color=0, depth=1, data=(b"\0" + bytes(2500)) * 20_000)
    bmp = bytearray(encoded("BMP"))
    bmp[18:26] = struct.pack("<ii", 2**31 - 1, 2**31 - 1)
    yield "size.bmp", bytes(bmp)
    gif = bytearray(encoded("GIF"))
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    yield "size.gif", bytes(gif)
    yield "size.ppm", b"P6 100000 100000 255\n" + bytes(100)
    yield "digits.ppm", b"P6 " + b"9" * 5000 + b" 1 255\n"
    yield "one-pixel.jpg", encoded("JPEG", photograph(2, (1, 1)))
    yield "thin.jpg", encoded("JPEG", photograph(2, (3, 4000)))


def modes() -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "P", "CMYK", "YCbCr", "I", "F", "LAB", "RGBA", "LA", "I;16", "RGBX"):
        for ending, format in (("tif", "TIFF"), ("png", "PNG"), ("jpg", "JPEG")):
            try:
                image = photograph(3).convert("L") if mode == "I;16" else photograph(3, mode=mode)
                if mode == "I;16":
                    image = Image.fromarray(np.asarray(image, np.uint16) * 257)
                yield f"{mode.replace(';', '-')}.{ending}", encoded(format, image)
            except (OSError, ValueError, KeyError):
                continue
    palette = photograph(4).quantize(16)
    yield "palette-transparency.png", encoded("PNG", palette, transparency=bytes(range(16)))
    frames = [photograph(i) for i in range(3)]
    yield "animated.gif", encoded("GIF", frames[0], save_all=True, append_images=frames[1:])
    yield "animated.png", encoded("PNG", frames[0], save_all=True, append_images=frames[1:])
    yield "pages.tif", encoded("TIFF", frames[0], save_all=True, append_images=frames[1:])
    nan = np.full((20, 20), np.nan, np.float32)
    yield "nan.tif", encoded("TIFF", Image.fromarray(nan))


def metadata() -> Iterator[tuple[str, bytes]]:
    for value in (0, 3, 6, 8, 9, 65_535):
        exif = Image.Exif()
        exif[0x0112] = value
        yield f"orientation-{value}.jpg", encoded("JPEG", exif=exif.tobytes())
    yield "exif.jpg", encoded("JPEG", exif=b"Exif\0\0" + random.Random(2).randbytes(500))
    yield "icc.jpg", encoded("JPEG", icc_profile=random.Random(3).randbytes(500))
    yield "icc.png", encoded("PNG", icc_profile=random.Random(3).randbytes(500))
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 50_000_000, zip=True)
    yield "text-bomb.png", encoded("PNG", pnginfo=info)
    data = encoded("PNG")
    yield "no-end.png", data[:-12]
    yield "unknown-chunk.png", data[:33] + chunk(b"quUx", b"?" * 10) + data[33:]
    yield "trailing.jpg", encoded("JPEG") + bytes(100_000)
    yield "cmyk-adobe.jpg", encoded("JPEG", photograph(5, mode="CMYK"))
    yield "progressive.jpg", encoded("JPEG", progressive=True)[:1500]
    yield "two.jpg", encoded("JPEG") * 2


NAMES = ("line\nbreak.png", "fgvc: error: forged.png", "\x1b[31mred.png", "quote'\".png", "-dash.png", "  space .png",
         "=SUM(A1).png", "ünïcödé.png", "e\u0301.png", "\u202egnp.png", "a" * 240 + ".png", "#key.png", "%s{0}.png",
         "UPPER.PNG")  # fmt: skip


def names() -> Iterator[tuple[str, bytes]]:
    for name in NAMES:
        yield name, encoded("PNG")
    for name in NAMES[:5]:
        yield f"bad {name}", b"no image"


CATEGORIES: dict[str, Callable[[], Iterator[tuple[str, bytes]]]] = {
    "truncated": truncated, "flipped": flipped, "other files": other_files, "sizes": sizes, "modes": modes,
    "metadata": metadata, "names": names,
}  # fmt: skip


def no_files(folder: Path) -> int:
    """Make things that are no files; return their number."""
    (folder / "folder.jpg").mkdir()
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "null.jpg").symlink_to("/dev/null")
    os.mkfifo(folder / "pipe.jpg")
    (folder / os.fsdecode(b"latin\xff1.jpg")).write_bytes(encoded("JPEG"))
    (folder / os.fsdecode(b"latin\xff2.jpg")).write_bytes(b"no image")
    return 8


def test_there_are_many() -> None:
    assert sum(len(list(make())) for make in CATEGORIES.values()) + 8 >= 250


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each category, with the bad files and some photographs."""
    found = {}
    for name, make in [*CATEGORIES.items(), ("no files", None)]:
        folder = tmp_path_factory.mktemp("bad") / "bad"
        folder.mkdir()
        for i in range(GOOD):
            photograph(i).save(folder / f"good{i}.png")
        if make is None:
            no_files(folder)
        else:
            for file, data in make():
                (folder / file).write_bytes(data)
        found[name] = folder
    return found


def check(ended: Any) -> None:
    assert ended.code is not None, f"hung: {ended}"
    for noise in ("Traceback", "unexpected error", "Exception ignored", "Out of memory"):
        assert noise not in ended.err, ended


@pytest.mark.parametrize("category", [*CATEGORIES, "no files"])
def test_each_is_predicted_or_skipped_in_one_line(category: str, folders: Any, world: Any, new_place: Any) -> None:
    place, folder = new_place(), folders[category]
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    ended = place.run("predict", str(folder), "--run", str(world.runs / "linear"), "--json", memory=MEMORY)
    check(ended)
    assert ended.cpu < 20 + 2 * len(files), ended
    document = json.loads(ended.out)
    predicted = {Path(each["image"]).name for each in document["predictions"]}
    skipped = {Path(each["image"]).name: each["reason"] for each in document["failures"]}
    assert ended.code == (3 if skipped else 0)
    assert {f"good{i}.png" for i in range(GOOD)} <= predicted
    assert not predicted & skipped.keys()
    expected = {path.name.encode(errors="backslashreplace").decode() for path in files}
    assert {name.encode(errors="backslashreplace").decode() for name in predicted | skipped.keys()} == expected
    lines = re.findall(r"^warning: skipp(?:ing|ed:) .+: .+$", ended.err, re.MULTILINE)
    assert len(lines) == len(skipped) == len(set(lines)), ended
    assert all("\n" not in reason and len(reason) < 300 for reason in skipped.values())
    sys.stdout.write(f"{category}: {len(files) - GOOD} files, {len(skipped)} skipped\n")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_training_goes_on_without_them(workers: str, folders: Any, photos: Path, new_place: Any) -> None:
    place = new_place()
    data = place.work / "data"
    for split in ("train", "val", "test"):
        for name in ("amber", "beige"):
            (data / split / name).parent.mkdir(parents=True, exist_ok=True)
            (data / split / name).symlink_to(photos / split / name)
    count = 0
    for number, folder in enumerate(folders.values()):
        for split in ("train", "val", "test"):
            target = data / split / "bad" / str(number)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(folder)
        count += sum(1 for path in folder.rglob("*") if not path.is_dir())
    line = ("--backbone", "timm/test_resnet", "--weights", "none", "--image-size", "32", "--batch-size", "8",
            "--recipe", "scratch", "--epochs", "1", "--workers", workers)  # fmt: skip
    ended = place.run("train", "--data", str(data), *line, "--out", "run", memory=MEMORY)
    check(ended)
    assert ended.code == 3, ended  # some images could not be read
    summary = json.loads((place.work / "run" / "summary.json").read_text())
    assert summary["test"]["images"] + summary["test"]["failed"] == count + 12
    assert 100 < summary["test"]["failed"] < count
    checked = place.run("data", "check", "--data", str(data), "--split", "test", "--workers", "0", memory=MEMORY)
    check(checked)
    assert checked.code == 3, checked
