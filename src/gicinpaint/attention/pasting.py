"""Pasting a block of attention rows, and the way back to attention and values.

Patches of 2 * rate cells overlap by half, so every cell of the output lies on four of them: those of the four
queries around a corner of the query grid. All cells around one corner use the same sum of four diagonal neighbours
of the attention, and they meet the values around a corner of the key grid. Hence: cut the full-size features into
the squares around the corners (one more per axis than cells), sum the attention, and do one product.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gicinpaint.attention import fused
from gicinpaint.attention.corners import UsedCorners, corner_stride
from gicinpaint.attention.diagonals import Workspace, multiply
from gicinpaint.attention.fused import compiled
from gicinpaint.attention.windows import Span


class BlockPaster:
    """Sums of values, weighted by attention, for any rows of queries.

    Attention lies on grids with one more column (and for keys one more row) of zeros, so that it has a place for
    every corner, and a step along a row never meets the next row.

    Args:
        query_grid: Height and width of the query grid.
        key_grid: Height and width of the key grid.
        batch: Number of images.
        used: The corners of the key grid that are multiplied.
        space: Memory for the blocks; the pieces "first" and "second" are overwritten.
    """

    def __init__(
        self, query_grid: Sequence[int], key_grid: Sequence[int], batch: int, used: UsedCorners, space: Workspace
    ) -> None:
        self.height, self.corner_width = query_grid[0], query_grid[1] + 1
        self.key_grid, self.batch, self.used, self.space = (key_grid[0], key_grid[1]), batch, used, space
        self.key_corner_width = key_grid[1] + 1
        self.key_corners = corner_stride(key_grid)

    def start(self, block_rows: int) -> None:
        """Take memory for blocks of at most so many rows."""
        rows = min(block_rows, self.height)
        self.window = self.space.take("window", self.batch, (rows + 2) * self.corner_width, self.key_corners).zero_()
        self.filled = 0

    def place(self, attention: Tensor, keep: Tensor, rows: Span) -> Tensor:
        """Put the attention of the next rows in the window, without that to invalid keys, and return it there.

        Args:
            attention: Attention of the rows that follow those of the last call.
            keep: 1 for keys that may be copied from, else 0.
            rows: Rows of queries.

        Shape:
            - attention: (B, rows * w, keys)
            - keep: (B or 1, keys)
            - returned: (B, rows * (w + 1), key corners); 0 outside the grids
        """
        self.window[:, : self.corner_width] = self._window_rows(self.filled, self.filled + 1)
        self.filled = rows.size
        inside = self._window_rows(1, 1 + rows.size)
        torch.mul(
            attention.unflatten(2, self.key_grid).unflatten(1, (-1, self.corner_width - 1)),
            keep.unflatten(1, self.key_grid)[:, None, None],
            out=self.bare(inside),
        )
        if rows.stop == self.height:
            self._window_rows(1 + rows.size, 2 + rows.size).zero_()
        return inside

    def summed(self, rows: Span) -> tuple[slice, Tensor]:
        """Return the corners that the placed rows complete, and the sums of attention there.

        They are the corners above the rows; the last rows complete those below them too.

        Shape:
            - returned: (B, corners, used key corners), in the piece "second" if all are used
        """
        lines = rows.size + (rows.stop == self.height)
        window = self._window_rows(0, 1 + lines)
        step, key_step = self.corner_width, self.key_corner_width
        out = self.space.take("second", self.batch, lines * step, self.key_corners)
        completed = slice(rows.start * step, (rows.start + lines) * step)
        if self.space.fuse:
            compiled(fused.corners)(window, out, step, key_step)
            return completed, self.used.compact(out, "weights")
        along = self.space.take("first", *window.shape)
        along[:, 0] = window[:, 0]
        along[..., 0] = window[..., 0]
        torch.add(window[:, 1:, 1:], window[:, :-1, :-1], out=along[:, 1:, 1:])
        out[..., :key_step] = along[:, step:, :key_step]
        torch.add(along[:, step:, key_step:], along[:, :-step, :-key_step], out=out[..., key_step:])
        return completed, self.used.compact(out, "weights")

    def attention_gradient(self, grad: Tensor, values: Tensor, rows: Span, name: str) -> Tensor:
        """Return the gradient of some rows' attention, where `place` puts attention.

        Args:
            grad: Gradient of the output around the corners.
            values: Values around the corners.
            rows: Rows of queries.
            name: Piece of memory for the gradient.

        Shape:
            - grad: (B, C * rate^2, corners)
            - values: (B, C * rate^2, used key corners)
            - returned: (B, rows * (w + 1), key corners) in the named piece; meaningless outside the grids
        """
        step, key_step = self.corner_width, self.key_corner_width
        size, every = (rows.size + 1) * step, self.used.runs is None
        compact = self.space.take("first" if every else "weights", self.batch, size, self.used.stride)
        multiply(grad[..., rows.start * step : (rows.stop + 1) * step].mT, values, compact)
        corners = self.used.expand(compact, "first")
        out = self.space.take(name, self.batch, rows.size * step, self.key_corners)
        if self.space.fuse:
            compiled(fused.corner_gradient)(corners, out, step, key_step)
            return out
        along = self.space.take("second", *corners.shape)
        along[:, -1] = 0
        along[..., -1] = 0
        torch.add(corners[:, :-1, :-1], corners[:, 1:, 1:], out=along[:, :-1, :-1])
        out[..., -key_step:] = 0
        torch.add(along[:, :-step, :-key_step], along[:, step:, key_step:], out=out[..., :-key_step])
        return out

    def bare(self, block: Tensor) -> Tensor:
        """Return the cells inside both grids: (B, rows, w, hb, wb)."""
        keys = block[..., : (self.key_grid[0] + 1) * self.key_corner_width]
        grids = keys.unflatten(2, (-1, self.key_corner_width)).unflatten(1, (-1, self.corner_width))
        return grids[:, :, :-1, :-1, :-1]

    def _window_rows(self, start: int, stop: int) -> Tensor:
        return self.window[:, start * self.corner_width : stop * self.corner_width]
