"""The one reader of image files: whatever the file holds, 8-bit RGB or one named error comes out."""

import io
import os
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import MAX_TEXT_CHUNK, MAX_TEXT_MEMORY
from torch import Tensor

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff")
UNREAD = frozenset(  # endings of pictures of other kinds
    b".heic .heif .avif .jxl .jp2 .dng .cr2 .cr3 .nef .arw .orf .raf .rw2 .psd .exr .tga .ppm .svg".split()
)
CONVERT = "convert them to PNG, TIFF or JPEG"
MAX_PIXELS = 2**26  # 67 megapixels: more than any photograph of the paper's datasets, 200 MB when decoded

_BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"RIFF": "WebP",
    b"GIF8": "GIF",
}
_BEFORE_STREAM = {  # of chunks of a PNG file that hold a packed stream
    b"zTXt": rb"[^\0]*\0.",
    b"iCCP": rb"[^\0]*\0.",
    b"iTXt": rb"[^\0]*\0\x01.[^\0]*\0[^\0]*\0",
}
_TEXT_CHUNKS = (b"tEXt", b"eXIf", *_BEFORE_STREAM)


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
    """Return the bytes of an image file, or raise an ImageError if it is missing, no regular file or unreadable."""
    with _open_regular(path) as file:
        return file.read()


def decode_image(
    file: IO[bytes], name: str, *, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = FORMATS
) -> Image.Image:
    """Decode an open binary file as `read_image` does; `name` is what the `ImageError` calls it."""
    with open_checked(file, name, max_pixels, formats) as image:
        turn_upright(image)
        return _to_rgb(image, name)


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as float32 (3, H, W) in [-1, 1]."""
    return to_float(to_levels(image))  # bytes are moved faster than floats


def to_levels(image: Image.Image) -> Tensor:
    """Return an RGB image as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image)).movedim(-1, 0).contiguous()


def to_float(levels: Tensor) -> Tensor:
    """Return 8-bit levels, uint8 of any shape, as float32 in [-1, 1]."""
    return levels.float().div_(127.5).sub_(1)


def show_name(path: str | bytes | os.PathLike[str]) -> str:
    """Return a file name in quotes on one line, whatever characters it has."""
    name = os.fsdecode(path)
    return f"'{name}'" if name.isprintable() else ascii(name)


@contextmanager
def open_checked(file: IO[bytes], name: str, max_pixels: int, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """Open an image whose header was checked; whatever its decoder raises becomes an `ImageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what is checked below or harmless (EXIF remains)
            with _open(file, formats) as image:
                width, height = image.size
                if not 1 <= width * height <= max_pixels:
                    reason = f"are more than the limit of {max_pixels}" if width * height else "are too few"
                    raise ImageError(f"cannot read image {name}: {width}x{height} pixels {reason}")
                yield image
    except ImageError:
        raise
    except UnidentifiedImageError:
        kind = _kind(file)
        reason = f"its content is none of {', '.join(formats)}; convert it to one of them"
        if not file.tell():
            reason = "the file is empty"
        elif kind is not None and kind.upper() in formats:
            odd = " or holds pixels of a form that is not read, such as RGB of floating point" if kind == "TIFF" else ""
            reason = f"the {kind} file is broken{odd}"
        raise ImageError(f"cannot read image {name}: {reason}") from None
    except Exception as error:  # decoders of foreign bytes raise anything, from struct.error to MemoryError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"cannot read image {name}: {reason}") from None


def _open(file: IO[bytes], formats: tuple[str, ...]) -> Image.Image:
    """Open an image; of a PNG that Pillow refuses for its text or its profile, the image is left."""
    if "PNG" in formats and _kind(file) == "PNG" and (bare := _without_bad_chunks(file)) is not None:
        image = Image.open(bare, formats=formats)
        image.info["left_out"] = "text or a color profile that is damaged or over 1 MiB"
        return image
    file.seek(0)
    return Image.open(file, formats=formats)


def _kind(file: IO[bytes]) -> str | None:
    """Return what a file is by its first bytes, and stay behind them."""
    file.seek(0)
    start = file.read(8)
    return next((kind for beginning, kind in _BEGINNINGS.items() if start.startswith(beginning)), None)


def _without_bad_chunks(file: IO[bytes]) -> IO[bytes] | None:
    """Return a PNG file without the text and profiles that are damaged or too long, or None if there are none."""
    spans, begin, bad, room = [], 0, False, MAX_TEXT_MEMORY
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        end = file.tell() + length + 4
        if kind in _TEXT_CHUNKS:
            content, checksum = file.read(length), file.read(4)
            size = _unpacked_size(kind, content) if room > 0 else MAX_TEXT_CHUNK + 1
            room -= size
            if size > MAX_TEXT_CHUNK or room <= 0 or zlib.crc32(kind + content) != int.from_bytes(checksum):
                spans.append((begin, end - length - 12))
                begin, bad = end, True
        file.seek(end)
    if not bad:
        return None
    file.seek(0)
    whole = file.read()
    return io.BytesIO(b"".join(whole[first:last] for first, last in (*spans, (begin, len(whole)))))


def _unpacked_size(kind: bytes, content: bytes) -> int:
    """Return how long a chunk is, unpacked, up to a byte more than Pillow takes."""
    if kind not in _BEFORE_STREAM or not (start := re.match(_BEFORE_STREAM[kind], content, re.DOTALL)):
        return len(content)
    try:
        return len(zlib.decompressobj().decompress(content[start.end() :], MAX_TEXT_CHUNK + 1))
    except zlib.error:
        return len(content)


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


def turn_upright(image: Image.Image) -> None:
    """Load an image and turn it in place as its EXIF orientation says."""
    image.load()
    with suppress(Exception):  # a broken EXIF block: the pixels are intact, and upright is what viewers show
        ImageOps.exif_transpose(image, in_place=True)


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
