"""Items and batches: an image, its hole and its box, all of them pure functions of (seed, epoch, index)."""

from collections.abc import Callable, Sequence
from typing import Literal, cast

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from gicinpaint.data.bad_images import FaultCount
from gicinpaint.data.batch import Batch, BatchBuffer, BatchMemory, PackedBatch
from gicinpaint.data.image_io import ImageError, to_tensor
from gicinpaint.data.order import Item, derive_seed
from gicinpaint.data.sources import ImageSource
from gicinpaint.masks.sampler import MaskSampler, NumberedMasks
from gicinpaint.models.compositing import Box

Crop = Callable[[Image.Image, int, int, torch.Generator], Image.Image]
Colours = Callable[[Tensor, torch.Generator], Tensor]
OnError = Literal["raise", "skip"]

_TRIES = 10  # replacements for one bad image; at 1 % of bad images, ten in a row never happen by chance


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
        self._memory = BatchMemory()
        self._is_numbered = isinstance(mask, NumberedMasks)  # asked once: for a protocol the question is slow

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: Item) -> Batch | None:
        """Return item (epoch, index) as a batch of one, or None for a bad image that nothing replaces.

        Raises:
            ImageError: If the image cannot be used and `on_error` is "raise".
            DatasetError: If more than 1 % of the images cannot be used and `on_error` is "skip".
        """
        buffer = self._collect([item])
        return buffer.finish().unpack() if len(buffer) else None

    def __getitems__(self, items: Sequence[Item]) -> PackedBatch:
        """Return a batch of items, for a loader; bad images that nothing replaces are left out.

        Raises:
            ImageError: As for one item; and if none is left.
            DatasetError: As for one item.
        """
        buffer = self._collect(items)
        if not len(buffer):
            raise ImageError(
                f"none of the {len(items)} images of a batch can be used; list all bad ones with "
                "`gicinpaint prepare check=true`"
            )
        return buffer.finish()

    def read(self, epoch: int, index: int) -> Tensor:
        """Return the cropped and flipped image of an item, float32 (3, H, W), [-1, 1].

        Raises:
            ImageError: If the image cannot be used.
        """
        image = self._read(epoch, index, index)
        return image if isinstance(image, Tensor) else to_tensor(image)

    def _collect(self, items: Sequence[Item]) -> BatchBuffer:
        buffer = BatchBuffer(len(items), self._memory)
        for epoch, index in items:
            image = self._find_usable(epoch, index)
            if image is None:
                continue
            buffer.add(image, *self._draw_hole(epoch, index))
        return buffer

    def _draw_hole(self, epoch: int, index: int) -> tuple[Tensor, Box]:
        if self._is_numbered:
            return cast(NumberedMasks, self.mask)([index], self.height, self.width)
        generator = self._generator(epoch, index, "mask")
        return cast(MaskSampler, self.mask)(1, self.height, self.width, generator=generator)

    def _find_usable(self, epoch: int, index: int) -> Image.Image | Tensor | None:
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
                chosen = derive_seed(self.seed, epoch, index, "replacement", attempt) % len(self.source)
        raise ImageError(f"{_TRIES} images drawn to replace {self.source.name(index)} cannot be used either")

    def _read(self, epoch: int, index: int, chosen: int) -> Image.Image | Tensor:
        """Return image `chosen` as item (epoch, index) crops and flips it; as values where it changes the colours."""
        generator = self._generator(epoch, index, "crop")
        image = self.source.read(chosen)
        try:
            image = self.crop(image, self.height, self.width, generator)
        except ImageError as error:
            raise ImageError(f"cannot use image {self.source.name(chosen)}: {error}") from None
        if self.flip and torch.rand((), generator=generator).item() < self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.colours is None:
            return image
        return self.colours(to_tensor(image), self._generator(epoch, index, "colours"))

    def _generator(self, epoch: int, index: int, use: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, epoch, index, use))
