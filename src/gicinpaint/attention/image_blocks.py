"""The blocks of a few images that are walked together, and what is kept of them for the gradient."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gicinpaint.attention.corners import UsedCorners, around_corners, corner_grid, corner_stride
from gicinpaint.attention.diagonals import Workspace
from gicinpaint.attention.matching import Matching, StripMatcher
from gicinpaint.attention.pasting import BlockPaster
from gicinpaint.attention.scores import SMALLEST_NORM, key_norm
from gicinpaint.attention.windows import Span

BLOCK_NUMBERS = 3 * 2**19  # scores per block: 6 MB in float32, so that the few blocks in use stay in the cache
FEWEST_ROWS = 4  # the rows that a block hands on to the next one would outweigh fewer
WIDEST = 128  # columns: wider grids are walked in strips, so that a block's memory is linear in the keys
NARROWER = 64  # columns of such strips
KEPT_NUMBERS = 2**24  # 64 MB in float32: up to there a batch keeps its blocks for the gradient
NEGLIGIBLE = 2.0**-80  # attention below this is set to 0: products of smaller numbers are denormal and slow


class Tiles(NamedTuple):
    """How the queries of an image are cut.

    Attributes:
        rows: Most rows of a block.
        columns: Strips of columns, each walked from top to bottom.
    """

    rows: int
    columns: list[Span]

    @classmethod
    def of(
        cls, foreground: Tensor, background: Tensor, block_rows: int | None, block_columns: int | None, batch: int = 1
    ) -> "Tiles":
        """Return what was asked for, or what suits the sizes of that many images: few whole rows, or parts of them."""
        (h, w), keys = foreground.shape[-2:], background.shape[-2] * background.shape[-1]
        strips = -(-w // (block_columns or (w if w <= WIDEST else NARROWER)))
        columns = [Span(i * w // strips, (i + 1) * w // strips) for i in range(strips)]
        rows = block_rows or max(FEWEST_ROWS, BLOCK_NUMBERS // (batch * columns[-1].size * keys))
        return cls(min(h, rows), columns)


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
    def like(cls, foreground: Tensor, background: Tensor, tiles: Tiles, keep: bool) -> "Kept":
        """Return memory for a batch, or empty tensors if nothing is to be kept or it is too much."""
        (batch, _, h, w), keys = foreground.shape, background.shape[-2] * background.shape[-1]
        small = 2 * batch * h * w * keys <= KEPT_NUMBERS and tiles.rows == h and len(tiles.columns) == 1
        shape = (batch, h * w, keys) if keep and small else (0,)
        dtype = torch.promote_types(foreground.dtype, torch.float32)
        return cls(foreground.new_empty(shape, dtype=dtype), foreground.new_empty(shape, dtype=dtype))

    def of(self, part: slice) -> "Kept | None":
        """Return what belongs to some images, or None if nothing was kept."""
        return Kept(self.attention[part], self.matched[part]) if self.attention.numel() else None


class ImageBlocks:
    """What all blocks of a few images share, and the strips of columns that their queries are walked in."""

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
        self.matching = Matching(foreground, background, softmax_scale / self.norm, patch_size, propagation_size, space)
        self.keep = valid.flatten(1).to(foreground.dtype)  # (B or 1, keys)
        self.used = UsedCorners(valid, space)

    def strips(self, tiles: Tiles, kept: Kept | None = None) -> Iterator["Strip"]:
        """Yield the strips from the first to the last column."""
        for columns in tiles.columns:
            yield Strip(self, columns, tiles.rows, kept)

    def corners(self, name: str, features: Tensor, rate: int, factor: float = 1.0) -> Tensor:
        """Return `around_corners` of full-size features in the named piece of memory."""
        batch, c, h, w = features.shape
        out = self.space.take(name, batch, c * rate**2, corner_stride((h // rate, w // rate)))
        return around_corners(features, rate, out, factor)

    def values(self, features: Tensor, rate: int) -> Tensor:
        """Return the values around used corners, (B, C * rate^2, used.stride)."""
        whole = self.corners("values" if self.used.runs is None else "first", features, rate)
        return self.used.compact(whole, "values")


class Strip:
    """The blocks of some columns of the queries: what the two directions share."""

    def __init__(self, images: ImageBlocks, columns: Span, block_rows: int, kept: Kept | None) -> None:
        matching = images.matching
        self.images, self.columns, self.space, self.block_rows = images, columns, images.space, block_rows
        self.grid = matching.height, columns.size
        self.whole = columns == (0, matching.width)
        self.matcher = StripMatcher(matching, columns, block_rows, kept.matched if kept else None)
        key_grid = matching.key_height, matching.key_width
        self.paster = BlockPaster(self.grid, key_grid, matching.batch, images.used, images.space)

    def blocks(self) -> Iterator[Span]:
        """Yield the blocks of rows, from the first to the last."""
        self.paster.start(self.block_rows)
        for start in range(0, self.grid[0], self.block_rows):
            yield Span(start, min(self.grid[0], start + self.block_rows))

    def attention(self, rows: Span, kept: Kept | None) -> Tensor:
        """Return the attention of some rows before placing, where it is kept or in the piece "first"."""
        scores, keep = self.matcher.scores(rows), self.images.keep[:, None]
        logits = torch.mul(scores, keep, out=self.space.take("second", *scores.shape))
        out = self.space.take("first", *scores.shape) if kept is None else kept.attention
        return torch.softmax(logits, dim=-1, out=out)

    def recall(self, rows: Span, kept: Kept | None) -> Tensor:
        """Return the attention of some rows, negligible numbers as 0: what is kept, or made again."""
        if kept is not None:
            self.matcher.matched.advance(rows)  # it lies there since the forward pass
            return kept.attention
        return F.threshold(self.attention(rows, None), NEGLIGIBLE, 0.0, inplace=True)

    def corner_columns(self, corners: Tensor) -> Tensor:
        """Return the view of this strip's corners in those of the whole grid: (B, numbers, h + 1, columns + 1)."""
        grid = self.grid[0], self.images.matching.width
        return corner_grid(corners, grid)[..., self.columns.start : self.columns.stop + 1]

    def corners(self, whole: Tensor, copy: bool = False) -> Tensor:
        """Return memory for this strip's corners, (B, numbers, corner_stride): that of all if it has all columns.

        Args:
            whole: Numbers for the corners of the whole grid.
            copy: Whether the memory is filled with these numbers.
        """
        if self.whole:
            return whole
        corners = self.space.take("strip corners", *whole.shape[:2], corner_stride(self.grid))
        if copy:
            corner_grid(corners, self.grid).copy_(self.corner_columns(whole))
        return corners

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
