"""Read one image, whatever its format, as upright 8-bit RGB, and resize it as the decode cache stores it."""

from __future__ import annotations

import errno
import functools
import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import numpy as np
import PIL
from PIL import Image, TiffImagePlugin, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from fgvc_cli.contracts import EncodedImage
from fgvc_cli.contracts.classifier import FILTERS, Preprocessing
from fgvc_cli.errors import FgvcError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

    from fgvc_cli.data.augmentation import Augmentation


PIXEL_LIMIT = 178_956_970
"""Maximum number of pixels to decode: half a gigabyte as RGB, and Pillow's own limit."""

MAX_ELONGATION = 100
"""Maximum ratio of the long to the short side: a strip of 1 x 65,500 pixels, whose short side is resized to 256 pixels,
would take gigabytes."""

FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""Accepted formats. Pillow supports more, and runs external programs for some of them."""

IN_MEMORY = "an image in memory"
"""Name of an image without a file."""

JPEG_START = b"\xff\xd8\xff"
TIFF_STARTS = (b"II*\0", b"MM\0*")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""Brands, in bytes 8 to 12, of the container that HEIC photographs share with AVIF and video."""

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
"""The transpose that makes an image upright, by EXIF orientation."""


class ImageError(FgvcError):
    """An image cannot be read.

    Attributes:
        image: the file, or a description of an array.
        cause: the reason, in one line.
    """

    def __init__(self, image: Path | str, cause: str) -> None:
        super().__init__(image, cause)  # with both arguments it can be pickled by a worker
        self.image, self.cause = image, " ".join(cause.split())

    def __str__(self) -> str:
        return f"{self.image}: {self.cause}"


def read_image(source: Path | EncodedImage | bytes | np.ndarray, target_side: int | None = None) -> PILImage:
    """Read an image as 8-bit RGB, upright.

    Transparent pixels become white; of an animation the first frame is used. 16-bit values are scaled to 8 bits, as are
    32-bit integers and floats: from [0, 1], [0, 255] or [0, 65535] if they lie within, otherwise from their own
    minimum and maximum. NaN becomes black.

    Args:
        source: a file, the bytes of one, which `EncodedImage` reads, or a uint8 array H,W,3.
        target_side: short side in pixels that the caller will resize to, if not smaller. A JPEG is then decoded at
            1/2, 1/4 or 1/8 of its size if that is no smaller than this, which is much faster.

    Raises:
        ImageError: the file is missing, empty, damaged, not a regular file, not an image, in a color mode that cannot
            be converted to RGB, more than `MAX_ELONGATION` times as long as wide, or has more than `PIXEL_LIMIT` pixels
            (after decoding at a reduced size, except for a progressive JPEG); or it is HEIC, and pillow-heif is not
            installed.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    with _errors_explained(source), _opened(source) as file:
        return _upright_rgb(_decoded(source, file, target_side))


def image_size(source: Path | EncodedImage | bytes) -> tuple[int, int]:
    """Return the width and height of an image by its header, before it is made upright; nothing is decoded.

    Raises:
        ImageError: it is no image, damaged, or too long; see `read_image`.
    """
    with _errors_explained(source), _opened(source) as file:
        return _identified(source, file).size


@contextmanager
def _errors_explained(source: Path | EncodedImage | bytes) -> Iterator[None]:
    """Turn whatever a decoder raises into an `ImageError`, and keep its warnings to itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata of a readable image, and sizes, which are checked here
            yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # decoders raise anything on damaged files
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise FgvcError("too many open files; raise the limit (`ulimit -n 4096`)") from error
        raise ImageError(_named(source), _cause(source, error)) from error


def _opened(source: Path | EncodedImage | bytes) -> BinaryIO:
    """Open a file, unless it is a named pipe, for which that would wait forever, or a device, which may never end."""
    if isinstance(source, EncodedImage):
        source = source.read()
    if isinstance(source, bytes):
        return io.BytesIO(source)
    mode = source.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a folder fails
        raise ImageError(source, "a pipe or a device, not an image")
    return source.open("rb")


def stored_size(source: Path | EncodedImage | bytes | np.ndarray) -> int:
    """Return the number of bytes that an image takes where it is stored.

    Raises:
        OSError: the file is missing.
    """
    if isinstance(source, EncodedImage):
        return source.size
    if isinstance(source, np.ndarray):
        return source.nbytes
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def _named(source: Path | EncodedImage | bytes) -> Path | str:
    if isinstance(source, EncodedImage):
        return source.name
    return IN_MEMORY if isinstance(source, bytes) else source


def _identified(source: Path | EncodedImage | bytes, file: BinaryIO) -> PILImage:
    """Find out the format and the size of an image, without decoding it."""
    start = file.read(12)
    file.seek(0)
    if start.startswith(JPEG_START):
        # not Image.open, which refuses a very large image before `draft` can reduce it
        image: PILImage = JpegImageFile(file)
    else:
        if start[4:8] == b"ftyp" and start[8:] in HEIF_BRANDS and not heif_is_supported():
            raise ImageError(_named(source), HEIF_MISSING)
        image = Image.open(file, formats=_formats())
    width, height = image.size
    if max(width, height) > MAX_ELONGATION * min(width, height):
        cause = f"{width}x{height} px is more than {MAX_ELONGATION} times as long as wide; crop it"
        raise ImageError(_named(source), cause)
    return image


def _decoded(source: Path | EncodedImage | bytes, file: BinaryIO, target_side: int | None) -> PILImage:
    """Open and decode an image, the first frame only."""
    image = _identified(source, file)
    width, height = image.size
    if target_side is not None:
        image.draft(None, (target_side, target_side))
    if not image.info.get("progressive"):  # its decoder holds all coefficients at any size
        width, height = image.size
    if width * height > PIXEL_LIMIT:
        raise ImageError(_named(source), _too_large(f"{width}x{height} px"))
    image.load()
    return image


def _upright_rgb(image: PILImage) -> PILImage:
    orientation = _orientation(image)
    rgb = _rgb(image)
    return rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb


def _orientation(image: PILImage) -> int | None:
    """Return the EXIF orientation; None if there is none or the EXIF data is broken."""
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
    """Scale gray values H,W to uint8; `sixteen`: assume 16 bits even if all values are small (integers)."""
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
        raise ImageError(IN_MEMORY, f"expected uint8 values H,W,3, found {array.dtype} {shape}")
    return Image.fromarray(np.ascontiguousarray(array))


def _cause(source: Path | EncodedImage | bytes, error: Exception) -> str:
    """Return in one line why an image could not be read."""
    if isinstance(error, FgvcError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "file not found"
    if isinstance(error, IsADirectoryError):
        return "a folder, not an image"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if not stored_size(source):
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        if kind := _tiff_kind(source):
            return f"a TIFF of {kind}; gray, RGB and RGBA of 8 bits and gray of 16 or 32 bits can be read: convert it"
        return f"not an image in a supported format ({', '.join(FORMATS)})"
    if isinstance(error, Image.DecompressionBombError):
        return _too_large("the image")
    return f"damaged or of an unsupported kind: {str(error) or type(error).__name__}"


def _too_large(size: str) -> str:
    return f"{size} is more than {PIXEL_LIMIT / 1e6:.0f} million pixels; make the image smaller"


def _tiff_kind(source: Path | EncodedImage | bytes) -> str:
    """Return the number and type of the bands of a TIFF file, such as "5 bands of 16-bit integers"; "" for others."""
    try:
        with _opened(source) as file:
            header = file.read(8)
            if not header.startswith(TIFF_STARTS):
                return ""
            tags = TiffImagePlugin.ImageFileDirectory_v2(header)
            file.seek(tags.next)
            tags.load(file)
    except Exception:  # a damaged file
        return ""
    bands, bits, sample = (tags.get(tag, default) for tag, default in ((277, 1), (258, (1,)), (339, (1,))))
    kind = {3: "floats", 5: "complex integers", 6: "complex floats"}.get(sample[0], "integers")
    return f"{bands} band{'' if bands == 1 else 's'} of {bits[0]}-bit {kind}"


HEIF_MISSING = "HEIC, which needs pillow-heif: pip install 'fgvc-cli[heic]'"


@functools.cache
def heif_is_supported() -> bool:
    """Return whether HEIC images can be read; registers pillow-heif with Pillow if it is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that this Pillow supports."""
    Image.init()
    heif_is_supported()
    return tuple(name for name in FORMATS if name in Image.OPEN)


FORMAT = 2
"""Increase when the same file and resize give other pixels (`fgvc_cli.data.images`), or are stored in another way."""


@dataclass(frozen=True)
class CachedResize:
    """The part of preprocessing that gives the same pixels in every epoch.

    It is applied with and without a cache, so that both give the same batches.

    Attributes:
        crop_mode: "center" resizes the short side to `side` and keeps the aspect ratio; "squash" resizes to a square;
            "shrink" is "center" for larger images, and leaves smaller ones unchanged.
        side: pixels.
        interpolation: "bilinear" or "bicubic".
    """

    crop_mode: Literal["center", "squash", "shrink"]
    side: int
    interpolation: Literal["bilinear", "bicubic"]

    @classmethod
    def of_preprocessing(cls, preprocessing: Preprocessing) -> CachedResize:
        """Return the resize of `Preprocessing.resized`, which crops of fixed size are taken from."""
        return cls(preprocessing.crop_mode, preprocessing.resize, preprocessing.interpolation)

    @classmethod
    def of_augmentation(cls, augmentation: Augmentation) -> CachedResize | None:
        """Return the resize before an augmentation; None if it needs the whole image (`before_resize`)."""
        preprocessing, side = augmentation.preprocessing, augmentation.target_side
        if side is None:
            return None
        if augmentation.options.crop == "resized":
            return cls("shrink", side, preprocessing.interpolation)
        return cls.of_preprocessing(preprocessing)

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (width, height) that an image of (width, height) is resized to."""
        if self.crop_mode == "shrink" and min(size) <= self.side:
            return size
        crop_mode: Literal["center", "squash"] = "squash" if self.crop_mode == "squash" else "center"
        return Preprocessing(self.side, self.side, (0.0,) * 3, (1.0,) * 3, crop_mode).resized_size(size)

    def __call__(self, image: PILImage) -> PILImage:
        """Resize an RGB image."""
        size = self.size(image.size)
        return image if size == image.size else image.resize(size, FILTERS[self.interpolation])

    @property
    def description(self) -> str:
        """Size and interpolation as text: "short side 256 px, bilinear"."""
        size = {
            "center": f"short side {self.side} px",
            "squash": f"{self.side} x {self.side} px",
            "shrink": f"short side at most {self.side} px",
        }
        return f"{size[self.crop_mode]}, {self.interpolation}"

    @property
    def identity(self) -> str:
        """Everything that determines the pixels; every Pillow release brings its own decoders."""
        return f"{self.description}, format {FORMAT}, Pillow {PIL.__version__}"
