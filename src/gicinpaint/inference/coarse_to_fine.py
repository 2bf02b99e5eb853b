"""Holes that are too large for one pass: filled at reduced size, then refined by the second stage, tile by tile."""

import math

import torch
from torch import Tensor, nn
from tqdm import tqdm

from gicinpaint.inference.box import Box
from gicinpaint.inference.padding import complete, refine, resize
from gicinpaint.inference.regions import tiles
from gicinpaint.models.compositing import composite
from gicinpaint.models.generator import Generator

_OVERLAP = 64  # pixels over which neighbouring tiles are mixed
_LARGEST_TILE = 768
_LEAST_KNOWN = 0.05  # share of known pixels that a tile needs to be refined from


def fill_reduced(
    generator: nn.Module, image: Tensor, hole: Tensor, pixels: int, progress: bool
) -> tuple[Tensor, Tensor]:
    """Return the enlarged filling of the reduced image, and its refinement at full size.

    Where a tile has hardly any known pixel to copy from, or the generator has no second stage, the enlarged filling
    stays.

    Args:
        generator: Maps (masked, mask) to a `Completion`.
        image: Image; what lies in the hole does not matter.
        hole: Hole mask; 1 = hole.
        pixels: Most pixels of one pass.
        progress: Whether a bar shows the tiles.

    Shape:
        - image: (1, 3, H, W), [-1, 1]
        - hole: (1, 1, H, W), {0, 1}
        - returned: both (1, 3, H, W), [-1, 1]
    """
    h, w = image.shape[-2:]
    factor = math.sqrt(0.9 * pixels / (h * w))
    height, width = max(8, int(h * factor)), max(8, int(w * factor))
    known = resize(1 - hole, height, width)
    small = resize(image * (1 - hole), height, width) / known.clamp_min(1e-3)  # the mean of the known pixels alone
    small_hole = (known < 0.5).float()
    filled = complete(generator, small.clamp(-1, 1), small_hole).prediction
    enlarged = resize(composite(small.clamp(-1, 1), filled, small_hole), h, w)
    if not isinstance(generator, Generator):
        return enlarged, enlarged
    return enlarged, _refined(generator, image, hole, enlarged, pixels, progress)


def _refined(
    generator: Generator, image: Tensor, hole: Tensor, enlarged: Tensor, pixels: int, progress: bool
) -> Tensor:
    h, w = image.shape[-2:]
    size = min(_LARGEST_TILE, int(math.sqrt(pixels)) // 8 * 8)
    total = torch.zeros_like(image)
    weights = torch.zeros_like(hole)
    boxes = [box for box in tiles(Box(0, 0, h, w), size, _OVERLAP) if bool(_part(hole, box).any())]
    for box in tqdm(boxes, desc="refining", unit="tile", disable=not progress, leave=False):
        mask = _part(hole, box)
        guess = _part(enlarged, box)
        if 1 - mask.mean() >= _LEAST_KNOWN:
            guess = refine(generator, _part(image, box) * (1 - mask), guess, mask)
        ramp = _ramp(box, h, w).to(image.device)
        _part(total, box).add_(guess * ramp)
        _part(weights, box).add_(ramp)
    return torch.where(weights > 0, total / weights.clamp_min(1e-6), enlarged)


def _ramp(box: Box, height: int, width: int) -> Tensor:
    """Return weights, (h, w), that fall to the tile's sides, but not where a side is the image's own."""

    def along(length: int, begins: bool, ends: bool) -> Tensor:
        place = torch.arange(length, dtype=torch.float32) + 1
        rising = (place / _OVERLAP).clamp(max=1) if begins else torch.ones(length)
        falling = (place.flip(0) / _OVERLAP).clamp(max=1) if ends else torch.ones(length)
        return torch.minimum(rising, falling)

    rows = along(box.height, box.top > 0, box.bottom < height)
    return rows[:, None] * along(box.width, box.left > 0, box.right < width)


def _part(x: Tensor, box: Box) -> Tensor:
    return x[(..., *box.slices)]
