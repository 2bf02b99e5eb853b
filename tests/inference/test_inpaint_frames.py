"""Files of several pages or frames: the first is filled, and the others stay as they are or are said to be left out."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.TiffImagePlugin import AppendingTiffWriter

from gicinpaint.data.image_unchanged import Unchanged, check_format, decode_unchanged, write_unchanged
from inpaint_runs import HOLE, SIZE, run_here
from pictures_of_every_kind import draw

FILLED = "only the first {} is filled, the others are as they were"
PLACES = (273, 324, 330, 34665)  # tags that say where something lies, which another file may have elsewhere


def levels(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(shape).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def write_pages(path: Path, first: np.ndarray, order: str, big: bool = False) -> None:
    """Write a first page, and others of all kinds behind it."""
    grey, deep = levels(40, 50), levels(31, 17, dtype=np.uint16)
    packed: dict[str, Any] = {"compression": "zlib", "predictor": True, "rowsperstrip": 7}
    described: dict[str, Any] = {"description": "page two", "software": "scanner", "resolution": (300, 200)}
    with tifffile.TiffWriter(path, byteorder=order, bigtiff=big) as file:  # type: ignore[arg-type]
        file.write(first, photometric="rgb", metadata=None)
        file.write(grey, metadata=None, **packed, **described)
        file.write(deep, subifds=2, metadata=None)
        file.write(deep[::2, ::2], subfiletype=1, metadata=None)
        file.write(deep[::4, ::4], subfiletype=1, metadata=None)
        file.write(np.linspace(-1, 2, 4096).reshape(64, 64), tile=(16, 32), metadata=None)
        file.write(grey > 99, metadata=None, extratags=[(33_000, 12, 2, (0.5, -3.0), True)])
        file.write(levels(9, 11, 4), photometric="separated", metadata=None)


def assert_same_pages(found: list[Any], expected: list[Any]) -> None:
    """Compare the tags, the stored bytes, the pixels and the pages below."""
    assert len(found) == len(expected)
    for page, other in zip(found, expected, strict=True):
        tags, others = ({tag.code: tag.value for tag in p.tags if tag.code not in PLACES} for p in (page, other))
        assert tags == others
        assert stored(page) == stored(other)
        assert np.array_equal(page.asarray(), other.asarray())
        assert_same_pages(list(page.pages or ()), list(other.pages or ()))


def stored(page: Any) -> list[bytes]:
    content = Path(page.parent.filehandle.path).read_bytes()
    return [content[at : at + size] for at, size in zip(page.dataoffsets, page.databytecounts, strict=True)]


@pytest.mark.parametrize(
    ("order", "bits", "big"), [("<", 8, False), (">", 16, False), (">", 8, False), ("<", 16, True)]
)
def test_further_pages_of_a_tiff_stay_to_the_byte(model: Path, place: Path, order: str, bits: int, big: bool) -> None:
    first = levels(*SIZE, 3, dtype=np.uint8 if bits == 8 else np.uint16)
    write_pages(place / "in/scan.tif", first, order, big)
    result = run_here(model, "input=in", "masks=mask.png", "output=out", "format=same", folder=place)
    assert result.returncode == 0, result.stderr
    assert f"{FILLED.format('page')}: scan" in result.stdout
    assert "not kept" not in result.stdout
    with tifffile.TiffFile(place / "out/scan.tif") as found, tifffile.TiffFile(place / "in/scan.tif") as file:
        assert_same_pages(list(found.pages)[1:], list(file.pages)[1:])
        filled = found.pages[0].asarray()
    assert filled.dtype == first.dtype
    assert np.array_equal(filled[~HOLE], first[~HOLE])
    assert not np.array_equal(filled[HOLE], first[HOLE])


def changed(content: bytes, at: int, part: bytes) -> bytes:
    return content[:at] + part + content[at + len(part) :]


def next_page(content: bytes) -> int:
    """Return where a TIFF file of little-endian numbers says where its second page is."""
    (at,) = struct.unpack_from("<I", content, 4)
    return at + 2 + 12 * struct.unpack_from("<H", content, at)[0]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I;16B", "I", "F"])
@pytest.mark.parametrize("order", "<>")
def test_a_first_page_of_any_mode_goes_before_pages_of_either_byte_order(tmp_path: Path, mode: str, order: str) -> None:
    further = tmp_path / "further.tif"
    write_pages(further, levels(*SIZE, 3), order)
    image = draw(mode, *SIZE, 3)
    extras = {"dpi": (240, 240), "xmp": b"<x/>", "icc_profile": b"a profile"}
    write_unchanged(Unchanged(image, extras, further=further.read_bytes()), tmp_path / "x.tif")
    with tifffile.TiffFile(tmp_path / "x.tif") as file, tifffile.TiffFile(further) as expected:
        assert file.byteorder == order
        assert_same_pages(list(file.pages)[1:], list(expected.pages)[1:])
        tags = {code: file.pages[0].tags[code].value for code in (282, 700, 34675)}
        found = file.pages[0].asarray()
    assert tags == {282: (240, 1), 700: b"<x/>", 34675: b"a profile"}
    assert np.array_equal(found, np.array(image))
    with Image.open(tmp_path / "x.tif") as again:
        assert again.mode == (mode if mode[:4] != "I;16" else "I;16" + "B" * (order == ">"))
        assert np.array_equal(np.array(again), np.array(image))
    assert mode != "P" or again.convert("RGB").tobytes() == image.convert("RGB").tobytes()


def test_smaller_copies_of_the_first_page_are_left_out_because_they_show_its_hole(tmp_path: Path) -> None:
    content = io.BytesIO()
    with AppendingTiffWriter(content, new=True) as file:
        first, photo, text = draw("RGB", *SIZE, 1), draw("RGB", 64, 80, 2), draw("1", 50, 70, 2)
        copy = {"tiffinfo": {254: 1}}
        for image, options in (
            (first, {}),
            (photo, copy),
            (photo, {"compression": "jpeg"}),
            (text, {"compression": "group4"}),
        ):
            image.save(file, "TIFF", **options)
            file.newFrame()
    raw = content.getvalue()
    loaded = decode_unchanged(io.BytesIO(raw), "x")
    assert check_format(loaded, Path("x.tif")) == ("not kept, smaller copies of the image", FILLED.format("page"))
    write_unchanged(loaded, tmp_path / "x.tif")
    with Image.open(tmp_path / "x.tif") as found, Image.open(io.BytesIO(raw)) as expected:
        assert found.n_frames == 3  # type: ignore[attr-defined]
        for number, other in ((0, 0), (1, 2), (2, 3)):
            found.seek(number)
            expected.seek(other)
            assert np.array_equal(np.array(found), np.array(expected))


def test_camera_data_of_the_first_and_of_further_pages_stay(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x8769], exif[0x010F] = {0x9003: "2020:01:02 03:04:05", 0x829A: 0.5}, "Maker"
    content, photo = io.BytesIO(), draw("RGB", 64, 80, 2)
    photo.save(content, "TIFF", exif=exif.tobytes(), save_all=True, append_images=[draw("L", *SIZE, 1)])
    raw = content.getvalue()
    photos = raw[4:8]  # where its directory lies; now the other page becomes the first one
    other = raw[next_page(raw) :][:4]
    raw = changed(changed(raw, next_page(raw), bytes(4)), 4, other)
    raw = changed(raw, next_page(raw), photos)
    write_unchanged(decode_unchanged(io.BytesIO(raw), "x"), tmp_path / "x.tif")
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        tags = file.pages[1].tags
        assert (tags[0x010F].value, tags[0x8769].value["DateTimeOriginal"]) == ("Maker", "2020:01:02 03:04:05")
        assert np.array_equal(file.pages[1].asarray(), np.array(photo))
    deep = levels(*SIZE, 3, dtype=np.uint16)
    write_unchanged(Unchanged(deep, {"exif": exif.tobytes(), "icc_profile": b"a profile"}), tmp_path / "deep.tif")
    with tifffile.TiffFile(tmp_path / "deep.tif") as file:
        tags = file.pages[0].tags
        assert (tags[0x010F].value, tags[0x8769].value["DateTimeOriginal"]) == ("Maker", "2020:01:02 03:04:05")
        assert tags[34675].value == b"a profile"
        assert np.array_equal(file.asarray(), deep)


def draw_film(alpha: bool) -> list[np.ndarray]:
    """Return three pictures of few colors, the third like the second in its upper half."""
    colors = np.array([[250, 10, 20], [0, 200, 30], [9, 8, 7], [255, 255, 255]], np.uint8)
    frames = [np.dstack([colors[levels(*SIZE, n)[..., 0] % 4], np.full(SIZE, 255, np.uint8)]) for n in range(2, 5)]
    frames[2][:9] = frames[1][:9]
    for frame in frames if alpha else ():
        frame[:, ::5] = 0
    return frames


def shown(path: Path) -> tuple[list[np.ndarray], list[int]]:
    """Return the frames of an animation, RGBA, and their durations in milliseconds, as OpenCV reads them."""
    read, film = cv2.imreadanimation(str(path))
    assert read
    frames = [
        frame if frame.shape[2] == 4 else np.dstack([frame, np.full(SIZE, 255, np.uint8)]) for frame in film.frames
    ]
    return [frame[..., [2, 1, 0, 3]] for frame in frames], list(film.durations)


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_the_other_frames_of_an_animation_are_shown_as_before(model: Path, place: Path, kind: str) -> None:
    durations, expected = [100, 250, 70], {}
    for name, options in {"a.gif": {"disposal": 2}, "b.png": {}, "c.webp": {"lossless": True}, "d.gif": {}}.items():
        frames = expected[name[0]] = draw_film(alpha=name[0] < "d")
        first, *others = [Image.fromarray(frame) for frame in frames]
        more = {"save_all": True, "append_images": others, "duration": durations, "loop": 3, **options}
        first.save(place / "in" / name, **more)
    result = run_here(model, "input=in", "masks=mask.png", "output=out", f"format={kind}", folder=place)
    assert result.returncode == 0, result.stderr
    assert f"{FILLED.format('frame')}: a, b, c and 1 more" in result.stdout
    for name, frames in expected.items():
        found, lasted = shown(place / f"out/{name}.{kind}")
        assert lasted == durations
        assert all(np.array_equal(frame, other) for frame, other in zip(found[1:], frames[1:], strict=True))
        assert np.array_equal(found[0][~HOLE], frames[0][~HOLE])
        assert not np.array_equal(found[0][HOLE], frames[0][HOLE])
        with Image.open(place / f"out/{name}.{kind}") as film:
            assert film.info["loop"] == (4 if name in "ad" else 3)  # GIF counts the repetitions


def test_an_animated_png_keeps_its_picture_for_viewers_without_animation_apart(tmp_path: Path) -> None:
    frames = draw_film(alpha=False)
    first, *others = [Image.fromarray(frame[..., :3]) for frame in frames]
    content = io.BytesIO()
    first.save(content, "PNG", save_all=True, append_images=others, default_image=True, duration=[40, 60])
    write_unchanged(decode_unchanged(content, "x"), tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as found:
        assert found.info["default_image"]
        assert np.array_equal(np.array(found), frames[0][..., :3])
        durations = [found.seek(number) or found.info["duration"] for number in (1, 2)]
    assert durations == [40, 60]
    assert b"acTL" + struct.pack(">II", 2, 0) in (tmp_path / "x.png").read_bytes()  # two frames, for ever
    write_unchanged(decode_unchanged(content, "x"), tmp_path / "x.webp")
    assert len(shown(tmp_path / "x.webp")[0]) == 3


def test_frames_are_turned_as_the_first_one_is_and_a_transparent_color_stays_transparent(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    content = of_frames("WEBP", 2, lossless=True, exif=exif)
    write_unchanged(decode_unchanged(io.BytesIO(content), "x"), tmp_path / "x.webp")
    with Image.open(tmp_path / "x.webp") as found:
        for seed in range(2):
            found.seek(seed)
            assert np.array_equal(np.array(found.convert("RGB")), np.rot90(np.array(draw("RGB", 12, 14, seed)), -1))
    clear = draw("RGB", 12, 14, 0).getpixel((3, 4))
    content = of_frames("PNG", 2, transparency=clear)
    for kind in ("png", "webp"):
        write_unchanged(decode_unchanged(io.BytesIO(content), "x"), tmp_path / f"x.{kind}")
        with Image.open(tmp_path / f"x.{kind}") as found:
            alpha = found.convert("RGBA").getchannel("A")
        assert (alpha.getpixel((3, 4)), alpha.getpixel((4, 4))) == (0, 255)


def of_frames(kind: str, count: int, **options: Any) -> bytes:
    content = io.BytesIO()
    first, *others = [draw("RGB", 12, 14, seed) for seed in range(count)]
    first.save(content, kind, save_all=True, append_images=others, **options)
    return content.getvalue()


def one_gif_frame_often(count: int) -> bytes:
    """Return a GIF of two frames, the last of them repeated."""
    content = of_frames("GIF", 2)
    last = content.rindex(b"\x21\xf9\x04")
    return content[:-1] + content[last:-1] * count + content[-1:]


TIFF = of_frames("TIFF", 3)
SECOND = struct.unpack_from("<I", TIFF, next_page(TIFF))[0]
HOSTILE = {
    "many frames": (one_gif_frame_often(100_000), "frames but the first; there are 100,002, the limit is 4,096 and 67"),
    "a broken frame": (of_frames("PNG", 3)[:-200], "frames but the first: image file is truncated"),
    "a GIF cut off": (of_frames("GIF", 3)[:-90], "frames but the first: image file is truncated"),
    "a loop": (
        changed(TIFF, next_page(TIFF), TIFF[4:8]),
        "pages but the first: they lie beyond the end of the file, or",
    ),
    "nowhere": (changed(TIFF, next_page(TIFF), b"\xf0\xff\xff\xff"), "pages but the first: they lie beyond the end"),
    "of another type": (changed(TIFF, SECOND + 4, b"\x63\0"), "pages but the first: they are broken"),
    "cut off": (TIFF[:-40], "pages but the first: they lie beyond the end of the file"),
    "photos of a phone": (of_frames("MPO", 2), "frames but the first"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_broken_or_endless_further_images_are_one_line_and_the_first_is_kept(tmp_path: Path, name: str) -> None:
    content, line = HOSTILE[name]
    loaded = decode_unchanged(io.BytesIO(content), "x")
    assert loaded.further is None
    (found,) = check_format(loaded, Path("x.png"))
    assert found.startswith(f"not kept, all {line}")
    assert "\n" not in found
    write_unchanged(loaded, tmp_path / "x.png")
    with Image.open(io.BytesIO(content)) as first, Image.open(tmp_path / "x.png") as kept:
        assert np.array_equal(np.array(first.convert("RGB")), np.array(kept.convert("RGB")))
        assert getattr(kept, "n_frames", 1) == 1


def test_a_chain_of_100000_pages_is_one_line() -> None:
    size, entries = 128, 9
    pages = [b"II*\0\x08\0\0\0"]
    for at in range(8, 8 + 100_000 * size, size):
        tags = ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, at + 114), (277, 1), (278, 1), (279, 1))
        rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        pages.append((struct.pack("<H", entries) + rows + struct.pack("<I", at + size)).ljust(size, b"\1"))
    loaded = decode_unchanged(io.BytesIO(b"".join(pages)), "x")
    assert loaded.left_out == ("all pages but the first: there are more than 65,536",)


def test_frames_count_together_for_max_pixels() -> None:
    content = of_frames("WEBP", 3)
    limit = 3 * 12 * 14
    assert decode_unchanged(io.BytesIO(content), "x", max_pixels=limit).further is not None
    (lost,) = decode_unchanged(io.BytesIO(content), "x", max_pixels=limit - 1).left_out
    assert lost == "all frames but the first; there are 3, the limit is 4,096 and 503 pixels in all (max_pixels)"


@pytest.mark.parametrize(
    ("kind", "suffix", "lost"),
    [
        ("TIFF", "png", "not kept, all pages but the first (format=tiff keeps them)"),
        ("TIFF", "jpg", "not kept, all pages but the first (format=tiff keeps them)"),
        ("GIF", "tiff", "not kept, all frames but the first (format=png or format=webp keeps them)"),
        ("WEBP", "jpg", "not kept, all frames but the first (format=png or format=webp keeps them)"),
    ],
)
def test_a_format_without_them_is_said_to_lose_them_and_one_that_keeps_them_is_named(
    tmp_path: Path, kind: str, suffix: str, lost: str
) -> None:
    loaded = decode_unchanged(io.BytesIO(of_frames(kind, 3)), "x")
    loaded = loaded._replace(image=loaded.image.convert("RGB"))  # type: ignore[union-attr]
    path = tmp_path / f"x.{suffix}"
    assert lost in check_format(loaded, path)
    write_unchanged(loaded, path)
    assert getattr(Image.open(path), "n_frames", 1) == 1
