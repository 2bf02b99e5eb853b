"""Holes from mask files: which pixel is hole, how files are drawn and mirrored, and the files that are refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gicinpaint.masks import MaskFolder, grown, hole_of_image, read_mask_file
from holes import best_window, seeded


def save(path: Path, hole: np.ndarray) -> Path:
    """Save a hole (H, W) of 0 and 1 as a mask file with 255 = hole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((hole * 255).astype(np.uint8)).save(path)
    return path


def corner(height: int = 8, width: int = 12) -> np.ndarray:
    """A hole that no flip leaves in place: one row less two pixels, in the upper left."""
    hole = np.zeros((height, width), np.uint8)
    hole[0, : width - 2] = 1
    hole[1, 0] = 1
    return hole


def test_white_is_the_hole_and_each_flip_comes_equally_often(tmp_path: Path) -> None:
    hole = corner()
    save(tmp_path / "mask.png", hole)
    mask = MaskFolder(tmp_path, box=4)(800, 8, 12, generator=seeded())[0]
    assert mask.shape == (800, 1, 8, 12)
    assert mask.dtype == torch.float32
    flipped = [hole, hole[::-1], hole[:, ::-1], hole[::-1, ::-1]]
    counts = Counter(one.numpy().astype(np.uint8).tobytes() for one in mask)
    assert set(counts) == {np.ascontiguousarray(one).tobytes() for one in flipped}
    assert all(abs(count - 200) < 60 for count in counts.values())  # standard deviation 12


def test_without_flips_the_file_is_kept(tmp_path: Path) -> None:
    save(tmp_path / "mask.png", corner())
    mask = MaskFolder(tmp_path, box=4, flip=False)(5, 8, 12)[0]
    assert torch.equal(mask, torch.from_numpy(corner()).float().expand(5, 1, 8, 12))


def test_black_holes_are_converted_when_they_are_announced(tmp_path: Path) -> None:
    save(tmp_path / "mask.png", 1 - corner())
    mask = MaskFolder(tmp_path, box=4, flip=False, hole=0)(1, 8, 12)[0]
    assert torch.equal(mask[0, 0], torch.from_numpy(corner()).float())


def test_every_file_of_every_subfolder_is_drawn_equally_often(tmp_path: Path) -> None:
    for number in range(4):  # hole of number + 1 pixels
        hole = np.zeros((6, 6), np.uint8)
        hole[0, : number + 1] = 1
        save(tmp_path / f"part{number % 2}" / f"{number}.{'png' if number else 'BMP'}", hole)
    (tmp_path / "readme.txt").write_text("not a mask")
    folder = MaskFolder(tmp_path, box=3)
    sizes = Counter(folder(800, 6, 6, generator=seeded())[0].sum((1, 2, 3)).tolist())
    assert set(sizes) == {1.0, 2.0, 3.0, 4.0}
    assert all(abs(count - 200) < 60 for count in sizes.values())  # standard deviation 12


@pytest.mark.parametrize(("height", "width"), [(16, 36), (4, 4), (5, 7)])
def test_files_are_resized_to_the_nearest_pixel(tmp_path: Path, height: int, width: int) -> None:
    hole = (torch.rand(8, 12, generator=seeded()) < 0.3).numpy().astype(np.uint8)
    save(tmp_path / "mask.png", hole)
    mask = MaskFolder(tmp_path, box=2, flip=False)(1, height, width)[0][0, 0]
    # the file's pixel under the middle of each pixel, by whole numbers
    expected = [[hole[(2 * y + 1) * 8 // (2 * height), (2 * x + 1) * 12 // (2 * width)] for x in range(width)]
                for y in range(height)]  # fmt: skip
    assert mask.tolist() == expected


def test_the_box_is_the_window_with_most_of_the_hole(tmp_path: Path) -> None:
    for number in range(3):
        hole = torch.rand(9, 11, generator=seeded(number)) < 0.3
        save(tmp_path / f"{number}.png", hole.numpy().astype(np.uint8))
    mask, box = MaskFolder(tmp_path, box=(3, 4))(12, 9, 11, generator=seeded())
    assert (box.height, box.width) == (3, 4)
    places = list(zip(box.top.tolist(), box.left.tolist(), strict=True))
    assert places == [best_window(one[0], 3, 4) for one in mask]


def test_the_same_seed_draws_the_same_files_and_flips(tmp_path: Path) -> None:
    for number in range(9):
        hole = torch.rand(8, 8, generator=seeded(number)) < 0.2
        save(tmp_path / f"{number}.png", hole.numpy().astype(np.uint8))
    folder, state = MaskFolder(tmp_path, box=4), torch.get_rng_state()
    first, again, other = (folder(8, 8, 8, generator=seeded(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    unseeded = folder(8, 8, 8)[0]
    torch.manual_seed(5)
    assert torch.equal(folder(8, 8, 8)[0], unseeded)


def test_mask_files_of_one_bit_and_of_a_palette_are_read(tmp_path: Path) -> None:
    picture = Image.fromarray(corner() * 255)
    (tmp_path / "a").mkdir()
    picture.convert("1").save(tmp_path / "a" / "bits.png")
    picture.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "a" / "palette.gif")
    mask = MaskFolder(tmp_path, box=4, flip=False)(20, 8, 12, generator=seeded())[0]
    assert torch.equal(mask, torch.from_numpy(corner()).float().expand(20, 1, 8, 12))


@pytest.mark.parametrize("share", ["mostly hole", "half and half"])
def test_a_folder_of_doubtful_polarity_is_refused_with_its_whitest_file(tmp_path: Path, share: str) -> None:
    half = np.kron([[1, 0]], np.ones((4, 4), np.uint8))
    save(tmp_path / "a.png", half)
    worst = save(tmp_path / "b.png", 1 - corner(4, 8)) if share == "mostly hole" else tmp_path / "a.png"
    with pytest.raises(
        ValueError, match=r"must mark the hole with white, got a mean hole ratio of \d\d%.*set hole=black"
    ) as e:
        MaskFolder(tmp_path, box=2)
    assert f"in {worst})" in str(e.value)
    assert MaskFolder(tmp_path, box=2, largest_hole_ratio=1)(1, 4, 8)[0].mean() >= 0.5


def test_one_file_of_a_large_hole_does_not_refuse_the_folder(tmp_path: Path) -> None:
    save(tmp_path / "large.png", 1 - corner())
    for number in range(4):
        save(tmp_path / f"{number}.png", corner())
    assert len(MaskFolder(tmp_path, box=2).files) == 5


def test_a_share_draws_only_the_files_whose_share_lies_in_it(tmp_path: Path) -> None:
    for number in range(1, 11):  # shares of 10, 20, ... 100 % less a pixel
        hole = np.zeros((10, 10), np.uint8)
        hole.ravel()[: 10 * number - (number == 10)] = 1
        save(tmp_path / f"{number}.png", hole)
    folder = MaskFolder(tmp_path, box=2, hole_ratio=(0.2, 0.4), largest_hole_ratio=1)
    drawn = Counter(folder(200, 10, 10, generator=seeded())[0].sum((1, 2, 3)).tolist())
    assert set(drawn) == {20.0, 30.0}  # the low end belongs to the range, the high one does not
    with pytest.raises(ValueError, match=r"from 1% to below 9%, the 10 files have 10.0% to 99.0%; choose another"):
        MaskFolder(tmp_path, box=2, hole_ratio=(0.01, 0.09), largest_hole_ratio=1)
    with pytest.raises(ValueError, match=r"hole_ratio must be \(low, high\).*got \[10, 20\]; use fractions"):
        MaskFolder(tmp_path, box=2, hole_ratio=[10, 20], largest_hole_ratio=1)


def colored(hole: np.ndarray, inside: tuple[int, ...], outside: tuple[int, ...]) -> Image.Image:
    return Image.fromarray(np.where(hole[..., None] > 0, np.uint8(inside), np.uint8(outside)))


def palette(hole: np.ndarray, colors: list[int]) -> Image.Image:
    image = Image.frombytes("P", hole.shape[::-1], hole.tobytes())
    image.putpalette(colors + [0] * (768 - len(colors)))
    return image


def wide(hole: np.ndarray) -> Image.Image:
    return Image.fromarray(hole.astype(np.uint16) * 40_000)


# how masks come: the file's name, the image of a hole, what marks it
WILD = {
    "0 and 1": ("a.png", lambda hole: Image.fromarray(hole), "white"),
    "0 and 100": ("a.png", lambda hole: Image.fromarray(hole * 100), "white"),
    "one bit": ("a.tif", lambda hole: Image.fromarray(hole * 255).convert("1"), "white"),
    "16 bits": ("a.png", wide, "white"),
    "floats": ("a.tif", lambda hole: Image.fromarray(hole.astype(np.float32)), "white"),
    "blue": ("a.png", lambda hole: colored(hole, (0, 0, 255), (0, 0, 0)), "white"),
    "white on red": ("a.webp", lambda hole: colored(hole, (255, 255, 255), (255, 0, 0)), "white"),
    "labels with a palette": ("a.png", lambda hole: palette(hole, [0, 0, 0, 128, 0, 0]), "white"),
    "gif": ("a.GIF", lambda hole: Image.fromarray(hole * 255), "white"),
    "black": ("a.png", lambda hole: Image.fromarray(255 - hole * 255), "black"),
    "black in color": ("a.png", lambda hole: colored(hole, (0, 0, 0), (0, 200, 0)), 0),
    "red on transparent": ("a.png", lambda hole: colored(hole, (255, 0, 0, 255), (0, 0, 0, 0)), "white"),
    "white on transparent white": ("a.png", lambda hole: colored(hole, (255,) * 4, (255, 255, 255, 0)), "white"),
    "black on transparent": ("a.png", lambda hole: colored(hole, (0, 0, 0, 255), (9, 9, 9, 0)), "black"),
    "erased": ("a.webp", lambda hole: colored(hole, (7, 8, 9, 0), (200, 90, 30, 255)), "transparent"),
    "grey and alpha": (
        "a.png",
        lambda hole: colored(hole, (7, 7, 7, 0), (99, 99, 99, 255)).convert("LA"),
        "transparent",
    ),
}


@pytest.mark.parametrize(("name", "draw", "marks"), WILD.values(), ids=WILD)
def test_every_kind_of_mask_marks_the_same_hole(tmp_path: Path, name: str, draw, marks) -> None:  # type: ignore
    draw(corner()).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    assert np.array_equal(read_mask_file(tmp_path / name, marks), corner() > 0)
    mask = MaskFolder(tmp_path, box=4, flip=False, hole=marks)(1, 8, 12)[0]
    assert torch.equal(mask[0, 0], torch.from_numpy(corner()).float())


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_a_jpeg_mask_is_the_hole_but_for_a_pixel_at_its_edge(tmp_path: Path, quality: int) -> None:
    hole = np.zeros((64, 80), np.uint8)
    hole[13:47, 21:60] = 1
    for marks, levels in (("white", hole * 255), ("black", 255 - hole * 255)):
        Image.fromarray(levels).save(tmp_path / "a.jpg", quality=quality)
        found = read_mask_file(tmp_path / "a.jpg", marks)
        assert found[14:46, 22:59].all()
        assert not np.delete(np.delete(found, np.s_[12:48], 0), np.s_[20:61], 1).any()
        assert abs(int(found.sum()) - int(hole.sum())) < 15  # of 1326 pixels


def test_a_jpeg_without_a_hole_has_none(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 4, (32, 32), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    assert not read_mask_file(tmp_path / "a.jpg").any()


def test_a_mask_is_turned_as_its_orientation_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(corner()[::-1, ::-1] * 255).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_mask_file(tmp_path / "a.png"), corner() > 0)


def test_transparency_that_is_asked_for_and_absent_is_one_line(tmp_path: Path) -> None:
    save(tmp_path / "a.png", corner())
    with pytest.raises(ValueError, match=r"a.png must have transparent pixels .* got none; use hole=white or black"):
        MaskFolder(tmp_path, hole="transparent")


def photo(path: Path) -> None:
    Image.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12) * 2).save(path)


BAD_FILES = {
    "photo": (photo, "must be black and white, got 50% grey pixels, as in a photo; threshold it first"),
    "empty": (lambda path: save(path, 0 * corner()), "must show a hole and a known part, got no hole; remove it"),
    "full": (
        lambda path: save(path, 0 * corner() + 1),
        "must show a hole and a known part, got a hole everywhere; remove it",
    ),
    "text": (lambda path: path.write_text("no picture"), "must be a readable image, got"),
    "zero bytes": (lambda path: path.write_bytes(b""), "must be a readable image, got"),
    "cut short": (
        lambda path: path.write_bytes(save(path, corner(64, 64)).read_bytes()[:60]),
        "must be a readable image, got",
    ),
}


@pytest.mark.parametrize(("write", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_no_mask_is_refused_by_name(tmp_path: Path, write, message: str) -> None:  # type: ignore
    bad = tmp_path / "bad.png"
    write(bad)
    with pytest.raises(ValueError, match=message) as error:
        MaskFolder(tmp_path, box=4)
    assert f"mask file {bad} " in str(error.value)


def test_a_file_that_the_first_look_missed_is_refused_when_it_is_drawn(tmp_path: Path) -> None:
    for number in range(130):  # every third file is looked at
        save(tmp_path / f"{number:03d}.png", corner())
    photo(tmp_path / "001.png")
    folder = MaskFolder(tmp_path, box=4)
    with pytest.raises(ValueError, match=r"001\.png must be black and white"):
        folder(2000, 8, 12, generator=seeded())


def test_impossible_folders_and_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"mask folder .*absent must exist; set its path"):
        MaskFolder(tmp_path / "absent")
    with pytest.raises(
        ValueError, match=r"must hold mask files \(bmp, gif, jpeg, jpg, png, tif, tiff, webp\), got none"
    ):
        MaskFolder(tmp_path)
    save(tmp_path / "mask.png", corner())
    with pytest.raises(ValueError, match=r"hole must be white \(255\), black \(0\) or transparent, got 1; name what"):
        MaskFolder(tmp_path, hole=1)
    with pytest.raises(ValueError, match=r"largest_hole_ratio must be in \(0, 1\], got 50; use a fraction"):
        MaskFolder(tmp_path, largest_hole_ratio=50)
    with pytest.raises(ValueError, match=r"box must be at least 1 pixels, got \(0, 0\)"):
        MaskFolder(tmp_path, box=0)
    with pytest.raises(ValueError, match=r"box 9x9 must fit the image 8x12, needs 9x9"):
        MaskFolder(tmp_path, box=9)(1, 8, 12)


@pytest.mark.parametrize(("level", "is_hole"), [(0.0, False), (1.0, True), (255.0, True)])
def test_a_floating_point_mask_of_one_level_is_all_hole_or_all_known(level: float, is_hole: bool) -> None:
    image = Image.fromarray(np.full((3, 4), level, np.float32))  # values up to 1 are shares, larger ones 8-bit levels
    assert (hole_of_image(image) == is_hole).all()


def test_no_hole_stays_no_hole_and_a_hole_everywhere_stays_everywhere() -> None:
    nothing = np.zeros((5, 6), bool)
    for pixels in (-3, 0, 3):
        assert not grown(nothing, pixels).any()
        assert grown(~nothing, pixels).all()
