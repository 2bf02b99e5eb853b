"""The image reader: every usable file becomes upright 8-bit RGB, every other one an error that names it."""

import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from gicinpaint.data.image_io import ImageError, read_image, to_tensor


def colours(height=24, width=40):
    """A smooth picture whose channels and corners all differ, uint8 (H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 255 // (height - 1), x * 255 // (width - 1), (x + y) * 2], axis=-1).astype(np.uint8)


def read_array(path, **limits):
    image = read_image(path, **limits)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"),
    [
        (".png", {}, 0),
        (".bmp", {}, 0),
        (".tif", {}, 0),
        (".tiff", {"compression": "tiff_lzw"}, 0),
        (".webp", {"lossless": True}, 0),
        (".webp", {"quality": 95}, 12),  # lossy formats: a few grey levels on a smooth picture
        (".jpg", {"quality": 95, "subsampling": 0}, 6),
        (".jpeg", {"quality": 95, "subsampling": 0, "progressive": True}, 6),
    ],
)
def test_every_format_gives_the_pixels_that_were_saved(tmp_path, suffix, options, tolerance):
    path = tmp_path / f"picture{suffix}"
    Image.fromarray(colours()).save(path, **options)
    difference = np.abs(read_array(path).astype(int) - colours())
    assert difference.max() <= tolerance


def test_the_content_decides_the_format_and_not_the_suffix(tmp_path):
    path = tmp_path / "really_a_png.jpg"
    Image.fromarray(colours()).save(path, format="PNG")
    assert np.array_equal(read_array(path), colours())


def test_grey_and_one_bit_images_have_three_equal_channels(tmp_path):
    grey = colours()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey > 100).save(tmp_path / "bit.png")
    assert np.array_equal(read_array(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(read_array(tmp_path / "bit.png")[..., 2], np.where(grey > 100, 255, 0))


def test_palette_images_have_their_palettes_colours(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 1, 2, 3])
    image.putdata([2, 0, 1])
    image.save(tmp_path / "palette.png")
    assert read_array(tmp_path / "palette.png").tolist() == [[[1, 2, 3], [255, 0, 0], [0, 255, 0]]]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_alpha_is_composited_over_white(tmp_path, suffix):
    pixels = np.array([[[200, 40, 0, 255], [200, 40, 0, 0], [200, 40, 0, 51]]], np.uint8)
    path = tmp_path / f"alpha{suffix}"
    Image.fromarray(pixels).save(path, **({"lossless": True, "exact": True} if suffix == ".webp" else {}))
    # 51 / 255 = 0.2, so the last pixel is 0.2 colour + 0.8 white: 244, 212, 204.
    assert read_array(path).tolist() == [[[200, 40, 0], [255, 255, 255], [244, 212, 204]]]


def test_alpha_of_grey_and_palette_images_is_composited_over_white_too(tmp_path):
    Image.fromarray(np.array([[[100, 255], [100, 0], [100, 51]]], np.uint8), mode="LA").save(tmp_path / "la.png")
    assert read_array(tmp_path / "la.png")[0, :, 1].tolist() == [100, 255, 224]
    image = Image.new("P", (2, 1))
    image.putpalette([9, 8, 7, 60, 70, 80])
    image.putdata([0, 1])
    image.save(tmp_path / "p.png", transparency=0)
    assert read_array(tmp_path / "p.png").tolist() == [[[255, 255, 255], [60, 70, 80]]]
    Image.fromarray(np.array([[[9, 8, 7], [60, 70, 80]]], np.uint8)).save(tmp_path / "rgb.png", transparency=(9, 8, 7))
    assert read_array(tmp_path / "rgb.png").tolist() == [[[255, 255, 255], [60, 70, 80]]]


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_becomes_the_colours_it_prints(tmp_path, suffix):
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[..., 0] = 255  # cyan ink alone: no red, full green and blue
    Image.fromarray(pixels, mode="CMYK").save(tmp_path / f"ink{suffix}")
    assert np.abs(read_array(tmp_path / f"ink{suffix}").astype(int) - [0, 255, 255]).max() <= 3


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, suffix):
    values = np.array([[0, 257, 25700, 65535]], np.uint16)  # 257 = one step of 8 bits
    Image.fromarray(values).save(tmp_path / f"deep{suffix}")
    assert read_array(tmp_path / f"deep{suffix}")[0, :, 0].tolist() == [0, 1, 100, 255]


def test_a_dark_sixteen_bit_image_stays_dark(tmp_path):
    Image.fromarray(np.full((4, 4), 514, np.uint16)).save(tmp_path / "dark.png")
    assert (read_array(tmp_path / "dark.png") == 2).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 0.2, 1], [0, 51, 255]), ([0, 51, 255], [0, 51, 255]), ([-1, 0, 1], [0, 128, 255])],
)
def test_floats_are_scaled_by_the_range_they_lie_in(tmp_path, values, expected):
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "float.tif")
    assert read_array(tmp_path / "float.tif")[0, :, 0].tolist() == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = colours()
    stored = {  # where the EXIF standard says that the upright picture's rows and columns lie in the file
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),  # turned a quarter to the left; viewers turn it to the right
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "turned.jpg", exif=exif, quality=95, subsampling=0)
    assert np.array_equal(read_array(tmp_path / "turned.png"), upright)
    assert np.abs(read_array(tmp_path / "turned.jpg").astype(int) - upright).max() <= 6


def test_a_broken_exif_block_leaves_the_pixels_as_they_are(tmp_path):
    Image.fromarray(colours()).save(tmp_path / "odd.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01", quality=95)
    assert read_array(tmp_path / "odd.jpg").shape == (24, 40, 3)


@pytest.mark.parametrize("suffix", [".webp", ".png", ".tif"])
def test_the_first_of_several_frames_is_read(tmp_path, suffix):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    options = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(tmp_path / f"film{suffix}", save_all=True, append_images=frames[1:], **options)
    assert (read_array(tmp_path / f"film{suffix}") == [250, 0, 0]).all()


def test_values_of_the_tensor_span_minus_one_to_one():
    tensor = to_tensor(Image.fromarray(np.array([[[0, 255, 51], [255, 0, 204]]], np.uint8)))
    expected = torch.tensor([[[-1.0, 1.0]], [[1.0, -1.0]], [[-0.6, 0.6]]])  # v / 127.5 - 1
    torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=0)
    assert tensor.is_contiguous()
    assert tensor.shape == (3, 1, 2)


def test_names_with_odd_characters_are_read(tmp_path):
    for name in ("ä 漢字.png", "new\nline.png"):
        Image.fromarray(colours()).save(tmp_path / name)
        assert np.array_equal(read_array(tmp_path / name), colours())


def png_header(width, height):
    """A PNG that claims a size and has almost no data: small to store, huge to decode."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def cut(suffix):
    """Return a writer of the first half of a picture's file."""

    def write(path):
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        whole = path.with_name(f"whole{suffix}")
        Image.fromarray(noise).save(whole)
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])

    return write


BAD = {
    "missing": (lambda path: None, "No such file"),
    "zero_bytes": (lambda path: path.write_bytes(b""), "the file is empty"),
    "text": (lambda path: path.write_text("<html>not found</html>"), "its content is none of JPEG, PNG"),
    "cut_jpeg": (cut(".jpg"), "truncated"),
    "cut_png": (cut(".png"), "truncated"),
    "cut_webp": (cut(".webp"), ""),
    "cut_bmp": (cut(".bmp"), "truncated"),
    "cut_tiff": (cut(".tif"), ""),
    "jpeg_header_alone": (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0"), "the JPEG file is broken"),
    "webp_header_alone": (lambda path: path.write_bytes(b"RIFF\0\0\0\0WEBP"), "the WebP file is broken"),
    "tiff_of_float_colors": (
        lambda path: tifffile.imwrite(path, np.ones((4, 4, 3), np.float32), photometric="rgb"),
        "the TIFF file is broken or holds pixels of a form that is not read, such as RGB of floating point",
    ),
    "phone": (lambda path: path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1"), "TIFF; convert it to one of them"),
    "bomb": (lambda path: path.write_bytes(png_header(9000, 9000)), "9000x9000 pixels are more than the limit"),
    "huge_bomb": (lambda path: path.write_bytes(png_header(60000, 60000)), "3600000000 pixels) exceeds limit"),
    "too_little_data": (lambda path: path.write_bytes(png_header(64, 64)), "truncated"),
    "dangling_link": (lambda path: path.symlink_to(path.with_name("gone.png")), "the link points nowhere"),
    "link_to_itself": (lambda path: path.symlink_to(path), ""),
    "folder": (lambda path: path.mkdir(), ""),
    "pipe": (os.mkfifo, "not a regular file"),
    "gif": (lambda path: Image.new("P", (4, 4)).save(path, format="GIF"), "its content is none of"),
    "not_finite": (
        lambda path: Image.fromarray(np.array([[0, np.nan]], np.float32)).save(path, format="TIFF"),
        "not finite",
    ),
}


@pytest.mark.timeout(20)  # a reader that waits for a pipe's writer would wait for ever
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_gives_one_error_that_names_it_on_one_line(tmp_path, kind):
    write, reason = BAD[kind]
    path = tmp_path / "bad\n file.jpg"
    write(path)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith("cannot read image ")
    assert "bad\\n file.jpg" in message
    assert "\n" not in message
    assert reason in message
    assert message.split("file.jpg'", 1)[1].strip(": ")  # a reason follows the name


def test_a_file_without_the_right_to_read_it_is_named(tmp_path, monkeypatch):
    path = tmp_path / "secret.png"
    Image.fromarray(colours()).save(path)

    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(path))

    if os.geteuid() == 0:  # nothing is forbidden to this user
        monkeypatch.setattr(os, "open", refuse)
    else:
        path.chmod(0)
    with pytest.raises(ImageError, match=r"cannot read image '.*secret\.png': Permission denied"):
        read_image(path)


def test_the_limit_on_pixels_is_the_callers(tmp_path):
    Image.fromarray(colours(24, 40)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", max_pixels=960).size == (40, 24)
    with pytest.raises(ImageError, match="40x24 pixels are more than the limit of 959"):
        read_image(tmp_path / "a.png", max_pixels=959)


def test_random_bytes_behind_a_valid_start_never_raise_anything_else(tmp_path):
    generator = np.random.default_rng(1)
    messages = []
    for suffix in (".jpg", ".png", ".webp", ".tif", ".bmp"):
        whole = tmp_path / f"whole{suffix}"
        Image.fromarray(colours(64, 64)).save(whole)
        data = np.frombuffer(whole.read_bytes(), np.uint8)
        for _ in range(30):
            broken = data.copy()
            places = generator.integers(0, len(data), 12)
            broken[places] = generator.integers(0, 256, 12)
            (tmp_path / "broken").write_bytes(broken.tobytes())
            try:
                assert read_image(tmp_path / "broken").mode == "RGB"
            except ImageError as error:
                messages.append(str(error))
    assert 10 < len(messages) < 140  # some files survive, some do not
    assert all("broken'" in message and "\n" not in message for message in messages)
