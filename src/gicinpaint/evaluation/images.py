"""Images and mask files of an evaluation: each has an index, none is random, and a hash tells two sets apart."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gicinpaint.config.progress_bar import Bar
from gicinpaint.data import ImageError, ImageSource, read_image
from gicinpaint.data.image_io import to_tensor
from gicinpaint.data.transforms import Crop
from gicinpaint.masks import read_mask_file
from gicinpaint.models.compositing import Box

_MASK_SUFFIXES = frozenset({".bmp", ".gif", ".png", ".tif", ".tiff", ".webp"})  # JPEG blurs the edge of a mask


class EvaluationImages(torch.utils.data.Dataset[Tensor]):
    """Images of one size, `height` x `width` pixels, without randomness.

    Args:
        source: Source of the images.
        crop: Crops and resizes an image; what it draws depends on the image's number alone.
        height: Of all images.
        width: Of all images.
        count: Number of images to use, evenly spread over the source; None uses all.

    Raises:
        ValueError: If there are fewer images than that, or none.
    """

    def __init__(self, source: ImageSource, crop: Crop, height: int, width: int, count: int | None = None) -> None:
        found = len(source)
        count = found if count is None else count
        if not 1 <= count <= found:
            raise ValueError(
                f"count must lie in 1..{found}, the number of images found, got {count}; or set count=null"
            )
        self.source = source
        self.crop = crop
        self.height = height
        self.width = width
        self.indices = spread(count, found)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Tensor:
        """Return image `index`, float32 (3, H, W), [-1, 1].

        Raises:
            ImageError: If it cannot be used; the message names it.
        """
        image = self.source.read(self.indices[index])
        try:
            return to_tensor(self.crop(image, self.height, self.width, torch.Generator().manual_seed(index)))
        except ImageError as error:
            raise ImageError(f"cannot use image {self.name(index)}: {error}") from None

    def name(self, index: int) -> str:
        """Return the name of image `index`, as messages show it."""
        return self.source.name(self.indices[index])

    def names(self) -> list[str]:
        """Return the names of all images, without quotes; an image in a shard is called `shard.tar image 3`."""
        return [re.sub(r"^(['\"])(.*)\1", r"\2", self.name(index)) for index in range(len(self))]

    def manifest(self, progress: bool = False) -> dict[str, int | str]:
        """Describe the images: two results were measured on the same images exactly when their manifests are equal.

        Every image is read for it. A manifest has the count, height, width, and the SHA-256 of all 8-bit pixels.

        Raises:
            ImageError: If an image cannot be used.
        """
        digest = hashlib.sha256()
        for index in Bar(range(len(self)), "reading images", disable=not progress, unit=" images", leave=False):
            levels = ((self[index] + 1) * 127.5).round().to(torch.uint8)
            digest.update(levels.numpy().tobytes())
        return {"count": len(self), "height": self.height, "width": self.width, "sha256": digest.hexdigest()}


class MaskFiles:
    """Mask files of a folder, in the order of their names: image i gets file i modulo their number.

    Nothing is drawn, mirrored or resized: a file of another size than the images' is an error.

    Args:
        path: Folder that is searched, with its subfolders, for bmp, gif, png, tif and webp files.
        hole: Value that means hole in the files, 255 or 0.

    Raises:
        ValueError: If there is no mask file, or `hole` is another value; when called, if a file has values other than
            0 and 255 or another size.
    """

    def __init__(self, path: str | Path, hole: int = 255) -> None:
        if hole not in (0, 255):
            raise ValueError(f"hole must be 255 or 0, got {hole}; name the value that means hole in the files")
        self.hole = hole
        self.path = Path(path)
        self.files = sorted(f for f in self.path.rglob("*") if f.suffix.lower() in _MASK_SUFFIXES and f.is_file())
        if not self.files:
            kinds = ", ".join(sorted(suffix[1:] for suffix in _MASK_SUFFIXES))
            raise ValueError(f"looked for mask files ({kinds}) in {path}: found none; set eval_mask.path to a folder")

    def __call__(self, indices: Iterable[int], height: int = 256, width: int = 256) -> tuple[Tensor, Box]:
        """Return the masks of some indices, (B, 1, H, W), {0, 1}, 1 = hole; the boxes are the whole image."""
        masks = torch.stack([self._read(self.files[index % len(self.files)], height, width) for index in indices])
        zeros = torch.zeros(len(masks), dtype=torch.int64)
        return masks, Box(zeros, zeros, height, width)

    def manifest(self, count: int, height: int = 256, width: int = 256) -> dict[str, Any]:
        """Describe the first masks, with the SHA-256 over all of them."""
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
        return torch.from_numpy(read_mask_file(file, self.hole)).float()[None]


def spread(count: int, total: int) -> list[int]:
    """Return `count` different numbers below `total`, evenly spread, in order."""
    return [(2 * number + 1) * total // (2 * count) for number in range(count)]
