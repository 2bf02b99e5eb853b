"""Holes read from image files: the one reader of masks, and a sampler that draws from a folder."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from gicinpaint.masks.sampler import Augment, Device, MaskSampler, Rng, draw_integers, read_hole_ratio, read_pair
from gicinpaint.models.compositing import Box

MASK_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
HOLES = ("white", "black", "transparent")  # what may mark the hole
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_CHECKED_FILES = 64  # enough to tell the polarity of a set; reading all of a large one would delay the start
_LARGEST_GREY_RATIO = 0.25  # pixels between black and white; soft brushes and JPEG stay far below, photos above
_LEAST_CONTRAST = 32 / 255  # of a JPEG mask; below it, it is black or white with noise


def read_mask_file(
    file: str | os.PathLike[str] | IO[bytes], hole: str | int = "white", max_pixels: int = 2**26
) -> np.ndarray:
    """Read a mask file, BMP, GIF, JPEG, PNG, TIFF or WebP, the first frame of several; see `hole_of_image`.

    Shape:
        - returned: bool (H, W), true in the hole

    Raises:
        ValueError: If it is no mask, has over `max_pixels` or cannot be read; the message does not name the file.
    """
    try:
        with Image.open(file, formats=_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ValueError(f"{image.width}x{image.height} pixels, more than the limit of {max_pixels}")
            image.load()
            with suppress(Exception):  # a broken EXIF block: the pixels are intact
                ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # decoders of foreign bytes raise anything, from struct.error to MemoryError
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"must be a readable image, got {reason}") from error
    return hole_of_image(image, hole)


def hole_of_image(image: Image.Image, hole: str | int = "white") -> np.ndarray:
    """Return where a mask image of any mode marks the hole.

    - Two values, or two colors: the brighter one is the hole (with `hole="black"` the darker one), so masks of 0 and 1,
      of palettes and in one color work.
    - More values, as of JPEG files and soft brushes: the hole is brighter (darker) than the middle.
    - Transparent pixels are known. Opaque pixels of a single color on them are the hole, unless that color is black.
    - `hole="transparent"`: the transparent pixels are the hole, whatever the image shows elsewhere.

    Args:
        image: The mask.
        hole: "white" (or 255), "black" (or 0) or "transparent".

    Shape:
        - returned: bool (H, W), true in the hole

    Raises:
        ValueError: If `hole` is another word, nothing is transparent although the hole should be, or the image looks
            like a photo: more than a quarter of its pixels lie between black and white.
    """
    hole = read_hole(hole)
    transparent = _transparent(image)
    if hole == "transparent":
        if transparent is None:
            raise ValueError("must have transparent pixels with hole=transparent, got none; use hole=white or black")
        return transparent
    if transparent is None:
        levels = _levels(image)
        if image.format == "JPEG" and np.ptp(levels) < _LEAST_CONTRAST:
            levels = np.full_like(levels, levels.mean().round())  # one color and noise
        return hole_of_levels(levels) if hole == "white" else ~hole_of_levels(levels) & (levels.min() < levels.max())
    levels = _levels(image.convert("RGBA").convert("RGB"))
    painted = levels[~transparent]
    if painted.size and painted.min() == painted.max():
        is_hole = painted[0] > 0 if hole == "white" else painted[0] < 1
        return ~transparent & is_hole
    ground = painted.min(initial=0) if hole == "white" else painted.max(initial=1)
    bright = hole_of_levels(np.where(transparent, ground, levels))
    return ~transparent & (bright if hole == "white" else ~bright)


def hole_of_levels(levels: np.ndarray) -> np.ndarray:
    """Return where levels in [0, 1], (H, W), are bright: the brighter of two, or above the middle; bool (H, W).

    Raises:
        ValueError: If more than a quarter of the pixels lie between black and white, as in a photo.
    """
    low, high = levels.min(), levels.max()
    if low == high:
        return levels > 0.5
    between = (levels > low) & (levels < high)
    if not between.any():
        return levels > low
    grey = ((levels > low + 0.25 * (high - low)) & (levels < high - 0.25 * (high - low))).mean()
    if grey > _LARGEST_GREY_RATIO:
        raise ValueError(f"must be black and white, got {grey:.0%} grey pixels, as in a photo; threshold it first")
    return levels > (0.5 if low <= 0.5 < high else (low + high) / 2)


def read_hole(hole: str | int) -> str:
    """Return what marks the hole: white, black or transparent. Raise a ValueError for anything else."""
    word = {255: "white", 0: "black"}.get(hole, hole) if isinstance(hole, int) else hole
    if word not in HOLES:
        raise ValueError(f"hole must be white (255), black (0) or transparent, got {hole}; name what marks the hole")
    return str(word)


class MaskFolder(MaskSampler):
    """Holes from the mask files of a folder, drawn at random.

    A file is read by `read_mask_file`, resized to the image with the nearest pixel, whatever its aspect ratio, and
    mirrored at random.

    Args:
        path: Folder that is searched, with its subfolders, for bmp, gif, jpg, png, tif and webp files.
        box: Height and width of the window for the local critic; it is put where most of the hole is.
        flip: Mirror each mask at random, top to bottom and left to right.
        hole: What marks the hole in the files: "white" (or 255), "black" (or 0) or "transparent".
        largest_hole_ratio: From this mean hole ratio on the folder is refused, because the files most likely mean the
            opposite. 1 accepts every folder.
        hole_ratio: Smallest hole ratio (included) and largest (excluded), e.g. (0.1, 0.2): only files between them are
            drawn. All files are read once at the start. None draws from all.
        augment: Changes what was drawn, such as `MaskAugment`; None keeps it.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If it holds no mask file, a setting is out of range, one of the 64 files that are looked at first is
            no mask, their mean hole ratio is too large, or no file has the `hole_ratio`; when called, if a file is no
            mask or the box does not fit the image. The message names the file.

    Source:
        Ours, for the published sets of irregular masks (e.g. Liu et al. 2018).
    """

    def __init__(
        self,
        path: str | Path,
        box: int | Sequence[int] = (128, 128),
        flip: bool = True,
        hole: str | int = "white",
        largest_hole_ratio: float = 0.5,
        hole_ratio: Sequence[float] | None = None,
        augment: Augment | None = None,
    ) -> None:
        self.augment = augment
        self.box = read_pair(box, "box", 1)
        self.flip = flip
        self.hole = read_hole(hole)
        if not 0 < largest_hole_ratio <= 1:
            raise ValueError(f"largest_hole_ratio must be in (0, 1], got {largest_hole_ratio}; use a fraction, not %")
        self.path = Path(path)
        if not self.path.is_dir():
            raise FileNotFoundError(f"mask folder {self.path} must exist; set its path, e.g. mask.path=/data/masks")
        self.files = list_masks(self.path)
        if not self.files:
            kinds = ", ".join(suffix[1:] for suffix in MASK_SUFFIXES)
            raise ValueError(f"mask folder {self.path} must hold mask files ({kinds}), got none; check the path")
        self._check_polarity(largest_hole_ratio)
        if hole_ratio is not None:
            self._select(read_hole_ratio(hole_ratio))

    def draw(self, batch_size: int, size: tuple[int, int], generator: Rng, device: Device) -> tuple[Tensor, Box | None]:
        """Draw masks; see `MaskSampler`."""
        chosen = draw_integers(0, len(self.files) - 1, (batch_size,), generator).tolist()
        flips = draw_integers(0, int(self.flip), (batch_size, 2), generator).tolist()
        masks = []
        for index, flip in zip(chosen, flips, strict=True):
            file = Image.fromarray(self._read(self.files[index]).astype(np.uint8))
            mask = torch.from_numpy(np.array(file.resize(size[::-1], Image.Resampling.NEAREST)))
            masks.append(mask.flip([axis for axis, on in enumerate(flip) if on]))
        return torch.stack(masks)[:, None], None

    def _read(self, file: str) -> np.ndarray:
        try:
            hole = read_mask_file(file, self.hole)
        except ValueError as error:
            raise ValueError(f"mask file {file} {error}; repair or remove it") from error
        if hole.all() or not hole.any():
            found = "a hole everywhere" if hole.all() else "no hole"
            raise ValueError(f"mask file {file} must show a hole and a known part, got {found}; remove it")
        return hole

    def _check_polarity(self, largest: float) -> None:
        """Raise if the files that are looked at are mostly hole."""
        step = -(-len(self.files) // _CHECKED_FILES)
        ratios = {file: self._read(file).mean() for file in self.files[::step]}
        mean = sum(ratios.values()) / len(ratios)
        if mean >= largest and largest < 1:
            worst = max(ratios, key=lambda file: ratios[file])
            raise ValueError(
                f"masks in {self.path} must mark the hole with {self.hole}, got a mean hole ratio of {mean:.0%} "
                f"(most, {ratios[worst]:.0%}, in {worst}); set hole={'white' if self.hole == 'black' else 'black'} if "
                "that is the hole, or largest_hole_ratio=1 if the holes are that large"
            )

    def _select(self, ratio: tuple[float, float]) -> None:
        """Keep the files whose hole ratio lies in the range."""
        with ThreadPoolExecutor() as pool:
            ratios = list(pool.map(lambda file: self._read(file).mean(), self.files))
        self.files = [file for file, own in zip(self.files, ratios, strict=True) if ratio[0] <= own < ratio[1]]
        if not self.files:
            raise ValueError(
                f"masks in {self.path} must have hole ratios from {ratio[0]:.0%} to below {ratio[1]:.0%}, the "
                f"{len(ratios)} files have {min(ratios):.1%} to {max(ratios):.1%}; choose another hole_ratio"
            )


def grown(hole: np.ndarray, pixels: int) -> np.ndarray:
    """Return a hole, bool (H, W), grown by a distance in pixels, or shrunk by a negative one."""
    if pixels < 0 and not hole.all():
        return distance_transform_edt(hole) > -pixels
    return hole if pixels <= 0 or not hole.any() else distance_transform_edt(~hole) <= pixels


def list_masks(folder: Path) -> list[str]:
    """Return the mask files of a folder and its subfolders, sorted by name."""
    return sorted(str(f) for f in folder.rglob("*") if f.suffix.lower() in MASK_SUFFIXES and f.is_file())


def _transparent(image: Image.Image) -> np.ndarray | None:
    """Return where an image is transparent, or None if it is opaque everywhere."""
    if "transparency" not in image.info and image.mode not in ("LA", "La", "PA", "RGBA", "RGBa"):
        return None
    layer = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
    transparent = np.asarray(layer)[..., 3] < 128
    return transparent if transparent.any() else None


def _levels(image: Image.Image) -> np.ndarray:
    """Return the brightness of each pixel, float64 (H, W) in [0, 1]: the largest channel, so that blue is bright."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image, np.float64)
        top = 65535.0 if image.mode != "F" and values.max() > 255 else 255.0 if values.max() > 1 else 1.0
        return np.clip(np.nan_to_num(values) / top, 0, 1)
    colors = np.asarray(image.convert("RGB"))
    brightest = colors.max(2)
    if brightest.min() == brightest.max():  # e.g. red on white
        brightest = np.asarray(image.convert("L"))
    return brightest / 255
