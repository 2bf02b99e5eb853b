"""Where the holes of an evaluation are: mask i belongs to image i."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gicinpaint.data import ImageError, read_image
from gicinpaint.models.compositing import Box

_SUFFIXES = frozenset({".bmp", ".gif", ".png", ".tif", ".tiff", ".webp"})  # JPEG blurs the edge of a mask


class NumberedMasks(Protocol):
    """Masks with numbers, such as `gicinpaint.masks.FixedMasks`."""

    def __call__(self, indices: Iterable[int], height: int = 256, width: int = 256) -> tuple[Tensor, Box]:
        """Return the masks with the given numbers, (B, 1, H, W), {0, 1}, 1 = hole, and a box for each."""
        ...

    def manifest(self, count: int, height: int = 256, width: int = 256) -> dict[str, Any]:
        """Describe the first masks, with the SHA-256 over all of them."""
        ...


class MaskFiles:
    """The mask files of a folder, in the order of their names: image i gets file i modulo their number.

    Nothing is drawn, mirrored or resized: a file that is not of the images' size is an error.

    Args:
        path: Folder that is searched, with its subfolders, for bmp, gif, png, tif and webp files.
        hole: Value that means hole in the files, 255 or 0.

    Raises:
        ValueError: If there is no mask file, or `hole` is another value; when called, if a file holds other values
            than 0 and 255 or has another size.
    """

    def __init__(self, path: str | Path, hole: int = 255) -> None:
        if hole not in (0, 255):
            raise ValueError(f"hole must be 255 or 0, got {hole}; name the value that means hole in the files")
        self.hole = hole
        self.path = Path(path)
        self.files = sorted(f for f in self.path.rglob("*") if f.suffix.lower() in _SUFFIXES and f.is_file())
        if not self.files:
            kinds = ", ".join(sorted(suffix[1:] for suffix in _SUFFIXES))
            raise ValueError(f"looked for mask files ({kinds}) in {self.path}: found none; set preset.path to a folder")

    def __call__(self, indices: Iterable[int], height: int = 256, width: int = 256) -> tuple[Tensor, Box]:
        """Return the masks with the given numbers; see `NumberedMasks`. The boxes are the whole image."""
        masks = torch.stack([self._read(self.files[index % len(self.files)], height, width) for index in indices])
        zeros = torch.zeros(len(masks), dtype=torch.int64)
        return masks, Box(zeros, zeros, height, width)

    def manifest(self, count: int, height: int = 256, width: int = 256) -> dict[str, Any]:
        """Describe the first masks; see `NumberedMasks`."""
        digest = hashlib.sha256()
        for index in range(count):
            digest.update(self([index], height, width)[0].to(torch.uint8).numpy().tobytes())
        return {"preset": "files", "count": count, "height": height, "width": width, "sha256": digest.hexdigest()}

    def _read(self, file: Path, height: int, width: int) -> Tensor:
        try:
            levels = np.asarray(read_image(file, formats=("BMP", "GIF", "PNG", "TIFF", "WEBP")).convert("L"))
        except ImageError as error:
            raise ValueError(f"{error}; repair or remove it") from None
        if levels.shape != (height, width):
            raise ValueError(
                f"mask file {file} must have the images' size, {height}x{width}, got {levels.shape[0]}x"
                f"{levels.shape[1]}; resize it with the nearest pixel, or set dataset.image_size"
            )
        if not np.isin(levels, (0, 255)).all():
            raise ValueError(
                f"mask file {file} must hold only 0 and 255, got other values; threshold it and save it as PNG"
            )
        return torch.from_numpy(levels == self.hole).float()[None]
