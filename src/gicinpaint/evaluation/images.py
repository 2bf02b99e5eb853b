"""The images of an evaluation: cropped, counted, and known by a hash of what the methods see."""

import hashlib

import torch
from torch import Tensor
from tqdm import tqdm

from gicinpaint.data import ImageError, ImageSource
from gicinpaint.data.image_io import to_tensor
from gicinpaint.data.transforms import Crop


class EvaluationImages(torch.utils.data.Dataset[Tensor]):
    """Images of one size, each with a number; nothing about them is random.

    Args:
        source: Where the images come from.
        crop: Brings an image to the size; it must not draw, as `CenterCropResize` does not.
        height: Height in pixels.
        width: Width in pixels.
        count: How many of the source's images to use, spread evenly over their order; None is all.

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
        self.numbers = spread(count, found)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Tensor:
        """Return image `index`, float32 (3, H, W), [-1, 1].

        Raises:
            ImageError: If it cannot be used; the message names it.
        """
        number = self.numbers[index]
        image = self.source.read(number)
        try:
            return to_tensor(self.crop(image, self.height, self.width, torch.Generator()))
        except ImageError as error:
            raise ImageError(f"cannot use image {self.name(index)}: {error}") from None

    def name(self, index: int) -> str:
        """Return what to call image `index`."""
        return self.source.name(self.numbers[index])

    def names(self) -> list[str]:
        """Return the names of all images, without the quotes of messages."""
        return [self.name(index).strip("'") for index in range(len(self))]

    def manifest(self, progress: bool = False) -> dict[str, int | str]:
        """Describe the images; two results were measured on the same images exactly when this is equal.

        Args:
            progress: Whether to show a progress bar: every image is read.

        Returns:
            Count, height, width, and the SHA-256 over all 8-bit pixels in order.

        Raises:
            ImageError: If an image cannot be used.
        """
        digest = hashlib.sha256()
        for index in tqdm(range(len(self)), "reading images", disable=not progress, unit=" images", leave=False):
            levels = ((self[index] + 1) * 127.5).round().to(torch.uint8)
            digest.update(levels.numpy().tobytes())
        return {"count": len(self), "height": self.height, "width": self.width, "sha256": digest.hexdigest()}


def spread(count: int, total: int) -> list[int]:
    """Return `count` different numbers below `total`, evenly spread, in order."""
    return [(2 * number + 1) * total // (2 * count) for number in range(count)]
