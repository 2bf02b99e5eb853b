"""Holes read from image files."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gicinpaint.masks.sampler import Device, check_room, draw_integers, read_pair, read_share
from gicinpaint.masks.window import hole_window
from gicinpaint.models.compositing import Box

_SUFFIXES = frozenset({".bmp", ".gif", ".png", ".tif", ".tiff", ".webp"})  # JPEG blurs the edge of a mask
_CHECKED_FILES = 64  # enough to tell the polarity of a set; reading all of a large one would delay the start


class MaskFolder:
    """Holes from the mask files of a folder, drawn at random.

    A file is a picture of two values: 255 (white) is the hole and 0 the known part, or the other way round with
    ``hole=0``. It is resized to the image with the nearest pixel, whatever its aspect ratio, and mirrored at random.

    Args:
        path: Folder that is searched, with its subfolders, for bmp, gif, png, tif and webp files.
        box: Height and width of the window for the local critic; it is put where most of the hole is.
        flip: Mirror each mask at random, top to bottom and left to right.
        hole: Value that means hole in the files, 255 or 0.
        largest_share: From this mean hole share on the folder is refused, because the files most likely mean the
            opposite. 1 accepts every folder.
        share: Smallest hole share (included) and largest (excluded), e.g. (0.1, 0.2): only files between them are
            drawn. All files are read once at the start. None draws from all.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If it holds no mask file, a setting is out of range, a file of those that are looked at (64,
            evenly spread over the sorted names) is no mask, their mean hole share is too large, or no file has the
            share that is asked for; when called, if
            a file that is drawn is no mask, or the box does not fit the image. The message names the file.

    Source:
        Ours, for the published sets of irregular masks (e.g. Liu et al. 2018).
    """

    def __init__(
        self,
        path: str | Path,
        box: int | Sequence[int] = (128, 128),
        flip: bool = True,
        hole: int = 255,
        largest_share: float = 0.5,
        share: Sequence[float] | None = None,
    ) -> None:
        self.box = read_pair(box, "box", 1)
        self.flip = flip
        if hole not in (0, 255):
            raise ValueError(
                f"hole must be the value 255 or 0, got {hole}; name the value that means hole in the files"
            )
        if not 0 < largest_share <= 1:
            raise ValueError(f"largest_share must be in (0, 1], got {largest_share}; use a fraction, not %")
        self.hole = hole
        self.path = Path(path)
        if not self.path.is_dir():
            raise FileNotFoundError(f"mask folder {self.path} must exist; set its path, e.g. mask.path=/data/masks")
        self.files = sorted(str(f) for f in self.path.rglob("*") if f.suffix.lower() in _SUFFIXES and f.is_file())
        if not self.files:
            kinds = ", ".join(sorted(suffix[1:] for suffix in _SUFFIXES))
            raise ValueError(f"mask folder {self.path} must hold mask files ({kinds}), got none; check the path")
        self._check_polarity(largest_share)
        if share is not None:
            self._keep_share(read_share(share))

    def __call__(
        self,
        batch_size: int,
        height: int,
        width: int,
        *,
        generator: torch.Generator | None = None,
        device: Device = None,
    ) -> tuple[Tensor, Box]:
        """Draw masks of the given size; see `MaskSampler`."""
        check_room(height, width, self.box)
        chosen = draw_integers(0, len(self.files) - 1, (batch_size,), generator).tolist()
        flips = draw_integers(0, int(self.flip), (batch_size, 2), generator).tolist()
        masks = []
        for index, (vertical, horizontal) in zip(chosen, flips, strict=True):
            picture = self._read(self.files[index])
            if picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.NEAREST)
            mask = torch.from_numpy(np.array(picture))
            masks.append(mask.flip([axis for axis, on in enumerate((vertical, horizontal)) if on]))
        hole = (torch.stack(masks)[:, None] == self.hole).float().to(device or "cpu")
        return hole, hole_window(hole, self.box)

    def _read(self, file: str) -> Image.Image:
        """Read a file as 8-bit grey values that are all 0 or 255."""
        try:
            with Image.open(file) as opened:
                picture = opened.convert("L")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(
                f"mask file {file} must be a readable picture, got {error}; repair or remove it"
            ) from error
        levels = picture.histogram()
        other = [value for value, count in enumerate(levels) if count and value not in (0, 255)]
        if other:
            raise ValueError(
                f"mask file {file} must hold only 0 and 255, got {sum(levels[value] for value in other)} pixels of "
                f"other values, such as {other[0]}; threshold it and save it without loss, e.g. as PNG"
            )
        if not (levels[0] and levels[255]):
            raise ValueError(
                f"mask file {file} must show a hole and a known part, got only {0 if levels[0] else 255}; remove it"
            )
        return picture

    def _check_polarity(self, largest_share: float) -> None:
        """Raise if the files that are looked at are mostly hole."""
        step = -(-len(self.files) // _CHECKED_FILES)
        shares = {file: self._share(file) for file in self.files[::step]}
        mean = sum(shares.values()) / len(shares)
        if mean >= largest_share and largest_share < 1:
            worst = max(shares, key=lambda file: shares[file])
            raise ValueError(
                f"masks in {self.path} must mark the hole with {self.hole}, got a mean hole share of {mean:.0%} "
                f"(most, {shares[worst]:.0%}, in {worst}); set hole={255 - self.hole} if the other value is the hole, "
                "or largest_share=1 if the holes are that large"
            )

    def _keep_share(self, share: tuple[float, float]) -> None:
        """Keep the files whose hole share lies in the range."""
        with ThreadPoolExecutor() as pool:
            shares = list(pool.map(self._share, self.files))
        self.files = [file for file, own in zip(self.files, shares, strict=True) if share[0] <= own < share[1]]
        if not self.files:
            raise ValueError(
                f"masks in {self.path} must have hole shares from {share[0]:.0%} to below {share[1]:.0%}, the "
                f"{len(shares)} files have {min(shares):.1%} to {max(shares):.1%}; choose another share"
            )

    def _share(self, file: str) -> float:
        """Return a file's hole share."""
        levels = self._read(file).histogram()
        return levels[self.hole] / sum(levels)
