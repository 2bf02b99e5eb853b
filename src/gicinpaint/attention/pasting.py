"""Pasting a block of attention rows, and the way back to attention and values.

Patches of 2 * rate cells overlap by half, so every cell of the output lies on four of them: those of the four
queries around a corner of the query grid. All cells around one corner use the same sum of four diagonal neighbours
of the attention, and they meet the values around a corner of the key grid. Hence: cut the full-size features into
the squares around the corners (one more per axis than cells), sum the attention, and do one product.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from gicinpaint.attention import fused
from gicinpaint.attention.diagonals import Workspace, multiply
from gicinpaint.attention.fused import compiled
from gicinpaint.attention.matching import Rows


def corner_stride(grid: Sequence[int]) -> int:
    """Return the length of a row of numbers for every corner, rounded up: products like rows that start aligned."""
    return -(-(grid[0] + 1) * (grid[1] + 1) // 16) * 16


def around_corners(features: Tensor, rate: int, out: Tensor, factor: float = 1.0) -> Tensor:
    """Write the cells around every corner of the shrunk grid, times a factor, zero outside.

    Args:
        features: Full-size features.
        rate: Cells of the full-size grid per cell of the shrunk one.
        out: Where to write.
        factor: Factor on the features.

    Shape:
        - features: (B, C, rate * h, rate * w)
        - out, returned: (B, C * rate^2, corner_stride(h, w))
    """
    out.zero_()
    for cells, squares in _paired_cells(features, rate, out):
        torch.mul(cells, factor, out=squares)
    return out


def from_corners(corners: Tensor, rate: int, out: Tensor, factor: float = 1.0) -> None:
    """Write full-size features from the cells around every corner, times a factor: the inverse of `around_corners`.

    Shape:
        - corners: (B, C * rate^2, corner_stride(h, w))
        - out: (B, C, rate * h, rate * w)
    """
    for cells, squares in _paired_cells(out, rate, corners):
        if cells.dtype == squares.dtype:
            torch.mul(squares, factor, out=cells)
        else:
            cells.copy_(squares * factor)


def _paired_cells(features: Tensor, rate: int, corners: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Return views of the same cells, (B, C, h, w), in both arrangements, for each cell of a square."""
    h, w = features.shape[-2] // rate, features.shape[-1] // rate
    squares = corners[..., : (h + 1) * (w + 1)].unflatten(2, (h + 1, w + 1)).unflatten(1, (-1, rate, rate))
    before = rate // 2  # patches start so many cells early: TensorFlow's 'SAME' puts the smaller half first
    for i, j in product(range(rate), repeat=2):
        # Cell i of a square is before the corner, in the grid cell above it, or after it.
        y, x = int(i < before), int(j < before)
        cells = features[:, :, (i - before) % rate :: rate, (j - before) % rate :: rate]
        yield cells, squares[:, :, i, j, y : y + h, x : x + w]


class BlockPaster:
    """Sums of values, weighted by attention, for any rows of queries.

    Attention lies on grids with one more column (and for keys one more row) of zeros, so that it has a place for
    every corner, and a step along a row never meets the next row.

    Args:
        query_grid: Height and width of the query grid.
        key_grid: Height and width of the key grid.
        batch: Number of images.
        space: Memory for the blocks; the pieces "first" and "second" are overwritten.
    """

    def __init__(self, query_grid: Sequence[int], key_grid: Sequence[int], batch: int, space: Workspace) -> None:
        self.height, self.corner_width = query_grid[0], query_grid[1] + 1
        self.key_grid, self.batch, self.space = (key_grid[0], key_grid[1]), batch, space
        self.key_corner_width = key_grid[1] + 1
        self.key_corners = corner_stride(key_grid)

    def start(self, block_rows: int) -> None:
        """Take memory for blocks of at most so many rows."""
        rows = min(block_rows, self.height)
        self.window = self.space.take("window", self.batch, (rows + 2) * self.corner_width, self.key_corners).zero_()
        self.filled = 0

    def place(self, attention: Tensor, keep: Tensor, rows: Rows) -> Tensor:
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

    def summed(self, rows: Rows) -> tuple[slice, Tensor]:
        """Return the corners that the placed rows complete, and the sums of attention there.

        They are the corners above the rows; the last rows complete those below them too.

        Shape:
            - returned: (B, corners, key corners) in the piece "second"
        """
        lines = rows.size + (rows.stop == self.height)
        window = self._window_rows(0, 1 + lines)
        step, key_step = self.corner_width, self.key_corner_width
        out = self.space.take("second", self.batch, lines * step, self.key_corners)
        completed = slice(rows.start * step, (rows.start + lines) * step)
        if self.space.fuse:
            compiled(fused.corners)(window, out, step, key_step)
            return completed, out
        along = self.space.take("first", *window.shape)
        along[:, 0] = window[:, 0]
        along[..., 0] = window[..., 0]
        torch.add(window[:, 1:, 1:], window[:, :-1, :-1], out=along[:, 1:, 1:])
        out[..., :key_step] = along[:, step:, :key_step]
        torch.add(along[:, step:, key_step:], along[:, :-step, :-key_step], out=out[..., key_step:])
        return completed, out

    def attention_gradient(self, grad: Tensor, values: Tensor, rows: Rows, name: str) -> Tensor:
        """Return the gradient of some rows' attention, where `place` puts attention.

        Args:
            grad: Gradient of the output around the corners.
            values: Values around the corners.
            rows: Rows of queries.
            name: Piece of memory for the gradient.

        Shape:
            - grad: (B, C * rate^2, corners)
            - values: (B, C * rate^2, key corners)
            - returned: (B, rows * (w + 1), key corners) in the named piece; meaningless outside the grids
        """
        step, key_step = self.corner_width, self.key_corner_width
        corners = self.space.take("first", self.batch, (rows.size + 1) * step, self.key_corners)
        multiply(grad[..., rows.start * step : (rows.stop + 1) * step].mT, values, corners)
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
