"""Image files as people have them: what comes in goes out, or the job says what does not; masks, names and Ctrl+C."""

from __future__ import annotations

import io
import os
import re
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from inpaint_runs import HOLE, ROOT, SIZE, run_here
from pictures_of_every_kind import draw

cv2 = pytest.importorskip(
    "cv2", reason="OpenCV reads what was written, independently: pip install opencv-python-headless"
)


def deep(channels: int) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 65536, (*SIZE, channels), dtype=np.uint16)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_color_of_16_bits_keeps_every_bit(model: Path, place: Path, kind: str) -> None:
    rgb, rgba = deep(3), deep(4)
    tifffile.imwrite(place / "in/rgb.tiff", rgb, photometric="rgb", byteorder=">", compression="zlib")
    cv2.imwrite(str(place / "in/rgba.png"), rgba[..., [2, 1, 0, 3]])
    result = run_here(model, "input=in", "masks=mask.png", "output=out", f"format={kind}", folder=place)
    assert result.returncode == 0, result.stderr
    for name, image in (("rgb", rgb), ("rgba", rgba)):
        found = cv2.imread(str(place / f"out/{name}.{kind}"), cv2.IMREAD_UNCHANGED)[..., [2, 1, 0, 3][: image.shape[2]]]
        assert found.dtype == np.uint16
        assert np.array_equal(found[~HOLE], image[~HOLE])
        assert not np.array_equal(found[HOLE], image[HOLE])


@pytest.mark.parametrize(
    ("mode", "suffix", "kind", "way_out"),
    [
        ("CMYK", "tiff", "png", "PNG cannot hold CMYK unchanged; set format=tiff"),
        ("F", "tiff", "webp", "WEBP cannot hold floating point unchanged; set format=tiff"),
        ("I;16", "png", "webp", "WEBP cannot hold grey of 16 bits unchanged; set format=png"),
    ],
)
def test_a_format_that_would_change_known_pixels_is_refused_with_one_that_does_not(
    model: Path, place: Path, mode: str, suffix: str, kind: str, way_out: str
) -> None:
    image = draw(mode, *SIZE, 1)
    image.save(place / f"in/a.{suffix}")
    refused = run_here(model, "input=in", "masks=mask.png", "output=out", f"format={kind}", folder=place)
    assert refused.returncode == 1
    assert way_out in refused.stderr
    way = way_out.rpartition("=")[2]
    assert run_here(model, "input=in", "masks=mask.png", "output=out", f"format={way}", folder=place).returncode == 0
    found = np.array(Image.open(place / f"out/a.{way}"))
    assert np.array_equal(found[~HOLE], np.array(image)[~HOLE])


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def test_a_png_with_damaged_or_long_text_is_filled_and_the_text_is_said_to_be_lost(model: Path, place: Path) -> None:
    file = io.BytesIO()
    image = draw("RGB", *SIZE, 2)
    image.save(file, "PNG")
    raw, long = file.getvalue(), zlib.compress(bytes(3 * 2**20))
    for name, extra in {
        "checksum": chunk(b"tEXt", b"a\0words", checksum=1),
        "packed checksum": chunk(b"zTXt", b"a\0\0" + zlib.compress(b"words"), checksum=1),
        "unpacked": chunk(b"tEXt", b"a\0" + b"w" * (2**20 + 2**16)),
        "profile": chunk(b"iCCP", b"a\0\0" + long),
        "international": chunk(b"iTXt", b"a\0\1\0de\0wort\0" + long),
    }.items():
        (place / "in" / f"{name}.png").write_bytes(raw[:33] + extra + raw[33:])
    result = run_here(model, "input=in", "masks=mask.png", "output=out", folder=place)
    assert result.returncode == 0, result.stderr
    assert "not kept, text or a color profile that is damaged or over 1 MiB: checksum, " in result.stdout
    for path in (place / "out").glob("*.png"):
        assert np.array_equal(np.array(Image.open(path))[~HOLE], np.array(image)[~HOLE])


def test_what_a_file_holds_beside_its_pixels_is_kept_or_named(model: Path, place: Path) -> None:
    exif = Image.Exif()
    exif[0x013B], exif[0x0112] = "An artist", 6  # to be turned a quarter to the right
    turned = draw("RGB", SIZE[1], SIZE[0], 3)  # its upright image has SIZE
    turned.save(place / "in/turned.webp", lossless=True, exif=exif)
    Image.fromarray(HOLE.astype(np.uint8) * 90).save(place / "in/scan.tiff", dpi=(240, 240))
    result = run_here(model, "input=in", "masks=mask.png", "output=out", "format=same", folder=place)
    assert result.returncode == 0, result.stderr
    kept = Image.open(place / "out/turned.webp")
    assert kept.getexif()[0x013B] == "An artist"
    assert kept.getexif().get(0x0112) is None
    upright = np.rot90(np.array(turned), -1)
    assert np.array_equal(np.array(kept)[~HOLE], upright[~HOLE])
    assert Image.open(place / "out/scan.tiff").info["dpi"] == (240, 240)
    assert "not kept" not in result.stdout
    webp = run_here(model, "input=in/scan.tiff", "masks=mask.png", "output=other", "format=webp", folder=place)
    assert "not kept, the resolution: scan" in webp.stdout


@pytest.mark.parametrize("bits", [8, 16])
def test_what_describes_a_picture_stays_in_png_and_tiff_of_any_depth(model: Path, place: Path, bits: int) -> None:
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>\xc3\xa9</x:xmpmeta>"
    image = (deep(3) >> 16 - bits).astype(f"u{bits // 8}")
    tags = [(700, "B", len(xmp), xmp, True), (315, "s", 0, "A painter", True)]
    options = {"photometric": "rgb", "description": "The sea", "metadata": None, "extratags": tags}
    tifffile.imwrite(place / "in/sea.tif", image, **options)
    for kind in ("png", "tiff"):
        result = run_here(model, "input=in", "masks=mask.png", f"output={kind}", f"format={kind}", folder=place)
        assert result.returncode == 0, result.stderr
        assert "not kept" not in result.stdout
    with Image.open(place / "png/sea.png") as kept:
        exif = kept.getexif()
        assert (exif[270], exif[315]) == ("The sea", "A painter")
        assert kept.info["xmp"] == xmp
    with tifffile.TiffFile(place / "tiff/sea.tiff") as file:
        assert file.pages[0].tags[700].value == xmp
        assert (file.pages[0].tags[270].value, file.pages[0].tags[315].value) == ("The sea", "A painter")
        assert np.array_equal(file.asarray()[~HOLE], image[~HOLE])


def test_gamma_text_and_a_transparent_color_of_a_deep_png_stay(model: Path, place: Path) -> None:
    image = deep(3)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    clear = image[0, 0].astype(">u2").tobytes()
    extra = chunk(b"gAMA", struct.pack(">I", 71_000)) + chunk(b"tRNS", clear) + chunk(b"tEXt", b"Title\0A wave")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", SIZE[1], SIZE[0], 16, 2, 0, 0, 0))
    body = header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (place / "in/wave.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    result = run_here(model, "input=in", "masks=mask.png", "output=out", folder=place)
    assert result.returncode == 0, result.stderr
    assert "not kept" not in result.stdout
    with Image.open(place / "out/wave.png") as kept:
        kept.load()
        assert kept.info["gamma"] == 0.71
        assert kept.text["Title"] == "A wave"
        assert kept.info["transparency"] == tuple(image[0, 0])
    found = cv2.imread(str(place / "out/wave.png"), cv2.IMREAD_UNCHANGED)[..., 2::-1]
    assert np.array_equal(found[~HOLE], image[~HOLE])


def test_the_comment_of_a_jpeg_becomes_a_text_of_the_png_and_is_named_where_it_cannot(model: Path, place: Path) -> None:
    draw("RGB", *SIZE, 4).save(place / "in/noon.jpg", comment=b"at noon")
    assert run_here(model, "input=in", "masks=mask.png", "output=out", folder=place).returncode == 0
    assert Image.open(place / "out/noon.png").text == {"Comment": "at noon"}  # type: ignore[attr-defined]
    other = run_here(model, "input=in", "masks=mask.png", "output=other", "format=webp", folder=place)
    assert "not kept, text: noon" in other.stdout


def test_names_with_marks_of_the_configurations_grammar_need_no_quotes(model: Path, place: Path) -> None:
    for name in ("IMG (1).png", "a[2],b=3.png"):
        draw("RGB", *SIZE, 1).save(place / "in" / name)
        result = run_here(model, f"input=in/{name}", "masks=mask.png", f"output=out {name}", folder=place)
        assert result.returncode == 0, result.stderr
        assert (place / f"out {name}").is_file()


def test_names_that_are_no_text_are_listed_with_all_other_faults(model: Path, place: Path) -> None:
    for name in (b"\xfe\xff broken.png", b"empty.png"):
        (place / os.fsdecode(b"in/" + name)).write_bytes(b"")
    draw("RGB", *SIZE, 1).save(place / "in/good.png")
    result = run_here(model, "input=in", "masks=mask.png", "output=out", folder=place)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert [line.split(":")[0] for line in (place / "out/not_filled.txt").read_text().splitlines()] == [
        "empty",
        "\\udcfe\\udcff broken",
    ]


def test_the_result_of_one_image_may_be_named(model: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = draw("RGB", *SIZE, 1)
    image.save(place / "in/a.png")
    monkeypatch.setenv("HOME", str(place))
    result = run_here(model, "input=~/in/a.png", "masks=~/mask.png", "output=new/b.webp", folder=place)
    assert result.returncode == 0, result.stderr
    found = np.array(Image.open(place / "new/b.webp"))
    assert np.array_equal(found[~HOLE], np.array(image)[~HOLE])
    assert not np.array_equal(found[HOLE], np.array(image)[HOLE])
    (place / "c.tiff").write_bytes(b"mine")
    there = run_here(model, "input=in/a.png", "masks=mask.png", "output=c.tiff", folder=place)
    assert "1 were there already" in there.stdout
    assert (place / "c.tiff").read_bytes() == b"mine"
    image.save(place / "in/second.png")
    for output in ("d.png", "c.tiff", "mask.txt"):
        (place / "mask.txt").touch()
        refused = run_here(model, "input=in", "masks=mask.png", f"output={output}", folder=place)
        assert refused.returncode == 1
        assert f"{output} is a file for one image, there are 2; name a folder" in refused.stderr


def test_masks_of_any_two_values_colors_and_layers_give_one_hole(model: Path, place: Path) -> None:
    image = draw("RGB", *SIZE, 4)
    image.save(place / "a.png")
    layer = np.full((*SIZE, 4), 255, np.uint8)
    layer[~HOLE, 3] = 0
    masks = {
        "levels": (Image.fromarray(np.where(HOLE, 9, 7).astype(np.uint8)), ()),
        "green": (Image.fromarray(np.where(HOLE[..., None], np.uint8([0, 90, 0]), np.uint8(0))), ()),
        "painted": (Image.fromarray(layer), ()),
        "erased": (Image.fromarray(255 - layer * np.uint8([0, 0, 0, 1])), ("hole=transparent",)),
        "dark": (Image.fromarray(~HOLE), ("hole=black",)),
    }
    expected = None
    for name, (mask, options) in masks.items():
        mask.save(place / f"{name}.png")
        done = run_here(model, "input=a.png", f"masks={name}.png", f"output={name}", *options, folder=place)
        assert done.returncode == 0, done.stderr
        assert "mean hole ratio 14.5%" in done.stdout  # 96 of 660 pixels
        found = np.array(Image.open(place / name / "a.png"))
        expected = found if expected is None else expected
        assert not np.array_equal(found, np.array(image))
        assert np.array_equal(found, expected), name


def test_a_large_hole_is_remarked_with_the_way_to_invert_it_and_holes_grow(model: Path, place: Path) -> None:
    Image.new("RGB", SIZE[::-1], "red").save(place / "a.png")
    inverted = run_here(model, "input=a.png", "masks=mask.png", "output=out", "hole=black", folder=place)
    hint = "if the masks mark the hole otherwise, set hole=white or hole=transparent"
    assert f"more than 60% hole in a; {hint}" in inverted.stdout
    one = np.zeros(SIZE, bool)
    one[11, 15] = True
    Image.fromarray(one).save(place / "one.png")
    grown = run_here(model, "input=a.png", "masks=one.png", "output=grown", "grow=2", folder=place)
    assert "mean hole ratio 2.0%" in grown.stdout  # 13 pixels lie within 2 of the one
    shrunk = run_here(model, "input=a.png", "masks=one.png", "output=x", "grow=-1", folder=place)
    assert "1 had no hole and were written as they are" in shrunk.stdout  # its only pixel lies within 1 of a known one
    wrong = run_here(model, "input=a.png", "masks=one.png", "output=x", "hole=grey", folder=place)
    assert "hole must be white (255), black (0) or transparent, got grey" in wrong.stderr


def test_an_empty_mask_is_remarked_with_the_ways_to_read_it_otherwise(model: Path, place: Path) -> None:
    """Black paint on a transparent layer: its transparent part is known, and black is no hole unless it is said."""
    draw("RGB", *SIZE, 2).save(place / "in/wall.png")
    layer = np.zeros((*SIZE, 4), np.uint8)
    layer[HOLE, 3] = 255
    Image.fromarray(layer).save(place / "layer.png")
    empty = run_here(model, "input=in", "masks=layer.png", "output=out", folder=place)
    hint = "if the masks mark the hole otherwise, set hole=black or hole=transparent"
    assert f"no hole in wall; {hint}" in empty.stdout
    read = run_here(model, "input=in", "masks=layer.png", "output=again", "hole=black", folder=place)
    assert f"mean hole ratio {HOLE.mean():.1%}" in read.stdout
    assert "otherwise" not in read.stdout


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_all_processes_says_what_was_finished(model: Path, place: Path, sent: int, code: int) -> None:
    draw("RGB", 96, 130, 0).save(place / "in" / "0000.png")
    for number in range(1, 4000):  # more than a busy machine can fill between two looks at them
        (place / "in" / f"{number:04}.png").hardlink_to(place / "in" / "0000.png")
    Image.fromarray(np.pad(HOLE, ((40, 34), (50, 50)))).save(place / "mask.png")
    words = [f"checkpoint={model}", "input=in", "masks=mask.png", "output=out", "trainer=cpu", "workers=1", "threads=1"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "inpaint.py"), *words],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(list(place.glob("out/*.png"))) < 3 and process.poll() is None:
        time.sleep(0.002)
    os.killpg(process.pid, sent)  # the worker that reads images too, as a terminal and `timeout` do
    output, errors = process.communicate()
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    (count,) = re.findall(r"stopped after (\d+) of 4,000 images; the same command goes on: out", output)
    assert len(list(place.glob("out/*.png"))) == int(count) < 4000
    assert not list(place.glob("out/.*"))


def test_gif_files_are_filled_like_others(model: Path, place: Path) -> None:
    colors = np.random.default_rng(5).integers(0, 256, (*SIZE, 3), np.uint8)
    still = Image.fromarray(colors).quantize(32)
    still.save(place / "in/still.gif")
    still.save(place / "in/MOVING.GIF", save_all=True, append_images=[still.rotate(90), still.rotate(180)])
    expected = np.asarray(Image.open(place / "in/still.gif").convert("RGB"))
    result = run_here(model, "input=in", "masks=mask.png", "output=out", folder=place)
    assert result.returncode == 0, result.stderr
    for name in ("still", "MOVING"):
        found = np.asarray(Image.open(place / f"out/{name}.png").convert("RGB"))
        assert np.array_equal(found[~HOLE], expected[~HOLE])
    assert not np.array_equal(found[HOLE], expected[HOLE])
    result = run_here(model, "input=in/still.gif", "masks=mask.png", "output=same", "format=same", folder=place)
    assert result.returncode == 1
    assert "GIF cannot hold P unchanged; set format=png" in result.stderr
