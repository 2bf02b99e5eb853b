"""Augmentation of masks by kornia: what a sampler has drawn, or a file holds, is flipped, moved, grown or shrunk."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from kornia.geometry.transform import get_affine_matrix2d, hflip, vflip, warp_affine
from kornia.morphology import dilation, erosion
from torch import Tensor

from gicinpaint.masks.sampler import device_of, hole_window
from gicinpaint.models.compositing import Box

_CROSS = [[0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]


@dataclass
class MaskAugment:
    """Change masks at random, each image by numbers of its own; a hole that would vanish or cover all stays as it is.

    All numbers come from the sampler's generator, which belongs to (seed, epoch, index): any number of workers and
    processes, and a resumed run, get the same bits.

    Args:
        flip: Probability of a left-right flip, and of a top-bottom flip.
        rotation: Largest rotation to either side, in degrees.
        scale: Smallest and largest factor on the hole's size.
        shift: Largest shift along each axis, as a share of the image's side.
        grow: Most pixels by which a hole grows, as a share of the image's shorter side.
        shrink: Most pixels by which it shrinks, likewise.

    Raises:
        ValueError: If a value is out of range.

    Source:
        Ours: the paper's holes are not augmented.

    Example:
        >>> mask = torch.zeros(1, 1, 8, 8)
        >>> mask[..., 3:5, 3:5] = 1
        >>> grown, _ = MaskAugment(flip=0, grow=0.125)(mask, Box(torch.tensor([2]), torch.tensor([2]), 4, 4), None)
        >>> int(grown.sum()) in (4, 12)
        True
    """

    flip: float = 0.5
    rotation: float = 0.0
    scale: Sequence[float] = (1.0, 1.0)
    shift: float = 0.0
    grow: float = 0.0
    shrink: float = 0.0

    def __post_init__(self) -> None:
        for name, most in {"flip": 1, "rotation": 180, "shift": 1, "grow": 1, "shrink": 1}.items():
            if not 0 <= (value := getattr(self, name)) <= most:
                raise ValueError(f"{name} must lie in [0, {most}], got {value}; 0 switches it off")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(
                f"scale must be (smallest, largest) factors above 0, got {self.scale}; (1, 1) switches it off"
            )

    def __call__(self, mask: Tensor, box: Box, generator: torch.Generator | None) -> tuple[Tensor, Box]:
        """Return the changed masks, and boxes of the same size put where most of each hole is.

        Shape:
            - mask, returned: float32 (B, 1, H, W), {0, 1}; 1 = hole
        """
        b, _, h, w = mask.shape
        numbers = torch.rand(b, 7, generator=generator, device=device_of(generator)).to(mask.device)
        changed = torch.where(numbers[:, 0, None, None, None] < self.flip, hflip(mask), mask)
        changed = torch.where(numbers[:, 1, None, None, None] < self.flip, vflip(changed), changed)
        if self.rotation or self.shift or any(factor != 1 for factor in self.scale):
            angle = (2 * numbers[:, 2] - 1) * self.rotation
            factor = self.scale[0] + (self.scale[1] - self.scale[0]) * numbers[:, 3]
            move = (2 * numbers[:, 4:6] - 1) * self.shift * mask.new_tensor([w, h])
            centre = mask.new_tensor([(w - 1) / 2, (h - 1) / 2]).expand(b, 2)
            matrix = get_affine_matrix2d(move, centre, factor[:, None].expand(b, 2), angle)[:, :2]
            changed = warp_affine(changed, matrix, (h, w), mode="nearest")
        most, least = (round(share * min(h, w)) for share in (self.grow, self.shrink))
        pixels = (numbers[:, 6] * (most + least + 1)).long().clamp(max=most + least) - least
        changed = _resized(changed, pixels)
        usual = (changed.flatten(1).amin(1) == 0) & (changed.flatten(1).amax(1) == 1)
        changed = torch.where(usual[:, None, None, None], changed, mask)
        return changed, hole_window(changed, (box.height, box.width))


def _resized(mask: Tensor, pixels: Tensor) -> Tensor:
    """Grow each hole by so many pixels, or shrink it by as many below 0: a cross and a square in turn, an octagon."""
    kernels = (mask.new_tensor(_CROSS), mask.new_ones(3, 3))
    for step in range(int(pixels.abs().max())):
        for change, some in ((dilation, pixels > step), (erosion, -pixels > step)):
            if some.any():
                mask = mask.clone()
                mask[some] = change(mask[some], kernels[step % 2])
    return mask
