from __future__ import annotations

import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgvc_cli.contracts.dataset import find_images
from fgvc_cli.data import images
from fgvc_cli.data.images import ImageError, read_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """Return the colors at top left, top right, bottom left and bottom right."""
    width, height = image.size
    return [image.getpixel(at) for at in ((1, 1), (width - 2, 1), (1, height - 2), (width - 2, height - 2))]


def quadrants(width: int = 40, height: int = 24) -> Image.Image:
    """Red and green above, blue and white below."""
    image = Image.new("RGB", (width, height), WHITE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    return image


def assert_same(image: Image.Image, expected: np.ndarray, tolerance: int = 0) -> None:
    assert image.mode == "RGB"
    found = np.asarray(image).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected.astype(int)).max() <= tolerance


GRAY = np.linspace(0, 255, 20 * 30).reshape(20, 30).astype(np.uint8)
GRAY_RGB = np.repeat(GRAY[:, :, None], 3, axis=2)


@pytest.mark.parametrize(("suffix", "tolerance"), [("png", 0), ("jpg", 4), ("bmp", 0), ("tif", 0), ("webp", 8)])
def test_gray_becomes_rgb(tmp_path, suffix: str, tolerance: int) -> None:
    Image.fromarray(GRAY).save(tmp_path / f"a.{suffix}")
    assert_same(read_image(tmp_path / f"a.{suffix}"), GRAY_RGB, tolerance)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_not_clipped(tmp_path, suffix: str) -> None:
    Image.fromarray(GRAY.astype(np.uint16) * 257).save(tmp_path / f"a.{suffix}")
    assert_same(read_image(tmp_path / f"a.{suffix}"), GRAY_RGB)


@pytest.mark.parametrize(
    ("values", "tolerance"),
    [
        *((GRAY / 255 * top, 1) for top in (1.0, 255.0, 65535.0)),
        (GRAY.astype(np.float32) * 1000 - 127_000, 1),  # a range of its own
        (GRAY.astype(np.int32) * 257, 1),
    ],
)
def test_32_bits_are_scaled_from_their_range(tmp_path, values: np.ndarray, tolerance: int) -> None:
    Image.fromarray(values if values.dtype == np.int32 else values.astype(np.float32)).save(tmp_path / "a.tif")
    assert_same(read_image(tmp_path / "a.tif"), GRAY_RGB, tolerance)


def test_float_values_that_are_not_finite_and_big_endian_16_bits(tmp_path) -> None:
    values = GRAY.astype(np.float32) / 255
    values[0, 0], values[19, 29] = np.nan, np.inf
    Image.fromarray(values).save(tmp_path / "a.tif")
    expected = GRAY_RGB.copy()
    expected[19, 29] = 0
    assert_same(read_image(tmp_path / "a.tif"), expected, 1)
    Image.frombytes("I;16B", (30, 20), (GRAY.astype(np.uint16) * 257).astype(">u2").tobytes()).save(tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as image:
        assert image.mode == "I;16B"
    assert_same(read_image(tmp_path / "b.tif"), GRAY_RGB)


def write_16_bit_rgb_png(path: Path, values: np.ndarray) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def test_16_bit_color_png(tmp_path) -> None:
    path = tmp_path / "a.png"
    write_16_bit_rgb_png(path, GRAY_RGB.astype(np.uint16) * 257)
    assert_same(read_image(path), GRAY_RGB, 1)


def test_cmyk_jpeg(tmp_path) -> None:
    path = tmp_path / "a.jpg"
    quadrants().convert("CMYK").save(path, quality=95)
    assert_same(read_image(path), np.asarray(quadrants()), 40)
    assert read_image(path, target_side=10).mode == "RGB"


def test_transparent_pixels_become_white(tmp_path) -> None:
    rgba = quadrants().convert("RGBA")
    rgba.paste((255, 0, 0, 0), (0, 0, 20, 12))
    rgba.paste((0, 0, 255, 128), (0, 12, 20, 24))
    rgba.save(tmp_path / "a.png")
    assert corners(read_image(tmp_path / "a.png")) == [WHITE, GREEN, (127, 127, 255), WHITE]
    gray = Image.new("LA", (20, 20), (0, 0))
    gray.paste((100, 255), (10, 0, 20, 20))
    gray.save(tmp_path / "b.png")
    assert corners(read_image(tmp_path / "b.png"))[:2] == [WHITE, (100, 100, 100)]
    palette = quadrants().quantize(4)
    for name in ("c.png", "c.gif"):
        palette.save(tmp_path / name, transparency=palette.getpixel((1, 1)))
        assert corners(read_image(tmp_path / name)) == [WHITE, GREEN, BLUE, WHITE]
    quadrants().save(tmp_path / "d.png", transparency=RED)
    assert corners(read_image(tmp_path / "d.png")) == [WHITE, GREEN, BLUE, WHITE]
    Image.new("L", (20, 20), 7).save(tmp_path / "e.png", transparency=7)
    assert corners(read_image(tmp_path / "e.png"))[0] == WHITE


def test_palette_and_one_bit(tmp_path) -> None:
    quadrants().quantize(4).save(tmp_path / "a.png")
    assert corners(read_image(tmp_path / "a.png")) == [RED, GREEN, BLUE, WHITE]
    image = Image.new("1", (20, 20), 0)
    image.paste(1, (10, 0, 20, 20))
    image.save(tmp_path / "b.png")
    assert corners(read_image(tmp_path / "b.png"))[:2] == [(0, 0, 0), WHITE]


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_the_first_frame_of_an_animation_is_read(tmp_path, name: str) -> None:
    frames = [Image.new("RGB", (20, 20), color) for color in (RED, GREEN, BLUE)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
    found = read_image(tmp_path / name)
    assert np.abs(np.asarray(found).astype(int) - np.array(RED)).max() <= 2


TURNED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera stores an upright scene under each EXIF orientation."""


@pytest.mark.parametrize(
    ("name", "orientation"), [*(("a.jpg", o) for o in range(1, 9)), ("a.png", 6), ("a.tif", 6), ("a.webp", 6)]
)
def test_images_are_made_upright(tmp_path, name: str, orientation: int) -> None:
    turn = TURNED[orientation]
    stored = quadrants() if turn is None else quadrants().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / name, exif=exif)
    found = read_image(tmp_path / name)
    assert found.size == (40, 24)
    for color, expected in zip(corners(found), (RED, GREEN, BLUE, WHITE), strict=True):
        assert np.abs(np.subtract(color, expected)).max() < 40


def test_broken_exif_is_ignored(tmp_path, recwarn) -> None:
    path = tmp_path / "a.jpg"
    quadrants().save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage", quality=95)
    assert read_image(path).size == (40, 24)
    assert not recwarn.list


def test_a_large_jpeg_is_decoded_at_a_smaller_size_but_not_below_the_target(tmp_path) -> None:
    quadrants(1200, 800).save(tmp_path / "a.jpg")
    for target, size in {None: 800, 900: 800, 800: 800, 401: 800, 400: 400, 260: 400, 200: 200, 5: 100}.items():
        assert min(read_image(tmp_path / "a.jpg", target).size) == size


def test_an_enormous_jpeg_is_read_at_a_smaller_size_and_refused_at_full_size(tmp_path, monkeypatch, recwarn) -> None:
    path = tmp_path / "a.jpg"
    quadrants(1200, 800).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Image.open would refuse it
    monkeypatch.setattr(images, "PIXEL_LIMIT", 100_000)
    assert read_image(path, 100).size == (150, 100)
    with pytest.raises(ImageError, match="1200x800 px is more than"):
        read_image(path)
    assert not recwarn.list


def test_a_progressive_jpeg_counts_at_full_size(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.jpg"
    quadrants(1200, 800).save(path, progressive=True)
    assert read_image(path, 100).size == (150, 100)
    monkeypatch.setattr(images, "PIXEL_LIMIT", 100_000)
    with pytest.raises(ImageError, match="1200x800 px is more than"):
        read_image(path, 100)


def test_an_enormous_png_is_refused_before_it_is_decoded(tmp_path) -> None:
    path = tmp_path / "a.png"
    quadrants().save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(bytes(data))
    with pytest.raises(ImageError, match="more than 179 million pixels"):
        read_image(path)


def test_a_large_png_raises_no_warning(tmp_path, monkeypatch, recwarn) -> None:
    quadrants().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)  # 960 pixels: over Pillow's warning, under its error
    assert read_image(tmp_path / "a.png").size == (40, 24)
    assert not recwarn.list


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.webp", "a.tif", "a.bmp"])
def test_truncated_files_are_errors(tmp_path, name: str) -> None:
    path = tmp_path / name
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    for share in (0.02, 0.5, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ImageError) as caught:
            read_image(path, 16)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_what_is_not_an_image(tmp_path) -> None:
    text, empty = tmp_path / "a.jpg", tmp_path / "b.jpg"
    text.write_text("<html>not found</html>")
    empty.write_bytes(b"")
    expected = {
        text: "not an image in a supported format",
        empty: "the file is empty",
        tmp_path: "a folder, not an image",
        tmp_path / "missing.jpg": "file not found",
        text / "below.jpg": "cannot be read: Not a directory",
    }
    for path, cause in expected.items():
        with pytest.raises(ImageError, match=cause) as caught:
            read_image(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_no_permission(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.png"
    quadrants().save(path)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)  # tests may run as root, whom no mode stops
    with pytest.raises(ImageError, match="cannot be read: Permission denied"):
        read_image(path)


def test_postscript_is_not_run(tmp_path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    with pytest.raises(ImageError, match="not an image"):
        read_image(path)


def test_arrays() -> None:
    array = np.asarray(quadrants())
    assert_same(read_image(array), array)
    assert_same(read_image(array[:, ::-1]), array[:, ::-1])
    with pytest.raises(ImageError, match="found float32 24x40x3"):
        read_image(array.astype(np.float32))


def test_the_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(ImageError(Path("a.jpg"), "broken\nin two lines")))
    assert str(error) == "a.jpg: broken in two lines"
    assert error.cause == "broken in two lines"


def test_a_named_pipe_is_refused_without_waiting(tmp_path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="a pipe or a device"):
        read_image(tmp_path / "a.jpg")


def _png_of(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(bytes(1 + width) for _ in range(height)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_a_strip_that_would_take_gigabytes_when_resized_is_refused(tmp_path) -> None:
    (tmp_path / "strip.png").write_bytes(_png_of(1, 65_500))
    with pytest.raises(ImageError, match="1x65500 px is more than 100 times as long as wide"):
        read_image(tmp_path / "strip.png")
    (tmp_path / "panorama.png").write_bytes(_png_of(900, 10))
    assert read_image(tmp_path / "panorama.png").size == (900, 10)


@pytest.mark.parametrize("suffix", ["heic", "HEIF"])
def test_heic_photographs(tmp_path, suffix: str) -> None:
    heif = pytest.importorskip("pillow_heif")
    file = tmp_path / f"IMG_1.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    heif.from_pillow(quadrants(64, 48)).save(file, quality=95, exif=exif.tobytes())
    image = read_image(file)
    assert image.mode == "RGB" and {image.size} <= {(64, 48), (48, 64)}
    assert [path.name for path in find_images(tmp_path)] == [file.name]


def test_heic_without_pillow_heif_says_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(images, "heif_is_supported", lambda: False)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(ImageError, match=r"fgvc-cli\[heic\]"):
        read_image(tmp_path / "a.heic")


def test_tiffs_that_cannot_be_read_are_called_what_they_are(tmp_path) -> None:
    def tiff(bands: int, bits: int, sample_format: int) -> bytes:
        size = 8 * 8 * bands * bits // 8
        tags = [(256, 8), (257, 8), (258, bits), (259, 1), (262, 1), (273, 8), (277, bands), (278, 8), (279, size)]
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (339, sample_format)])
        return b"II*\0" + struct.pack("<I", 8 + size) + bytes(size) + struct.pack("<H", 10) + entries + bytes(4)

    for (bands, bits, kind), words in {
        (7, 16, 1): "7 bands of 16-bit integers",
        (3, 32, 3): "3 bands of 32-bit floats",
    }.items():
        (tmp_path / "a.tif").write_bytes(tiff(bands, bits, kind))
        with pytest.raises(ImageError, match=f"a TIFF of {words}"):
            read_image(tmp_path / "a.tif")
