"""The blocks of a few images that are walked together, and what is kept of them for the gradient."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gicinpaint.attention.diagonals import Workspace
from gicinpaint.attention.matching import BlockMatcher, Rows
from gicinpaint.attention.pasting import BlockPaster, around_corners, corner_stride
from gicinpaint.attention.scores import SMALLEST_NORM, key_norm

BLOCK_NUMBERS = 2**21  # scores per block: 8 MB in float32, so that the few blocks in use stay in the cache
FEWEST_ROWS = 4  # the rows above and below that a block also matches would outweigh fewer
KEPT_NUMBERS = 2**24  # 64 MB in float32: up to there a batch keeps its blocks for the gradient
NEGLIGIBLE = 2.0**-80  # attention below this is set to 0: products of smaller numbers are denormal and slow


class Kept(NamedTuple):
    """What the forward pass of a small batch keeps for the gradient; both empty for a large one.

    Two tensors, because the C library returns a single large one to the system and then pays for fresh pages.

    Attributes:
        attention: Attention before placing, (B, h * w, keys).
        matched: Matched scores, of the same shape.
    """

    attention: Tensor
    matched: Tensor

    @classmethod
    def like(cls, foreground: Tensor, background: Tensor, block_rows: int | None, keep: bool) -> "Kept":
        """Return memory for a batch, or empty tensors if nothing is to be kept or it is too much."""
        (batch, _, h, w), keys = foreground.shape, background.shape[-2] * background.shape[-1]
        small = 2 * batch * h * w * keys <= KEPT_NUMBERS and rows_per_block(1, h, w * keys, block_rows) == h
        shape = (batch, h * w, keys) if keep and small else (0,)
        dtype = torch.promote_types(foreground.dtype, torch.float32)
        return cls(foreground.new_empty(shape, dtype=dtype), foreground.new_empty(shape, dtype=dtype))

    def of(self, part: slice) -> "Kept | None":
        """Return what belongs to some images, or None if nothing was kept."""
        return Kept(self.attention[part], self.matched[part]) if self.attention.numel() else None


class ImageBlocks:
    """The blocks of a few images: what the two directions share."""

    def __init__(
        self,
        foreground: Tensor,
        background: Tensor,
        valid: Tensor,
        patch_size: int,
        propagation_size: int,
        softmax_scale: float,
        space: Workspace,
    ) -> None:
        self.norm = key_norm(background, patch_size)
        self.space = space
        self.matcher = BlockMatcher(
            foreground, background, softmax_scale / self.norm, patch_size, propagation_size, space
        )
        self.paster = BlockPaster(foreground.shape[-2:], background.shape[-2:], len(foreground), space)
        self.keep = valid.flatten(1).to(foreground.dtype)  # (B or 1, keys)

    def blocks(self, block_rows: int | None) -> Iterator[Rows]:
        """Yield the blocks of rows, from the first to the last."""
        matcher = self.matcher
        count = rows_per_block(matcher.batch, matcher.height, matcher.width * matcher.key_count, block_rows)
        self.paster.start(count)
        for start in range(0, matcher.height, count):
            yield Rows(start, min(matcher.height, start + count))

    def attention(self, rows: Rows, kept: Kept | None, matched_name: str) -> tuple[Tensor, Tensor]:
        """Return the attention of some rows before placing, and the matched scores it came from.

        Args:
            rows: Rows of queries.
            kept: Where to put both, or None for the workspace.
            matched_name: Piece of memory for matched scores; "second" if they need not outlive the softmax.
        """
        if kept is not None:
            matched_name = "kept"
            self.space.pieces["kept"] = kept.matched.view(-1)
        scores, matched = self.matcher.scores(rows, matched_name)
        self.space.pieces.pop("kept", None)  # it is not the workspace's
        logits = torch.mul(scores, self.keep[:, None], out=self.space.take("second", *scores.shape))
        out = self.space.take("first", *scores.shape) if kept is None else kept.attention
        return torch.softmax(logits, dim=-1, out=out), matched

    def corners(self, name: str, features: Tensor, rate: int, factor: float = 1.0) -> Tensor:
        """Return `around_corners` of full-size features in the named piece of memory."""
        batch, c, h, w = features.shape
        out = self.space.take(name, batch, c * rate**2, corner_stride((h // rate, w // rate)))
        return around_corners(features, rate, out, factor)

    def softmax_gradient(self, attention: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of scaled scores, (B, rows * w, keys), from that of the attention, both as placed."""
        weighted = torch.mul(attention, grad, out=self.space.take("third", *grad.shape))
        total = weighted.sum(dim=-1).unflatten(1, (-1, self.paster.corner_width))[:, :, :-1, None, None]
        attention, weighted = self.paster.bare(attention), self.paster.bare(weighted)
        out = self.space.take("gradient", *weighted.shape)
        torch.addcmul(weighted, attention, total, value=-1, out=out)
        return out.flatten(3).flatten(1, 2)


def norm_gradient(background: Tensor, norm: Tensor, grad_log_norm: Tensor, patch_size: int) -> Tensor:
    """Return the background's gradient through the norms; a norm at its floor is constant."""
    grad_energy = torch.where(norm > SMALLEST_NORM, grad_log_norm / norm.square(), 0)[:, None]  # twice, as is its cell
    spread = F.avg_pool2d(grad_energy, patch_size, stride=1, padding=patch_size // 2) * patch_size**2
    return background * spread


def rows_per_block(batch: int, height: int, row_numbers: int, block_rows: int | None) -> int:
    """Return the rows of queries per block; row_numbers is the count of scores of one row."""
    return min(height, block_rows or max(FEWEST_ROWS, BLOCK_NUMBERS // (batch * row_numbers)))


def image_groups(foreground: Tensor, background: Tensor, block_rows: int | None) -> list[slice]:
    """Return which images are walked together: one on a CPU, as many as fill a large block on an accelerator."""
    (batch, _, h, w), keys = foreground.shape, background.shape[-2] * background.shape[-1]
    group = 1
    if foreground.device.type != "cpu":
        group = max(1, BLOCK_NUMBERS // (w * keys * min(h, block_rows or h)))
    return [slice(i, min(batch, i + group)) for i in range(0, batch, group)]


def valid_of(valid: Tensor, part: slice) -> Tensor:
    """Return the valid keys of some images; one map may serve all."""
    return valid if len(valid) == 1 else valid[part]
