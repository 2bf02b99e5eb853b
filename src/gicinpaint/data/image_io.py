"""The one reader of image files: whatever the file holds, 8-bit RGB or one named error comes out."""

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 2**26  # 67 megapixels: more than any photograph of the paper's datasets, 200 MB when decoded

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """A file that cannot be used as an image; the message names the file and the reason on one line."""


def read_image(
    path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = FORMATS
) -> Image.Image:
    """Read an image file as upright 8-bit RGB.

    Format and size are taken from the header and checked before a pixel is decoded. What becomes of the rest:

    - grey, palette, 1-bit, CMYK, YCbCr: converted to RGB;
    - alpha, in any form: composited over white;
    - 16-bit: scaled from 0..65535;
    - 32-bit integers and floats: scaled from 0..1 (floats), 0..255 (floats) or 0..65535 (integers) where all values
      lie in that range, else from their own smallest and largest value; never clipped;
    - EXIF orientation: applied (an unreadable EXIF block counts as none);
    - several frames or pages: the first.

    Args:
        path: File to read.
        max_pixels: Largest width x height that is decoded; above 178,956,970 Pillow's own limit holds.
        formats: Formats that are recognised, in Pillow's names. The file's content decides, not its suffix.

    Raises:
        ImageError: If it is missing, no regular file, unreadable, of another format, too large or broken.
    """
    with _open_regular(path) as file:
        return decode_image(file, show_name(path), max_pixels=max_pixels, formats=formats)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of an image file as they are.

    Raises:
        ImageError: If it is missing, no regular file or unreadable.
    """
    with _open_regular(path) as file:
        return file.read()


def decode_image(
    file: IO[bytes], name: str, *, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = FORMATS
) -> Image.Image:
    """Decode an open binary file as `read_image` does; `name` is what the error calls it.

    Raises:
        ImageError: If the content is of another format, too large or broken.
    """
    with _open_checked(file, name, max_pixels, formats) as image:
        image.load()
        return _turn_upright(image, _to_rgb(image, name))


def decode_unchanged(
    file: IO[bytes], name: str, *, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = FORMATS
) -> Image.Image:
    """Decode an open binary file, upright, in the mode that it has; `name` is what the error calls it.

    Raises:
        ImageError: If the content is of another format, too large or broken.
    """
    with _open_checked(file, name, max_pixels, formats) as image:
        image.load()
        upright = _turn_upright(image, image.copy())
        upright.info = {key: image.info[key] for key in ("icc_profile", "transparency", "dpi") if key in image.info}
        return upright


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as float32 (3, H, W) in [-1, 1]."""
    return to_float(torch.from_numpy(np.array(image)).movedim(-1, 0).contiguous())  # bytes are moved faster than floats


def to_float(levels: Tensor) -> Tensor:
    """Return 8-bit levels, uint8 of any shape, as float32 in [-1, 1]."""
    return levels.float().div_(127.5).sub_(1)


def show_name(path: str | bytes | os.PathLike[str]) -> str:
    """Return a file name in quotes on one line, whatever characters it has."""
    name = os.fsdecode(path)
    return f"'{name}'" if name.isprintable() else ascii(name)


@contextmanager
def _open_checked(file: IO[bytes], name: str, max_pixels: int, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """Open an image whose header was checked; whatever its decoder raises becomes an `ImageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what is checked below or harmless (EXIF remains)
            with Image.open(file, formats=formats) as image:
                width, height = image.size
                if width < 1 or height < 1:
                    raise ImageError(f"cannot read image {name}: it is {width}x{height} pixels")
                if width * height > max_pixels:
                    raise ImageError(
                        f"cannot read image {name}: {width}x{height} pixels are more than the limit of {max_pixels}"
                    )
                yield image
    except ImageError:
        raise
    except UnidentifiedImageError:
        reason = "the file is empty" if _is_empty(file) else f"its content is none of {', '.join(formats)}"
        raise ImageError(f"cannot read image {name}: {reason}") from None
    except Exception as error:  # decoders of foreign bytes raise anything, from struct.error to MemoryError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"cannot read image {name}: {reason}") from None


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image
    if mode in ("I", "F") or mode.startswith("I;16"):
        return Image.fromarray(_scale(np.asarray(image), name)).convert("RGB")
    if "transparency" in image.info or mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        layer = image.convert("LA").convert("RGBA") if mode == "La" else image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _scale(values: np.ndarray, name: str) -> np.ndarray:
    values = values.astype(np.float64) if values.dtype.kind == "f" else values.astype(np.int64)
    low, high = values.min(), values.max()
    if not np.isfinite(low) or not np.isfinite(high):
        raise ImageError(f"cannot read image {name}: it holds values that are not finite")
    if values.dtype.kind == "f" and low >= 0 and high <= 255:
        ceiling = 1.0 if high <= 1 else 255.0
    elif values.dtype.kind == "i" and low >= 0 and high <= 65535:
        ceiling = 65535.0
    else:
        values, ceiling = values - low, float(high - low) or 1.0
    return np.round(values * (255.0 / ceiling)).astype(np.uint8)


def _turn_upright(source: Image.Image, image: Image.Image) -> Image.Image:
    try:
        orientation = source.getexif().get(_ORIENTATION_TAG)
    except Exception:  # a broken EXIF block: the pixels are intact, and upright is what viewers show
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _is_empty(file: IO[bytes]) -> bool:
    return file.seek(0, os.SEEK_END) == 0


@contextmanager
def _open_regular(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    name = show_name(path)
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ImageError(f"cannot read image {name}: not a regular file")
            yield file
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        hint = "; the link points nowhere" if os.path.islink(path) and not os.path.exists(path) else ""
        raise ImageError(f"cannot read image {name}: {reason}{hint}") from None


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a named pipe would wait for a writer for ever
