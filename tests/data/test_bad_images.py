"""Bad files of every kind, made here: each is read, or refused with one line that names the file and the reason."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gicinpaint.data import (
    DatasetError,
    ImageError,
    ImageFiles,
    InpaintingDataModule,
    Packing,
    RandomCrop,
    TarShards,
    prepare,
    read_image,
    scan,
)
from gicinpaint.masks import RectangleMask

SIZE = (48, 64)  # width, height


def picture(mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(kind: str, image: Image.Image | None = None, **options) -> bytes:
    file = io.BytesIO()
    (image or picture()).save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, content: bytes = b"", depth: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


def cut(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


def with_byte(content: bytes, place: int, value: int) -> bytes:
    return content[:place] + bytes([value]) + content[place + 1 :]


EMPTY, FOREIGN = "the file is empty", "its content is none of JPEG"
ANY = r"': \w{3,}"  # what the decoder says, which changes with its version

# name: content and a part of the reason
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.jpg": (lambda: b"", EMPTY),
    "empty.png": (lambda: b"", EMPTY),
    "one byte.jpg": (lambda: b"\xff", FOREIGN),
    "zeros.jpg": (lambda: bytes(5000), FOREIGN),
    "text.jpg": (lambda: b"404 Not Found\n", FOREIGN),
    "page.jpg": (lambda: b"<html><body>Sign in</body></html>", FOREIGN),
    "link list.png": (lambda: b"https://example.org/1.png\n" * 9, FOREIGN),
    "drawing.png": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', FOREIGN),
    "document.jpg": (lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", FOREIGN),
    "archive.jpg": (lambda: b"PK\x03\x04" + bytes(60), FOREIGN),
    "packed.png": (lambda: zlib.compress(encoded("PNG")), FOREIGN),
    "animation.png": (lambda: encoded("GIF"), FOREIGN),
    "portable.jpg": (lambda: encoded("PPM"), FOREIGN),
    "icon.png": (lambda: encoded("ICO"), FOREIGN),
    "pointer.jpg": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", FOREIGN),
    "half.jpg": (lambda: cut(encoded("JPEG"), 0.5), "truncated"),
    "nearly whole.jpg": (lambda: cut(encoded("JPEG"), 0.9), "truncated"),
    "start.jpg": (lambda: b"\xff\xd8\xff\xe0", ANY),
    "header only.jpg": (lambda: encoded("JPEG")[:200], ANY),
    "half.png": (lambda: cut(encoded("PNG"), 0.5), "truncated"),
    "signature only.png": (lambda: encoded("PNG")[:8], ANY),
    "header only.png": (lambda: encoded("PNG")[:33], ANY),
    "half.webp": (lambda: cut(encoded("WEBP"), 0.5), ANY),
    "half.bmp": (lambda: cut(encoded("BMP"), 0.5), "truncated"),
    "half.tif": (lambda: cut(encoded("TIFF"), 0.5), ANY),
    "half packed.tif": (lambda: cut(encoded("TIFF", compression="tiff_lzw"), 0.5), ANY),
    "bomb.png": (lambda: png(40_000, 40_000), "1600000000 pixels.* exceeds limit"),
    "wide bomb.png": (lambda: png(2**27, 1), "134217728x1 pixels are more than the limit"),
    "no width.png": (lambda: png(0, 10), ANY),
    "no pixels.png": (lambda: png(10, 10), ANY),
    "depth of 7.png": (lambda: png(10, 10, bytes(310), depth=7), ANY),
    "wrong check sum.png": (lambda: with_byte(encoded("PNG"), 30, 0), ANY),
    "broken stream.png": (lambda: with_byte(encoded("PNG"), 60, encoded("PNG")[60] ^ 255), ANY),
    "no height.bmp": (lambda: encoded("BMP")[:22] + bytes(4) + encoded("BMP")[26:], ANY),
    "not finite.tif": (lambda: encoded("TIFF", Image.fromarray(np.full((9, 9), np.nan, np.float32))), "not finite"),
    "directory outside.tif": (lambda: encoded("TIFF")[:4] + b"\xf0\xff\xff\x7f" + encoded("TIFF")[8:], ANY),
}


def _make_folder(path: Path) -> None:
    path.mkdir()


def _make_dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def _make_pipe(path: Path) -> None:
    os.mkfifo(path)


def _make_unreadable(path: Path) -> None:
    path.write_bytes(encoded("PNG"))
    path.chmod(0)


SPECIAL: dict[str, tuple[Callable[[Path], None], str]] = {
    "folder.png": (_make_folder, "not a regular file|Is a directory"),
    "dangling.png": (_make_dangling, "the link points nowhere"),
    "loop.png": (_make_loop, "symbolic links"),
    "pipe.png": (_make_pipe, "not a regular file"),
    "unreadable.png": (_make_unreadable, "Permission denied"),
}

# odd, but images: name and content
READ: dict[str, Callable[[], bytes]] = {
    "name with\na newline.png": lambda: encoded("PNG"),
    "tab\tand space .png": lambda: encoded("PNG"),
    "日本語 ütf.jpg": lambda: encoded("JPEG"),
    "quote ' and \\.png": lambda: encoded("PNG"),
    "-rf *.png": lambda: encoded("PNG"),
    "UPPER.JPEG": lambda: encoded("JPEG"),
    "really a png.jpg": lambda: encoded("PNG"),
    "really a webp.png": lambda: encoded("WEBP"),
    "junk behind.jpg": lambda: encoded("JPEG") + b"junk" * 100,
    "grey.jpg": lambda: encoded("JPEG", picture("L")),
    "four inks.jpg": lambda: encoded("JPEG", picture("CMYK")),
    "palette.png": lambda: encoded("PNG", picture("P")),
    "one bit.png": lambda: encoded("PNG", picture("1")),
    "grey and alpha.png": lambda: encoded("PNG", picture("LA")),
    "alpha.webp": lambda: encoded("WEBP", picture("RGBA")),
    "sixteen bits.png": lambda: encoded("PNG", picture("I;16")),
    "animated.webp": lambda: encoded("WEBP", save_all=True, append_images=[picture("L").convert("RGB")]),
    "several pages.tif": lambda: encoded("TIFF", save_all=True, append_images=[picture()]),
    "broken exif.jpg": lambda: encoded("JPEG", exif=b"Exif\x00\x00garbage that is no directory"),
    "foreign profile.jpg": lambda: encoded("JPEG", icc_profile=b"no profile"),
}


def write(folder: Path, name: str) -> Path:
    path = folder / name
    if name in SPECIAL:
        SPECIAL[name][0](path)
    else:
        path.write_bytes((REFUSED[name][0] if name in REFUSED else READ[name])())
    return path


def needs_user(name: str) -> None:
    if name == "unreadable.png" and os.geteuid() == 0:
        pytest.skip("the superuser reads every file")


def test_there_are_at_least_forty_kinds() -> None:
    assert len(REFUSED) + len(SPECIAL) >= 40


@pytest.mark.parametrize("name", [*REFUSED, *SPECIAL])
def test_a_bad_file_is_one_line_with_name_and_reason(name: str, tmp_path: Path) -> None:
    needs_user(name)
    path = write(tmp_path, name)
    reason = REFUSED[name][1] if name in REFUSED else SPECIAL[name][1]
    with pytest.raises(ImageError, match=reason) as error:
        read_image(path)
    assert name in str(error.value)
    assert str(error.value).startswith("cannot read image ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", READ)
def test_an_odd_file_is_read_through_folder_and_shard(name: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    write(tmp_path / "images", name)
    folder = ImageFiles(tmp_path / "images")
    assert len(folder) == 1
    image = folder.read(0)
    assert (image.mode, image.size) == ("RGB", SIZE)
    assert "\n" not in folder.name(0)
    prepare({"train": folder}, tmp_path / "out", Packing(), workers=0, progress=False)
    assert np.array_equal(np.asarray(TarShards(tmp_path / "out" / "train").read(0)), np.asarray(image))


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageFiles, set[str]]:
    """All bad files among ninety-nine times as many good ones, and the names of the bad ones that a listing finds."""
    folder = tmp_path_factory.mktemp("mixture")
    names = [name for name in (*REFUSED, *SPECIAL) if not (name == "unreadable.png" and os.geteuid() == 0)]
    for name in names:
        write(folder, name)
    good = encoded("BMP", picture().resize((20, 20)))
    for number in range(101 * len(names)):
        (folder / f"good {number:04d}.bmp").write_bytes(good)
    return ImageFiles(folder), set(names) - {"folder.png"}  # a folder is looked into, whatever its name


def test_a_scan_names_every_bad_file_and_no_other(mixture: tuple[ImageFiles, set[str]], tmp_path: Path) -> None:
    source, bad = mixture
    crops = {"train": RandomCrop()}
    result = scan({"train": source}, tmp_path / "r.txt", crops=crops, image_size=(20, 20), workers=0, progress=False)
    lines = result.report.read_text().splitlines()[1:]
    assert result.bad == len(lines) == len(bad)
    assert {name for name in bad for line in lines if f"{name}'" in line} == bad


def test_training_skips_all_of_them_up_to_one_per_cent(mixture: tuple[ImageFiles, set[str]]) -> None:
    source, bad = mixture
    mask = RectangleMask(box=8, inset=2)
    data = InpaintingDataModule(source, source, mask, image_size=20, batch_size=50, workers=0, on_error="skip")
    assert sum(len(batch.image) for batch in data.val_dataloader()) == len(source) - len(bad)
    assert data.validation.bad_images.totals[1] == len(bad)
    with pytest.raises(DatasetError, match="more than 1% of the"):
        list(data.val_dataloader())  # the same ones again: now more than one per cent of the images are bad


def test_training_raises_at_the_first_of_them(mixture: tuple[ImageFiles, set[str]]) -> None:
    source, bad = mixture
    names = [source.name(index) for index in range(len(source))]
    place = next(index for index, name in enumerate(names) if any(f"{one}'" in name for one in bad))
    mask = RectangleMask(box=8, inset=2)
    with pytest.raises(DatasetError, match="cannot be used; the first: cannot read image"):
        InpaintingDataModule(source, source, mask, image_size=20, batch_size=50, workers=0)  # the last one is bad
    skipping = InpaintingDataModule(source, source, mask, image_size=20, batch_size=50, workers=0, on_error="skip")
    skipping.train.on_error = "raise"
    with pytest.raises(ImageError, match="cannot read image"):
        skipping.train[(0, place)]
