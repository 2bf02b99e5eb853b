"""Items and batches: an image, its hole and its box, all of them pure functions of (seed, epoch, index)."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from gicinpaint.compositing import Box
from gicinpaint.data.faults import FaultCount
from gicinpaint.data.images import ImageError, to_tensor
from gicinpaint.data.order import Item, key
from gicinpaint.data.sources import ImageSource
from gicinpaint.masks.sampler import MaskSampler, NumberedMasks

Crop = Callable[[Image.Image, int, int, torch.Generator], Image.Image]
Colours = Callable[[Tensor, torch.Generator], Tensor]
OnError = Literal["raise", "skip"]

_TRIES = 10  # replacements for one bad image; at 1 % of bad images, ten in a row never happen by chance


class Batch(NamedTuple):
    """What a training or validation step receives.

    Attributes:
        image: Ground truth, float32 (B, 3, H, W), [-1, 1].
        mask: Holes, (B, 1, H, W), {0, 1}, 1 = hole.
        box: One box of a common size per image, for the local critic.
    """

    image: Tensor
    mask: Tensor
    box: Box


class InpaintingDataset(Dataset[Batch | None]):
    """Images with a crop, a flip and a hole of their own.

    Item (epoch, index) depends on (seed, epoch, index) and the files alone: not on the worker that makes it, nor on
    what was made before. Crop and mask have separate generators, so another mask preset leaves the crops alone.

    Args:
        source: Where the images come from.
        crop: Brings an image to the training size.
        mask: Draws the holes. Masks with numbers give item (epoch, index) mask `index`, whatever the seed.
        height: Height of the items.
        width: Width of the items.
        seed: The run's seed.
        flip: Probability of a left-right flip.
        colours: Changes an image's colours, (3, H, W) in [-1, 1]; None keeps them.
        on_error: What to do with an image that cannot be used: "raise" its `ImageError`, or "skip" it.
        replace: What skipping means: another image of the dataset takes its place, the same one in every run (True),
            or nothing does, and the item is None (False: for validation, where no image may count twice).
        faults: Counts what is skipped.

    Raises:
        ValueError: If `on_error` or `flip` is none of the values above.
    """

    def __init__(
        self,
        source: ImageSource,
        crop: Crop,
        mask: MaskSampler | NumberedMasks,
        *,
        height: int,
        width: int,
        seed: int = 0,
        flip: float = 0.5,
        colours: Colours | None = None,
        on_error: OnError = "raise",
        replace: bool = True,
        faults: FaultCount | None = None,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}; choose one of the two")
        if not 0 <= flip <= 1:
            raise ValueError(f"flip must be a probability in 0..1, got {flip}; use 0.5, or 0 for no flips")
        self.source = source
        self.crop = crop
        self.mask = mask
        self.height = height
        self.width = width
        self.seed = seed
        self.flip = flip
        self.colours = colours
        self.on_error = on_error
        self.replace = replace
        self.faults = faults if faults is not None else FaultCount("dataset", len(source))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: Item) -> Batch | None:
        """Return item (epoch, index) as a batch of one, or None for a bad image that nothing replaces.

        Raises:
            ImageError: If the image cannot be used and `on_error` is "raise".
            DatasetError: If more than 1 % of the images cannot be used and `on_error` is "skip".
        """
        epoch, index = item
        image = self._find_usable(epoch, index)
        if image is None:
            return None
        if isinstance(self.mask, NumberedMasks):
            mask, box = self.mask([index], self.height, self.width)
        else:
            mask, box = self.mask(1, self.height, self.width, generator=self._generator(epoch, index, "mask"))
        return Batch(image[None], mask, box)

    def read(self, epoch: int, index: int) -> Tensor:
        """Return the cropped and flipped image of an item, float32 (3, H, W), [-1, 1].

        Raises:
            ImageError: If the image cannot be used.
        """
        return self._read(epoch, index, index)

    def _find_usable(self, epoch: int, index: int) -> Tensor | None:
        self.faults.add_read()
        chosen = index
        for attempt in range(1, _TRIES + 1):
            try:
                return self._read(epoch, index, chosen)
            except ImageError as error:
                if self.on_error == "raise":
                    raise
                self.faults.add_bad(error)
                if not self.replace:
                    return None
                chosen = key(self.seed, epoch, index, "replacement", attempt) % len(self.source)
        raise ImageError(f"{_TRIES} images drawn to replace {self.source.name(index)} cannot be used either")

    def _read(self, epoch: int, index: int, chosen: int) -> Tensor:
        """Return image `chosen` as item (epoch, index) crops, flips and colours it."""
        generator = self._generator(epoch, index, "crop")
        image = self.source.read(chosen)
        try:
            image = self.crop(image, self.height, self.width, generator)
        except ImageError as error:
            raise ImageError(f"cannot use image {self.source.name(chosen)}: {error}") from None
        if self.flip and torch.rand((), generator=generator).item() < self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = to_tensor(image)
        return pixels if self.colours is None else self.colours(pixels, self._generator(epoch, index, "colours"))

    def _generator(self, epoch: int, index: int, use: str) -> torch.Generator:
        return torch.Generator().manual_seed(key(self.seed, epoch, index, use))


def collate(items: Sequence[Batch | None]) -> Batch:
    """Join items to a batch; bad images that were left out (None) do not count.

    Raises:
        ImageError: If none is left.
        ValueError: If the masks' boxes differ in size, which a sampler must not do.
    """
    good = [item for item in items if item is not None]
    if not good:
        raise ImageError(
            f"none of the {len(items)} images of a batch can be used; list all bad ones with "
            "`gicinpaint prepare check=true`"
        )
    sizes = {(item.box.height, item.box.width) for item in good}
    if len(sizes) > 1:
        raise ValueError(f"a mask sampler must draw boxes of one size, got {sorted(sizes)}; fix its box_size")
    box = Box(
        torch.cat([item.box.top for item in good]),
        torch.cat([item.box.left for item in good]),
        good[0].box.height,
        good[0].box.width,
    )
    return Batch(torch.cat([item.image for item in good]), torch.cat([item.mask for item in good]), box)
