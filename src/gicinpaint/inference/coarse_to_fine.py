"""Passes of the networks: at full size padded by mirroring, or at reduced size first and then refined tile by tile."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from gicinpaint.inference.regions import Rectangle, padded_size, tiles
from gicinpaint.models.compositing import composite, mask_out
from gicinpaint.models.generator import Completion, Generator

_OVERLAP = 64  # pixels over which neighbouring tiles are mixed
_LARGEST_TILE = 768
_LEAST_KNOWN = 0.05  # ratio of known pixels that a tile needs to be refined from


@torch.no_grad()
def complete(generator: nn.Module, image: Tensor, hole: Tensor, return_offset: bool = False) -> Completion:
    """Return both stages' outputs, of the image's size; the offset's grid is that of the padded image.

    Args:
        generator: Maps (masked, mask) to a `Completion`.
        image: Images; what lies in the hole does not matter.
        hole: Hole mask; 1 = hole.
        return_offset: Whether the offset is wanted.

    Shape:
        - image: (B, 3, H, W), [-1, 1]
        - hole: (B, 1, H, W), {0, 1}
    """
    h, w = image.shape[-2:]
    mask = mirrored(hole)
    completion = generator(mask_out(mirrored(image), mask), mask, return_offset=return_offset)
    refined = None if completion.refined is None else completion.refined[..., :h, :w]
    return Completion(completion.coarse[..., :h, :w], refined, completion.offset)


def mirrored(image: Tensor) -> Tensor:
    """Return images (..., H, W) continued by mirroring at the bottom and right up to the next multiple of 8."""
    h, w = image.shape[-2:]
    if padded_size(h, w) == (h, w):
        return image
    rows, columns = (torch.arange(size, device=image.device) for size in padded_size(h, w))
    rows, columns = (
        torch.minimum(index % (2 * size), 2 * size - 1 - index % (2 * size))  # 0 1 2 2 1 0 0 1 ...: the edge repeats
        for index, size in ((rows, h), (columns, w))
    )
    return image[..., rows[:, None], columns]


def fill_reduced(
    generator: nn.Module, image: Tensor, hole: Tensor, pixels: int, progress: bool
) -> tuple[Tensor, Tensor]:
    """Return the enlarged filling of the reduced image, and its refinement at full size.

    The enlarged filling stays where a tile has hardly any known pixel to copy from, and everywhere if the generator has
    no second stage.

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
    known = _resize(1 - hole, height, width)
    small = _resize(image * (1 - hole), height, width) / known.clamp_min(1e-3)  # the mean of the known pixels alone
    small, small_hole = small.clamp(-1, 1), (known < 0.5).float()
    filled = complete(generator, small, small_hole).prediction
    enlarged = _resize(composite(small, filled, small_hole), h, w)
    if not isinstance(generator, Generator):
        return enlarged, enlarged
    return enlarged, _refined(generator, image, hole, enlarged, pixels, progress)


@torch.no_grad()
def _refined(
    generator: Generator, image: Tensor, hole: Tensor, enlarged: Tensor, pixels: int, progress: bool
) -> Tensor:
    h, w = image.shape[-2:]
    size = min(_LARGEST_TILE, int(math.sqrt(pixels)) // 8 * 8)
    total, weights = torch.zeros_like(image), torch.zeros_like(hole)
    parts = [(..., *box.slices) for box in tiles(Rectangle(0, 0, h, w), size, _OVERLAP)]
    parts = [part for part in parts if bool(hole[part].any())]
    for part in tqdm(parts, desc="refining", unit="tile", disable=not progress, leave=False):
        mask, guess = hole[part], enlarged[part]
        if 1 - mask.mean() >= _LEAST_KNOWN:
            padded = mirrored(mask)
            stage_input = composite(mirrored(image[part] * (1 - mask)), mirrored(guess), padded)
            guess = generator.refinement_network(stage_input, padded)[0][..., : guess.shape[-2], : guess.shape[-1]]
        rows, columns = (_ramp(side, length).to(image.device) for side, length in zip(part[1:], (h, w), strict=True))
        ramp = rows[:, None] * columns
        total[part] += guess * ramp
        weights[part] += ramp
    return torch.where(weights > 0, total / weights.clamp_min(1e-6), enlarged)


def _ramp(side: slice, length: int) -> Tensor:
    """Return weights along a tile's side that fall to its ends, but not where an end is the image's own."""
    place = torch.arange(side.stop - side.start, dtype=torch.float32) + 1
    rising = (place / _OVERLAP).clamp(max=1)
    first, last = (rising if end else torch.ones_like(rising) for end in (side.start > 0, side.stop < length))
    return torch.minimum(first, last.flip(0))


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    """Return images (B, C, H, W) resampled to another size, without aliasing."""
    smaller = height < image.shape[-2]
    return F.interpolate(image, size=(height, width), mode="bilinear", antialias=smaller, align_corners=False)
