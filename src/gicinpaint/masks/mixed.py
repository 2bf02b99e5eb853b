"""Several kinds of hole in one training."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gicinpaint.masks.sampler import Device, MaskSampler, device_of, read_pair
from gicinpaint.models.compositing import Box


class MixedMask:
    """Holes from several samplers; each image draws the sampler that makes its hole.

    Args:
        masks: Samplers, all with the same box.
        weights: How often each sampler is drawn, relative to the others; 0 is never. None draws all equally often.
        box: Height and width of the samplers' box in pixels; None takes it from them.

    Raises:
        TypeError: If a number of the box is not whole.
        ValueError: If there is no sampler, the boxes differ, or the weights are not one per sampler, finite, not
            negative and not all 0; when called, whatever the samplers raise.

    Source:
        Ours: the paper trains on rectangles alone.

    Example:
        >>> import torch
        >>> from gicinpaint.masks import CenterMask, RectangleMask
        >>> mixed = MixedMask([CenterMask(box=4), RectangleMask(box=4, inset=1)], weights=[1, 3])
        >>> mask, box = mixed(2, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> mask.shape, mixed.box
        (torch.Size([2, 1, 8, 8]), (4, 4))
    """

    def __init__(
        self,
        masks: Sequence[MaskSampler],
        weights: Sequence[float] | None = None,
        box: int | Sequence[int] | None = None,
    ) -> None:
        self.masks = tuple(masks)
        if not self.masks:
            raise ValueError("masks must hold at least one sampler, got none; add one")
        self.box = self.masks[0].box if box is None else read_pair(box, "box", 1)
        boxes = [mask.box for mask in self.masks]
        if any(other != self.box for other in boxes):
            raise ValueError(f"masks must all have the box {self.box}, got {boxes}; give them the same box")
        self.weights = (1.0,) * len(self.masks) if weights is None else tuple(weights)
        if len(self.weights) != len(self.masks):
            raise ValueError(
                f"weights must be one per sampler, got {len(self.weights)} for {len(self.masks)}; give one for each"
            )
        if not all(0 <= weight < math.inf for weight in self.weights) or not any(self.weights):
            raise ValueError(f"weights must be finite, at least 0 and not all 0, got {self.weights}; e.g. use shares")

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
        weights = torch.tensor(self.weights, dtype=torch.float64, device=device_of(generator))
        choices = torch.multinomial(weights, batch_size, replacement=True, generator=generator).tolist()
        mask = torch.zeros(batch_size, 1, height, width, device=device or "cpu")
        top, left = torch.zeros(2, batch_size, dtype=torch.int64, device=mask.device)
        for chosen in sorted(set(choices)):
            images = [image for image, choice in enumerate(choices) if choice == chosen]
            holes, box = self.masks[chosen](len(images), height, width, generator=generator, device=device)
            mask[images], top[images], left[images] = holes, box.top, box.left
        return mask, Box(top, left, *self.box)
