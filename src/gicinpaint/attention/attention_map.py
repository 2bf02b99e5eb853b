"""The attention map of one patch, and offsets in the colours of optical flow or as arrows."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gicinpaint.attention.factorized import FactorizedAttention, propagated
from gicinpaint.attention.layer import ContextualAttention
from gicinpaint.attention.reference import (
    cut_window,
    first_key,
    key_norm,
    masked_softmax,
    widened,
    without_autocast,
)

_SEGMENTS = (15, 6, 4, 11, 13, 6)  # red-yellow, yellow-green, green-cyan, cyan-blue, blue-magenta, magenta-red


@dataclass(frozen=True)
class AttentionCall:
    """What a backend was called with: enough to compute the attention of any one query again."""

    foreground: Tensor  # shrunk features to fill, (B, C, h, w)
    background: Tensor  # shrunk features to copy from, (B, C, hb, wb)
    valid: Tensor  # keys that may be copied from, bool (B or 1, hb, wb)
    patch_size: int
    propagation_size: int  # 1 where scores are not propagated
    softmax_scale: float
    stride: int = 1

    @torch.no_grad()
    def row(self, image: int, query: tuple[int, int]) -> Tensor:
        """Return how much a cell takes from every key of its image.

        The memory is that of a few scores per key for each query around the cell, 7 x 7 of them by default.

        Args:
            image: Number of the image within the batch.
            query: Row and column of the cell on the shrunk grid.

        Returns:
            (hb, wb), [0, 1]; the sum is at most 1, see `masked_softmax`.

        Raises:
            ValueError: If there is no such image or cell.
        """
        b, _, h, w = self.foreground.shape
        if not (0 <= image < b and 0 <= query[0] < h and 0 <= query[1] < w):
            raise ValueError(
                f"image and query must lie in 0..{b - 1} and in the grid of {h}x{w} cells, got image {image}, "
                f"cell {tuple(query)}; a cell is 8 pixels of the image wide in the paper's networks"
            )
        with without_autocast(self.foreground):
            queries, keys = widened(self.foreground[image : image + 1], self.background[image : image + 1])
            row, column = (range(place, place + 1) for place in query)
            reach = self.propagation_size // 2 * self.stride
            queries, top, left = cut_window(queries, row, column, self.patch_size, reach)
            scores = FactorizedAttention().match(queries, keys, self.patch_size) / key_norm(keys, self.patch_size)
            first = first_key(keys.shape[-2:], self.patch_size, self.stride)
            rows, columns = (slice(start, None, self.stride) for start in first)
            scores = propagated(scores[..., rows, columns], self.propagation_size, self.stride)[:, top, left]
            valid = self.valid[image if len(self.valid) > 1 else 0][rows, columns]
            weights = masked_softmax(scores.flatten(1)[:, None], valid.reshape(1, -1), self.softmax_scale)
            attention = scores.new_zeros(keys.shape[-2:])
            attention[rows, columns] = weights.reshape(valid.shape)
        return attention


@contextmanager
def overhear(attention: ContextualAttention) -> Iterator[list[AttentionCall]]:
    """Record what a layer's backend is called with, for a window with the whole foreground, while the context lasts.

    Example:
        >>> import torch
        >>> attention, features = ContextualAttention(), torch.ones(1, 2, 8, 8)
        >>> with overhear(attention) as calls:
        ...     _ = attention(features)
        >>> calls[0].row(0, (1, 2)).sum()
        tensor(1.)
    """
    calls = list[AttentionCall]()
    length = attention.propagation_size if attention.propagate else 1

    def note(layer: ContextualAttention, inputs: Any, options: dict[str, Any], _: Any) -> None:
        options = {name: value for name, value in options.items() if name in ("background", "mask")}
        queries, keys, valid = layer.prepare(*inputs[:3], **options)
        settings = layer.patch_size, length, layer.softmax_scale, layer.stride
        calls.append(AttentionCall(queries.detach(), keys.detach(), valid, *settings))

    hook = attention.register_forward_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def relative_offset(offset: Tensor) -> Tensor:
    """Return offsets counted from each patch's own position, int64, from absolute ones, (B, 2, H, W)."""
    h, w = offset.shape[-2:]
    rows, columns = torch.arange(h, device=offset.device), torch.arange(w, device=offset.device)
    return offset.long() - torch.stack(torch.meshgrid(rows, columns, indexing="ij"))


def colour_offset(relative: Tensor, largest: Tensor | None = None, rate: int = 1) -> Tensor:
    """Colour offsets: the hue is their direction, the saturation their length.

    Args:
        relative: Offsets from each patch's own position, as (row, column) in feature cells.
        largest: Length that gets full saturation, per image; by default each image's longest offset. The released
            code uses the longest one so far in the batch.
        rate: How many pixels a cell becomes along each axis.

    Shape:
        - relative: (B, 2, H, W)
        - largest: (B,)
        - returned: (B, 3, rate * H, rate * W), [-1, 1], in 256 levels

    Source:
        Released code, `flow_to_image_tf`, with the colour wheel of Baker et al. 2007. Differs from the released code:
        each image has its own scale unless `largest` says otherwise.
    """
    row, column = relative.double().unbind(1)
    length = torch.hypot(row, column)
    if largest is None:
        largest = length.flatten(1).amax(1)
    length = length / (largest.double()[:, None, None] + torch.finfo(torch.float64).eps)
    wheel = _wheel().to(relative.device)
    place = (torch.atan2(-column, -row) / torch.pi + 1) / 2 * (len(wheel) - 1)
    below = place.floor().long()
    share = (place - below)[..., None]
    hue = (1 - share) * wheel[below] + share * wheel[(below + 1) % len(wheel)]  # (B, H, W, 3)
    length = length[..., None]
    colour = torch.where(length <= 1, 1 - length * (1 - hue), 0.75 * hue)
    levels = (255 * colour).floor().movedim(-1, 1)
    return F.interpolate((levels / 127.5 - 1).float(), scale_factor=rate, mode="nearest")


def colour_legend(size: int = 64) -> Tensor:
    """Return the wheel that explains the colours: each pixel shows an offset from the middle to itself.

    It is (3, size, size), [-1, 1], white outside the circle.
    """
    axis = torch.linspace(-1, 1, size, dtype=torch.float64)
    relative = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))[None]
    colours = colour_offset(relative, largest=torch.ones(1))[0]
    return torch.where(relative[0].norm(dim=0) <= 1, colours, 1.0)


def hole_arrows(offset: Tensor, mask: Tensor, every: int = 1) -> list[Tensor]:
    """Return arrows from the patches of each image's hole to where they were copied from.

    A cell of the offset's grid belongs to the hole where at least half of its pixels do.

    Shape:
        - offset: (B, 2, h, w), absolute (row, column) of each patch's source
        - mask: (B, 1, H, W), {0, 1}; 1 = hole
        - every: take every n-th row and column of the grid
        - returned: for each image (arrows, 2, 2), float64: the middle of the patch, then that of its source, each
          as (row, column) in pixels, where whole numbers are middles of pixels; in row-major order of the patches

    Example:
        >>> import torch
        >>> mask = torch.zeros(1, 1, 8, 16)
        >>> mask[..., 8:] = 1  # the second of two cells, copied from the first
        >>> hole_arrows(torch.zeros(1, 2, 1, 2, dtype=torch.int64), mask)
        [tensor([[[ 3.5000, 11.5000],
                 [ 3.5000,  3.5000]]], dtype=torch.float64)]
    """
    (h, w), (height, width) = offset.shape[-2:], mask.shape[-2:]
    size = torch.tensor([height / h, width / w], dtype=torch.float64)
    share = F.adaptive_avg_pool2d(mask.double(), (h, w))[:, 0].cpu()
    wanted = torch.zeros(h, w, dtype=torch.bool)
    wanted[every // 2 :: every, every // 2 :: every] = True
    arrows = []
    for sources, hole in zip(offset.cpu(), share >= 0.5, strict=True):
        cells = (hole & wanted).nonzero()  # (arrows, 2)
        ends = torch.stack([cells, sources[:, cells[:, 0], cells[:, 1]].t()], dim=1)
        arrows.append((ends + 0.5) * size - 0.5)
    return arrows


def _wheel() -> Tensor:
    """The 55 hues of the wheel, (55, 3), [0, 1]: one channel rises or falls along each segment."""
    colour, hues = [255.0, 0.0, 0.0], []
    for length, channel in zip(_SEGMENTS, (1, 0, 2, 1, 0, 2), strict=True):
        start = colour[channel]
        for step in range(length):
            colour[channel] = abs(start - 255 * step // length)
            hues.append(list(colour))
        colour[channel] = 255 - start
    return torch.tensor(hues, dtype=torch.float64) / 255
