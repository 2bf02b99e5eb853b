"""Image files in their own mode and depth: what comes in goes out, and what a format cannot hold is named before."""

import io
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.ExifTags import Base
from PIL.PngImagePlugin import PngInfo, putchunk

from gicinpaint.config.atomic_files import atomic_file
from gicinpaint.data.image_io import FORMATS, MAX_PIXELS, ImageError, open_checked, turn_upright
from gicinpaint.data.tiff_pages import TiffReader, further_pages, write_pages

_GREY_DEEP = {"I;16", "I;16B", "I"}
_KINDS = {f".{kind.lower()}": kind for kind in ("PNG", "WEBP", "TIFF", "BMP", "GIF")} | {".tif": "TIFF"}  # else JPEG
_MODES = {  # that a format holds without changing a pixel; RGB16 and RGBA16 are color of 16 bits per channel
    "PNG": {"1", "L", "LA", "P", "RGB", "RGBA", "RGB16", "RGBA16", *_GREY_DEEP},
    "TIFF": {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "F", "I;32", "RGB16", "RGBA16", *_GREY_DEEP},
    "WEBP": {"1", "L", "LA", "P", "RGB", "RGBA"},
    "BMP": {"1", "L", "P", "RGB"},
    "JPEG": {"L", "RGB", "CMYK"},
    "GIF": set(),  # its colors are those of the palette
}
_EXTRAS = {  # beside the pixels; what is not here is left out of the result, and the job says so
    "PNG": ("icc_profile", "exif", "dpi", "xmp", "text", "transparency", "gamma"),
    "TIFF": ("icc_profile", "exif", "dpi", "xmp"),
    "WEBP": ("icc_profile", "exif", "xmp", "transparency"),
    "BMP": ("dpi",),
    "JPEG": ("icc_profile", "exif", "dpi", "xmp"),
    "GIF": (),
}
_TIFF_TAGS = (  # that describe the picture, not how its pixels are stored
    *(Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.Copyright),
    *(Base.ExifOffset, Base.GPSInfo),
)
_FRAMES = ("GIF", "PNG", "WEBP")  # formats of animations that are kept; a PNG or WebP file holds them
_MOST_FRAMES = 4096
_WORDS = {"RGB16": "RGB of 16 bits", "RGBA16": "RGBA of 16 bits", "I;16": "grey of 16 bits", "F": "floating point"}
_NAMES = {"icc_profile": "the color profile", "exif": "EXIF data", "dpi": "the resolution", "xmp": "XMP data"}
_SAVING: dict[str, dict[str, object]] = {
    "PNG": {"compress_level": 4},
    "WEBP": {"lossless": True, "exact": True},
    "JPEG": {"quality": 95, "subsampling": 0},
}


class Unchanged(NamedTuple):
    """An image in its file's own mode and depth, and what else the file holds.

    Attributes:
        image: The image, upright; uint16 (H, W, 3 or 4) for color of 16 bits per channel, which Pillow has no mode for.
        extras: `icc_profile`, `exif` (without the orientation, which is applied) and `xmp` as bytes, `dpi`,
            `transparency`, `gamma`, `text` as a dictionary, each where the file has it.
        left_out: What is in the file and not here, such as "damaged EXIF data".
        further: The file's bytes, if pages or frames that can be kept follow its first one.
    """

    image: Image.Image | np.ndarray
    extras: dict[str, Any]
    left_out: tuple[str, ...] = ()
    further: bytes | None = None


def decode_unchanged(
    file: IO[bytes], name: str, *, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = (*FORMATS, "GIF")
) -> Unchanged:
    """Decode an open binary file, upright, in the mode and depth that it has; `name` is what the error calls it.

    GIF is read here alone: its palette is nothing to train on.

    Raises:
        ImageError: If the content is of another format, too large or broken, or color of 16 bits in an unusual form.
    """
    with open_checked(file, name, max_pixels, formats) as image:
        swapped = _swapped_bytes(image, name)
        image.load()
        extras, left_out = _extras(image)
        further, lost = _further(file, image, swapped is not None, max_pixels)
        turn_upright(image)
        left_out += lost
        if swapped is None:
            return Unchanged(image.copy(), extras, left_out, further)
        with open_checked(file, name, max_pixels, formats) as low:
            vars(low)["tile"] = swapped
            turn_upright(low)
            return Unchanged(np.asarray(image).astype(np.uint16) << 8 | np.asarray(low), extras, left_out, further)


def check_format(file: Unchanged, path: Path) -> tuple[str, ...]:
    """Return what must be said of a result: what of the file it cannot keep, and that further images are not filled.

    Raises:
        ValueError: If the result's format would change the known pixels; the message names one that does not.
    """
    mode, kind = _mode(file.image), _KINDS.get(path.suffix.lower(), "JPEG")
    if mode not in _MODES[kind]:
        fitting = [name.lower() for name in ("PNG", "TIFF") if mode in _MODES[name]]
        way_out = f"set format={fitting[0]}" if fitting else "save it as RGB first"
        raise ValueError(f"{kind} cannot hold {_WORDS.get(mode, mode)} unchanged; {way_out}")
    lost = [*file.left_out, *(_NAMES.get(key, key) for key in file.extras if key not in _EXTRAS[kind])]
    remarks = tuple(f"not kept, {what}" for what in lost)
    if file.further is None:
        return remarks
    word, kinds = ("page", ("TIFF",)) if _has_pages(file.further) else ("frame", ("PNG", "WEBP"))
    if kind in kinds:
        return (*remarks, f"only the first {word} is filled, the others are as they were")
    ways = " or ".join(f"format={name.lower()}" for name in kinds)
    return (*remarks, f"not kept, all {word}s but the first ({ways} keeps them)")


def _mode(image: Image.Image | np.ndarray) -> str:
    if isinstance(image, np.ndarray):
        return ("RGB16", "RGBA16")[image.shape[2] - 3]
    if image.mode == "I" and not (np.asarray(image) >> 16 == 0).all():
        return "I;32"
    return image.mode


def write_unchanged(file: Unchanged, path: Path) -> None:
    """Write an image, with what its format holds of the extras; it appears whole or not at all."""
    kind = _KINDS.get(path.suffix.lower(), "JPEG")
    extras = {key: file.extras[key] for key in _EXTRAS[kind] if key in file.extras}
    further = file.further if file.further is not None and _has_pages(file.further) == (kind == "TIFF") else None
    with atomic_file(path) as partial:
        if kind == "TIFF":
            _write_tiff(file.image, partial, extras, further)
            return
        texts, xmp, gamma = extras.pop("text", {}), extras.get("xmp"), extras.pop("gamma", None)
        if kind == "PNG":
            extras["pnginfo"] = PngInfo()
            for key, value in texts.items():
                extras["pnginfo"].add_itxt(key, value)
            if xmp is not None:
                extras["pnginfo"].add_itxt("XML:com.adobe.xmp", extras.pop("xmp").decode(errors="replace"))
            if gamma is not None:
                extras["pnginfo"].add(b"gAMA", struct.pack(">I", round(gamma * 100_000)))
        if isinstance(file.image, np.ndarray):
            _write_deep_png(file.image, partial, extras)
            return
        image = file.image
        if further is not None and kind in _FRAMES:
            image, film = _film(image, kind, further, extras.pop("transparency", None))
            extras |= film
        image.save(partial, format=kind, **_SAVING.get(kind, {}), **extras)


def _swapped_bytes(image: Image.Image, name: str) -> list[Any] | None:
    """Return how to read the low bytes of color of 16 bits per channel, None where Pillow reads all bits."""
    if image.mode.startswith("I") or image.mode == "F":
        return None
    tiles: list[Any] = list(getattr(image, "tile", ()))
    modes = {str(tile.args[0] if isinstance(tile.args, tuple) else tile.args) for tile in tiles}
    bits = max(getattr(image, "tag_v2", {}).get(Base.BitsPerSample, (8,)))
    if bits <= 8 and not any(";16" in mode for mode in modes):
        return None
    swaps = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    found = re.fullmatch("(RGBA?;16)([BLN])", next(iter(modes), "")) if len(modes) == 1 else None
    if found is None:
        raise ImageError(
            f"cannot read image {name}: its channels of {max(bits, 16)} bits are stored in an unusual form; "
            "save it as RGB or RGBA of 16 bits without planes"
        )
    mode = found[1] + swaps[found[2]]
    return [tile._replace(args=(mode, *tile.args[1:]) if isinstance(tile.args, tuple) else mode) for tile in tiles]


def _extras(image: Image.Image) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what a file holds beside its first image, and what of it is left out."""
    keys = ("icc_profile", "transparency", "dpi", "xmp", "gamma")
    extras: dict[str, Any] = {key: image.info[key] for key in keys if image.info.get(key) not in (None, b"", ())}
    left_out = [image.info["left_out"]] if "left_out" in image.info else []
    text = getattr(image, "text", None) or {}
    text = {str(key): str(value) for key, value in text.items() if key != "XML:com.adobe.xmp"}
    if comment := image.info.get("comment"):  # of JPEG and GIF; a PNG file may call a text so
        text.setdefault("Comment", comment.decode(errors="replace") if isinstance(comment, bytes) else str(comment))
    if text:
        extras["text"] = text
    try:
        own, exif = image.getexif(), Image.Exif()
        own.bigtiff = False  # Pillow reads no EXIF data that it wrote in this layout
        exif.load(own.tobytes())  # a copy: the image's own says how to turn it
        exif.pop(Base.Orientation, None)
        for tag in [tag for tag in exif if image.format == "TIFF" and tag not in _TIFF_TAGS]:
            del exif[tag]
        if exif:
            extras["exif"] = exif.tobytes()
    except Exception:  # a broken EXIF block: the pixels are intact
        left_out.append("damaged EXIF data")
    return extras, tuple(left_out)


def _further(file: IO[bytes], image: Image.Image, deep: bool, max_pixels: int) -> tuple[bytes | None, tuple[str, ...]]:
    """Return a file's bytes if what follows its first image can be kept, and what cannot; all of it is looked at."""
    file.seek(0)
    content = file.read()
    try:
        if image.format == "TIFF":
            after = sum(1 for _ in TiffReader(content).pages(1))
            kept = sum(1 for _ in further_pages(TiffReader(content)))
            return content if kept else None, ("smaller copies of the image",) if kept < after else ()
        count = getattr(image, "n_frames", 1)
        if count == 1:
            return None, ()
        if image.format not in _FRAMES or deep or image.mode.startswith("I"):
            return None, ("all frames but the first",)
        if count > _MOST_FRAMES or count * image.width * image.height > max_pixels:
            limit = f"{_MOST_FRAMES:,} and {max_pixels:,} pixels in all (max_pixels)"
            return None, (f"all frames but the first; there are {count:,}, the limit is {limit}",)
        for _ in _frames(content):
            pass
        return content, ()
    except Exception as error:  # decoders raise anything; the first image is intact
        reason = " ".join(str(error).split()) if isinstance(error, ValueError | OSError) else "they are broken"
        return None, (f"all {'pages' if image.format == 'TIFF' else 'frames'} but the first: {reason}",)


def _has_pages(content: bytes) -> bool:
    return content[:2] in (b"II", b"MM")


def _frames(content: bytes) -> Iterator[Image.Image]:
    """Yield every frame of an animation as it is shown, upright; its duration in milliseconds is in `info`."""
    with Image.open(io.BytesIO(content)) as film:
        size = film.size
        for number in range(getattr(film, "n_frames", 1)):
            film.seek(number)
            film.load()
            if film.size != size:
                raise ValueError("frames differ in their size")
            frame = film.copy()
            turn_upright(frame)
            yield frame


def _film(image: Image.Image, kind: str, content: bytes, transparency: object) -> tuple[Image.Image, dict[str, Any]]:
    """Return the filled first frame of an animation, and how to save it with all others."""
    first, *others = _frames(content)
    image = image.copy()
    image.info = {} if transparency is None else {"transparency": transparency}
    if image.mode == "P" or transparency is not None or {frame.mode for frame in others} != {image.mode}:
        image, others = image.convert("RGBA"), [frame.convert("RGBA") for frame in others]
    durations = [frame.info.get("duration", 0) for frame in (first, *others)]
    loop = first.info.get("loop", 0)
    if content.startswith(b"GIF"):  # counts the repetitions, 0 for ever, the others count the showings
        loop = loop + (loop > 0) if "loop" in first.info else 1
    if hidden := kind == "PNG" and bool(first.info.get("default_image")):  # shown only where animations are not
        del durations[0]
    film = {"default_image": hidden, "duration": durations, "loop": loop, "disposal": 0, "blend": 0}
    return image, {"save_all": True, "append_images": others, **film}


def _write_tiff(image: Image.Image | np.ndarray, path: Path, extras: dict[str, Any], further: bytes | None) -> None:
    """Write an image and the pages that follow it; color of 16 bits per channel, which Pillow cannot, as two of 8."""
    exif = Image.Exif()
    exif.load(extras.pop("exif", b""))
    if "xmp" in extras:
        exif[Base.XMLPacket] = extras.pop("xmp")
    changes: dict[int, list[int]] = {}
    if isinstance(image, np.ndarray):
        height, width, channels = image.shape
        changes = {Base.ImageWidth: [width], Base.BitsPerSample: [16] * channels}
        image = Image.fromarray(image.astype("<u2").view(np.uint8).reshape(height, 2 * width, channels))
    first = io.BytesIO()
    image.save(first, "TIFF", exif=exif, **extras)
    with path.open("wb") as file:
        write_pages(file, first.getvalue(), changes, further)


def _write_deep_png(image: np.ndarray, path: Path, extras: dict[str, Any]) -> None:
    """Write color of 16 bits per channel, uint16 (H, W, 3 or 4), between the chunks of a file that Pillow can write."""
    height, width, channels = image.shape
    values = np.ascontiguousarray(image.astype(">u2")).view(np.uint8).reshape(height, -1)
    rows = np.empty((height, values.shape[1] + 1), np.uint8)
    rows[:, 0], rows[0, 1:] = 2, values[0]  # filter 2: each row holds the difference to the one above it
    rows[1:, 1:] = values[1:] - values[:-1]
    small = io.BytesIO()
    Image.new("RGB", (1, 1)).save(small, "PNG", **extras)
    chunks = small.getvalue()[33:]  # after the signature and the header
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        putchunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2 if channels == 3 else 6, 0, 0, 0))
        file.write(chunks[: chunks.rindex(b"IDAT") - 4])
        putchunk(file, b"IDAT", zlib.compress(rows.tobytes(), 4))
        putchunk(file, b"IEND", b"")
