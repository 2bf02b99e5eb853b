"""One row of the attention: how much one chosen cell takes from every key, without the matrix of all cells."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gicinpaint.attention.layer import ContextualAttention
from gicinpaint.attention.reference import key_norm, masked_softmax, widened, without_autocast


@dataclass(frozen=True)
class AttentionCall:
    """What a backend was called with: enough to compute the attention of any one query again.

    Attributes:
        foreground: Shrunk features to fill, (B, C, h, w).
        background: Shrunk features to copy from, (B, C, hb, wb).
        valid: Keys that may be copied from, bool (B or 1, hb, wb).
        patch_size: Height and width of the patches that are matched.
        propagation_size: Length of the diagonal over which scores are propagated; 1 for none.
        softmax_scale: Factor on the scores before the softmax.
    """

    foreground: Tensor
    background: Tensor
    valid: Tensor
    patch_size: int
    propagation_size: int
    softmax_scale: float

    @torch.no_grad()
    def row(self, image: int, query: tuple[int, int]) -> Tensor:
        """Return how much a cell takes from every key of its image.

        A query's propagated score needs those of at most propagation_size^2 queries, so the memory is that of a few
        maps of the keys.

        Args:
            image: Number of the image within the batch.
            query: Row and column of the cell on the shrunk grid.

        Shape:
            - returned: (hb, wb), [0, 1]; the sum is at most 1, see `masked_softmax`

        Raises:
            ValueError: If there is no such image or cell.

        Source:
            Yu et al. 2018, section 4.1, equations 3 and 4; semantics of the released code, as all backends'.
        """
        b, _, h, w = self.foreground.shape
        if not (0 <= image < b and 0 <= query[0] < h and 0 <= query[1] < w):
            raise ValueError(
                f"image and query must lie in 0..{b - 1} and in the grid of {h}x{w} cells, got image {image}, "
                f"cell {tuple(query)}; a cell is 8 pixels of the image wide in the paper's networks"
            )
        with without_autocast(self.foreground):
            foreground, background = widened(self.foreground[image : image + 1], self.background[image : image + 1])
            scores = self._spread(foreground, background, query)
            valid = self.valid[image if len(self.valid) > 1 else 0]
            row = masked_softmax(scores.reshape(1, 1, -1), valid.reshape(1, -1), self.softmax_scale)
        return row.reshape(valid.shape)

    def _spread(self, foreground: Tensor, background: Tensor, query: tuple[int, int]) -> Tensor:
        """Sum along the diagonals of the grids flattened by columns, of those flattened by rows; (hb, wb)."""
        (h, w), (hb, wb) = foreground.shape[-2:], background.shape[-2:]
        matched = _Matcher(foreground, background, self.patch_size)
        reach = self.propagation_size // 2
        total = background.new_zeros(wb * hb)
        for down in _steps(query[1] * h + query[0], h * w, reach):
            column, row = divmod(query[1] * h + query[0] + down, h)
            along = background.new_zeros(hb * wb)
            for right in _steps(row * w + column, h * w, reach):
                along += _shifted(matched(divmod(row * w + column + right, w)).flatten(), right)
            total += _shifted(along.reshape(hb, wb).t().flatten(), down)
        return total.reshape(wb, hb).t()


@contextmanager
def overhear(attention: ContextualAttention) -> Iterator[list[AttentionCall]]:
    """Note what a layer's backend is called with, while the context lasts; the layer's results stay as they are.

    Args:
        attention: The layer.

    Example:
        >>> import torch
        >>> attention, features = ContextualAttention(), torch.ones(1, 2, 8, 8)
        >>> with overhear(attention) as calls:
        ...     _ = attention(features)
        >>> calls[0].row(0, (1, 2)).sum()
        tensor(1.)
    """
    backend, calls = attention.backend, list[AttentionCall]()

    def noting(
        foreground: Tensor, background: Tensor, valid: Tensor, **settings: Any
    ) -> Tensor | tuple[Tensor, Tensor]:
        length = settings["propagation_size"] if settings["propagate"] else 1
        calls.append(
            AttentionCall(
                foreground.detach(),
                background.detach(),
                valid,
                settings["patch_size"],
                length,
                settings["softmax_scale"],
            )
        )
        return backend(foreground, background, valid, **settings)

    attention.backend = noting
    try:
        yield calls
    finally:
        attention.backend = backend


class _Matcher:
    """Products of one query's patch with all normalised key patches."""

    def __init__(self, foreground: Tensor, background: Tensor, patch_size: int) -> None:
        reach = patch_size // 2
        self.padded = F.pad(foreground, (reach, reach, reach, reach))
        self.background = background
        self.norm = key_norm(background, patch_size)[0]
        self.size = patch_size

    def __call__(self, query: tuple[int, int]) -> Tensor:
        row, column = query
        patch = self.padded[..., row : row + self.size, column : column + self.size]
        return F.conv2d(self.background, patch, padding=self.size // 2)[0, 0] / self.norm


def _steps(place: int, count: int, reach: int) -> range:
    """Return the steps from a place that stay inside."""
    return range(-min(reach, place), min(reach, count - 1 - place) + 1)


def _shifted(values: Tensor, steps: int) -> Tensor:
    """Return at every place the value some steps further; 0 outside."""
    return F.pad(values, (-steps, steps))
