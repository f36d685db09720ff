"""Reading one image, whatever its format, into 8-bit RGB that stands upright."""

from __future__ import annotations

import functools
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from fgvc_cli.contracts.image_files import IMAGE_SUFFIXES, find_images
from fgvc_cli.errors import FgvcError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["IMAGE_SUFFIXES", "PIXEL_LIMIT", "ImageError", "find_images", "read_image"]

PIXEL_LIMIT = 178_956_970
"""Most pixels an image may have when it is decoded: half a gigabyte as RGB, and Pillow's own limit."""

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""Formats that are read. Pillow knows more, and runs other programs for some of them."""

JPEG_START = b"\xff\xd8\xff"

ORIENTATION_TAG = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What sets an image upright, by its EXIF orientation."""


class ImageError(FgvcError):
    """An image cannot be read.

    Attributes:
        image: the file, or words for an array.
        cause: what is wrong with it, in one line.
    """

    def __init__(self, image: Path | str, cause: str) -> None:
        super().__init__(image, cause)  # both are arguments, so that it survives the way back from a worker
        self.image, self.cause = image, " ".join(cause.split())

    def __str__(self) -> str:
        return f"{self.image}: {self.cause}"


def read_image(source: Path | np.ndarray, target_side: int | None = None) -> PILImage:
    """Read an image as 8-bit RGB, right side up.

    Transparent pixels turn white; of an animation the first frame counts. 16-bit values are scaled to 8 bits; those of
    32 bits (integers, floats) too, from [0, 1], [0, 255] or [0, 65535] where they lie within, or else from their own
    least and largest value; what is not a number turns black.

    Args:
        source: a file, or a uint8 array H,W,3.
        target_side: pixels of the short side that the caller will resize to, if no smaller: a JPEG is then decoded at
            1/2, 1/4 or 1/8 of its size where that leaves at least so much, which costs a fraction.

    Raises:
        ImageError: missing, not a file, empty, not an image, damaged, in a color mode that has no RGB, or (after
            decoding at a smaller size) of more than `PIXEL_LIMIT` pixels. A progressive JPEG counts at full size.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    try:
        _check_regular(source)
        with source.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata in an image that can be read; sizes, which are checked here
            return _upright_rgb(_decoded(source, file, target_side))
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # decoders raise all manner of things on damaged files
        raise ImageError(source, _cause(source, error)) from error


def _check_regular(path: Path) -> None:
    """Refuse what opening would wait for without end (a named pipe), or what has no end (a device)."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a folder fails, and says so
        raise ImageError(path, "this is a pipe or a device, not an image.")


def _decoded(path: Path, file: BinaryIO, target_side: int | None) -> PILImage:
    """Open and decode an image, first frame only."""
    if file.read(len(JPEG_START)) == JPEG_START:
        file.seek(0)
        # not Image.open, which refuses an enormous photograph before it can be asked for a smaller version
        image: PILImage = JpegImageFile(file)
    else:
        file.seek(0)
        image = Image.open(file, formats=_formats())
    width, height = image.size
    if target_side is not None:
        image.draft(None, (target_side, target_side))
    if not image.info.get("progressive"):  # whose decoder holds all coefficients, at whatever size it decodes
        width, height = image.size
    if width * height > PIXEL_LIMIT:
        raise ImageError(path, _too_large(f"{width}x{height} px"))
    image.load()
    return image


def _upright_rgb(image: PILImage) -> PILImage:
    orientation = _orientation(image)
    rgb = _rgb(image)
    return rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb


def _orientation(image: PILImage) -> int | None:
    """Read the EXIF orientation; a photograph with broken EXIF is taken as it is."""
    try:
        return cast("int | None", image.getexif().get(ORIENTATION_TAG))
    except Exception:
        return None


def _rgb(image: PILImage) -> PILImage:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_eight_bits(np.asarray(image), sixteen=image.mode != "F"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray[Any, Any], sixteen: bool) -> np.ndarray[Any, Any]:
    """Scale gray values H,W to uint8; `sixteen`: they are integers, so that a small range still means 16 bits."""
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    ranges = (65535.0,) if sixteen else (1.0, 255.0, 65535.0)
    fitting = next((top for top in ranges if low >= 0 and high <= top), None)
    if fitting is None:
        values, fitting = values - low, max(high - low, 1.0)
    return np.round(values * (255 / fitting)).astype(np.uint8)


def _from_array(array: np.ndarray[Any, Any]) -> PILImage:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        shape = "x".join(map(str, array.shape))
        raise ImageError("an image in memory", f"expected uint8 values H,W,3 and found {array.dtype} {shape}.")
    return Image.fromarray(np.ascontiguousarray(array))


def _cause(path: Path, error: Exception) -> str:
    """Say in one line why an image could not be read."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file."
    if isinstance(error, IsADirectoryError):
        return "this is a folder, not an image."
    if isinstance(error, OSError) and error.strerror:
        return f"it cannot be read: {error.strerror}."
    if path.stat().st_size == 0:
        return "the file is empty."
    if isinstance(error, UnidentifiedImageError):
        return f"this is not an image in a format that can be read ({', '.join(FORMATS)})."
    if isinstance(error, Image.DecompressionBombError):
        return _too_large("it")
    return f"the image is damaged or of a kind that cannot be read: {str(error) or type(error).__name__}."


def _too_large(size: str) -> str:
    return f"{size} is more than {PIXEL_LIMIT / 1e6:.0f} million pixels. Make the image smaller."


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def find_inputs(paths: Sequence[Path]) -> tuple[list[Path], dict[str, str]]:
    """List the images that files and folders name, without duplicates; folders are searched recursively.

    A file counts as an image whatever its suffix.

    Returns:
        The image files, and the reason for each path that does not exist or has no image.

    Raises:
        FgvcError: there is no image at all.
    """
    images: dict[Path, None] = {}
    failures: dict[str, str] = {}
    for path in paths:
        if not path.exists():
            failures[str(path)] = "no such file or folder"
            continue
        try:
            found = find_images(path) if path.is_dir() else [path]
        except FgvcError as error:
            failures[str(path)] = str(error)
            continue
        if not found:
            failures[str(path)] = "no image in this folder"
        images.update(dict.fromkeys(found))
    if not images:
        raise FgvcError("no images: " + "; ".join(f"{path}: {reason}" for path, reason in failures.items()))
    return list(images), failures
