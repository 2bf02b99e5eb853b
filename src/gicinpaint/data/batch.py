"""Batches: the values that a step takes, and the bytes in which they travel from the process that reads."""

import math
from collections import deque
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info

from gicinpaint.data.image_io import to_values
from gicinpaint.models.compositing import Box

_KEPT = 8  # batches per worker; those whose memory nobody gave back, as of a loader that was left early, are forgotten


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


class PackedBatch(NamedTuple):
    """A batch on its way between processes, a quarter of the size of its values.

    Attributes:
        pixels: Images as decoded, uint8 (B, H, W, 3); or float32 (B, 3, H, W), [-1, 1], where colours were changed.
        mask: Holes, uint8 (B, 1, H, W), {0, 1}.
        box: As in `Batch`.
        in_use: 1 until the batch has been unpacked, uint8 (1,): then its memory takes another batch.
    """

    pixels: Tensor
    mask: Tensor
    box: Box
    in_use: Tensor

    def unpack(self, pinned: bool = False) -> Batch:
        """Return the values, in memory of their own, and give back this batch's memory; so it can be done only once.

        Args:
            pinned: Return them in page-locked memory, from where an accelerator fetches them faster.
        """
        image = self.pixels.clone() if self.pixels.is_floating_point() else to_values(self.pixels)
        mask = self.mask.float()
        self.in_use.zero_()
        return Batch(image.pin_memory(), mask.pin_memory(), self.box) if pinned else Batch(image, mask, self.box)


class BatchMemory:
    """Memory for batches. A worker process of a loader takes it again and again: fresh memory costs more than a hole.

    In such a process it is shared with the one that trains, so that nothing is copied to be sent.
    """

    def __init__(self) -> None:
        self._kept: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=_KEPT)

    def take(self, pixels: tuple[int, ...], dtype: torch.dtype, mask: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Return uninitialised tensors for a batch: images of a shape and type, masks of a shape, and its `in_use`."""
        for images, masks, in_use in self._kept:
            if not in_use.item() and (images.shape, images.dtype, masks.shape) == (pixels, dtype, mask):
                in_use.fill_(1)
                return images, masks, in_use
        taken = _empty(pixels, dtype), _empty(mask, torch.uint8), _empty((1,), torch.uint8).fill_(1)
        if get_worker_info() is not None:
            self._kept.append(taken)
        return taken


class BatchBuffer:
    """Puts each item where it stays in the batch, so that nothing is joined afterwards.

    Args:
        size: Largest number of items.
        memory: Where the batch lies.
    """

    def __init__(self, size: int, memory: BatchMemory) -> None:
        self.size = size
        self.memory = memory
        self._boxes: list[Box] = []
        self._images = self._masks = self._in_use = torch.empty(0)

    def __len__(self) -> int:
        return len(self._boxes)

    def add(self, image: Image.Image | Tensor, mask: Tensor, box: Box) -> None:
        """Put in the next item.

        Args:
            image: An RGB image; or values in [-1, 1], (3, H, W).
            mask: Its hole.
            box: Its box.

        Shape:
            - mask: (1, 1, H, W), {0, 1}

        Raises:
            ValueError: If the box differs in size from the first one's, which a sampler must not do.
        """
        pixels = np.asarray(image)  # of the image itself: written below and not kept
        if not self._boxes:
            dtype = torch.float32 if isinstance(image, Tensor) else torch.uint8
            self._images, self._masks, self._in_use = self.memory.take(
                (self.size, *pixels.shape), dtype, (self.size, *mask.shape[1:])
            )
        elif box[2:] != self._boxes[0][2:]:
            sizes = sorted({(box.height, box.width), (self._boxes[0].height, self._boxes[0].width)})
            raise ValueError(f"a mask sampler must draw boxes of one size, got {sizes}; give its masks the same box")
        self._images[len(self)].numpy()[:] = pixels
        np.copyto(self._masks[len(self)].numpy(), mask[0].numpy(), casting="unsafe")  # a quarter of torch's time
        self._boxes.append(box)

    def finish(self) -> PackedBatch:
        """Return the items that were put in, at least one."""
        tops, lefts = torch.cat([box.top for box in self._boxes]), torch.cat([box.left for box in self._boxes])
        box = Box(tops, lefts, self._boxes[0].height, self._boxes[0].width)
        return PackedBatch(self._images[: len(self)], self._masks[: len(self)], box, self._in_use)


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    # as torch's own default_collate: memory that is shared from the start need not be copied to be sent
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(storage).view(shape)
