"""Overlap-add of attended patches for blocks of query rows, and the way back to attention and values.

Patches of 2 * rate cells overlap by half, so every cell of the output lies on four of them: those of the four
queries around a corner of the query grid. All cells around one corner use the same sum of four diagonal neighbours
of the attention, and they meet the values around a corner of the key grid. Hence: cut the full-size features into
the squares around the corners (one more per axis than cells), sum the attention, and do one product.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from gicinpaint.attention.tiled_blocks import Arena, Keys, Settings, Walk, aligned, multiply, shaped
from gicinpaint.attention.tiled_scores import compiled

SHORTEST_GAP = 8  # corners: copying around a shorter gap costs more than multiplying it
FEWEST_LEFT_OUT = 0.05  # share of the corners from which leaving them out pays for the copies


def corner_count(grid: Sequence[int]) -> int:
    """Return the length of a row of numbers for every corner of a grid, rounded up."""
    return aligned((grid[0] + 1) * (grid[1] + 1))


def corner_grid(corners: Tensor, grid: Sequence[int]) -> Tensor:
    """Return a view of numbers for every corner, (B, numbers, corner_count), as (B, numbers, h + 1, w + 1)."""
    return corners[..., : (grid[0] + 1) * (grid[1] + 1)].unflatten(2, (grid[0] + 1, grid[1] + 1))


def from_corners(corners: Tensor, rate: int, out: Tensor, factor: float = 1.0) -> None:
    """Write full-size features from the cells around every corner, times a factor: the inverse of `Images.squares`."""
    for cells, squares in _paired_cells(out, rate, corners):
        cells.copy_(squares if factor == 1 else squares * factor)


def _paired_cells(features: Tensor, rate: int, corners: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield views of the same cells, (B, C, h, w), in both arrangements, for each cell of a square."""
    h, w = features.shape[-2] // rate, features.shape[-1] // rate
    squares = corner_grid(corners, (h, w)).unflatten(1, (-1, rate, rate))
    before = rate // 2  # patches start so many cells early: TensorFlow's 'SAME' puts the smaller half first
    for i, j in product(range(rate), repeat=2):
        # Cell i of a square is before the corner, in the grid cell above it, or after it.
        y, x = int(i < before), int(j < before)
        cells = features[:, :, (i - before) % rate :: rate, (j - before) % rate :: rate]
        yield cells, squares[:, :, i, j, y : y + h, x : x + w]


class UsedCorners:
    """The corners of the key grid that touch a valid key: nothing is copied from the others."""

    def __init__(self, valid: Tensor) -> None:
        self.count = self.every = corner_count(valid.shape[-2:])
        self.runs: list[slice] | None = None  # None: all corners
        if valid.device.type != "cpu":  # asking an accelerator which they are would make the processor wait for it
            return
        touched = F.max_pool2d(F.pad(valid.any(dim=0, keepdim=True).float(), (1, 1, 1, 1)), 2, stride=1).flatten()
        runs: list[slice] = []
        edges = torch.diff(F.pad(touched, (1, 1))).nonzero()[:, 0].tolist()
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            if runs and start - runs[-1].stop < SHORTEST_GAP:
                start = runs.pop().start
            runs.append(slice(start, stop))
        count = sum(run.stop - run.start for run in runs)
        if count <= (1 - FEWEST_LEFT_OUT) * len(touched):
            self.runs, self.count = runs, aligned(count)

    def compact(self, full: Tensor, out: Tensor) -> Tensor:
        """Return the numbers of used corners, (B, numbers, count), then zeros, in a flat buffer, or full if all are."""
        if self.runs is None:
            return full
        out, place = shaped(out, *full.shape[:2], self.count), 0
        for run in self.runs:
            out[..., place : place + run.stop - run.start] = full[..., run]
            place += run.stop - run.start
        out[..., place:] = 0
        return out

    def expand(self, compact: Tensor, out: Tensor) -> Tensor:
        """Return the numbers of used corners in their places, and zeros between: the inverse of `compact`."""
        if self.runs is None:
            return compact
        out, last, place = shaped(out, *compact.shape[:2], self.every), 0, 0
        for run in self.runs:
            out[..., last : run.start] = 0
            out[..., run] = compact[..., place : place + run.stop - run.start]
            place, last = place + run.stop - run.start, run.stop
        out[..., last:] = 0
        return out


class Images:
    """A few images that are walked together: what all their blocks share."""

    def __init__(
        self,
        foreground: Tensor,
        background: Tensor,
        valid: Tensor,
        values: Tensor,
        settings: Settings,
        softmax_scale: float,
        arena: Arena,
    ) -> None:
        self.foreground, self.arena, self.rate = foreground, arena, settings.rate
        self.keys, self.used = Keys(background, valid, *settings[1:3], softmax_scale), UsedCorners(valid)
        self.compile = bool(settings.compile)
        arena.used = 0
        squares = self.squares(values)
        self.values = self.used.compact(squares, arena.take(squares.numel()))  # (B, C * rate^2, used.count)

    def squares(self, features: Tensor, factor: float = 1.0) -> Tensor:
        """Return the cells around every corner of the shrunk grid, (B, C * rate^2, corner_count), times a factor."""
        batch, c, height, width = features.shape
        grid = height // self.rate, width // self.rate
        out = self.arena.take(batch, c * self.rate**2, corner_count(grid)).zero_()
        for cells, squares in _paired_cells(features, self.rate, out):
            torch.mul(cells, factor, out=squares)
        return out


class OverlapAdd:
    """Sums of attention at corners, for blocks of query rows from the first to the last.

    Attention lies on grids with one more column (and for keys one more row) of zeros, so that it has a place for
    every corner, and a step along a row never meets the next row.
    """

    def __init__(self, batch: int, grid: tuple[int, int], walk: Walk, used: UsedCorners) -> None:
        self.height, self.step, keys = grid[0], grid[1] + 1, walk.keys  # positions of the query axis per row
        self.key_grid, self.key_step, self.keep = (keys.height, keys.width), keys.width + 1, keys.keep
        self.batch, self.used, self.scratch, self.compile = batch, used, walk.scratch, walk.compile
        rows = min(walk.rows, self.height) + 2
        self.window = walk.arena.take(batch, rows, self.step, used.every).zero_()
        self.filled = 0

    def place(self, attention: Tensor, rows: range) -> Tensor:
        """Place the attention of the next rows to valid keys, (B, rows * w, keys), as (B, rows, w + 1, key corners)."""
        self.window[:, 0] = self.window[:, self.filled]
        self.filled = len(rows)
        inside = self.window[:, 1 : 1 + len(rows)]
        grids = attention.unflatten(2, self.key_grid).unflatten(1, (len(rows), -1))
        torch.mul(grids, self.keep.unflatten(1, self.key_grid)[:, None, None], out=self.bare(inside))
        if rows.stop == self.height:
            self.window[:, 1 + len(rows)].zero_()
        return inside

    def summed(self, rows: range) -> tuple[slice, Tensor]:
        """Return the corners that the placed rows complete, those above them, and the sums there.

        The sums are (B, corners, used key corners); the last rows complete the corners below them too.
        """
        lines = len(rows) + (rows.stop == self.height)
        window = self.window[:, : 1 + lines].flatten(1, 2)
        step, key_step = self.step, self.key_step
        out = shaped(self.scratch.second, self.batch, lines * step, window.shape[2])
        if self.compile:
            compiled(corner_sums)(window, out, step, key_step)
        else:
            along = shaped(self.scratch.first, *window.shape)
            along[:, 0] = window[:, 0]
            along[..., 0] = window[..., 0]
            torch.add(window[:, 1:, 1:], window[:, :-1, :-1], out=along[:, 1:, 1:])
            out[..., :key_step] = along[:, step:, :key_step]
            torch.add(along[:, step:, key_step:], along[:, :-step, :-key_step], out=out[..., key_step:])
        completed = slice(rows.start * step, (rows.start + lines) * step)
        return completed, self.used.compact(out, self.scratch.first)

    def attention_gradient(self, grad: Tensor, values: Tensor, rows: range) -> Tensor:
        """Return the gradient of some rows' attention where `place` puts attention, in the buffer `grad`.

        From the output's gradient and the values around corners; meaningless outside the grids.
        """
        step, key_step, scratch = self.step, self.key_step, self.scratch
        count = (len(rows) + 1) * step
        product = scratch.first if self.used.runs is None else scratch.second
        product = shaped(product, self.batch, count, self.used.count)
        multiply(grad[..., rows.start * step : (rows.stop + 1) * step].mT, values, product)
        corners = self.used.expand(product, scratch.first)
        out = shaped(scratch.grad, self.batch, len(rows) * step, self.used.every)
        if self.compile:
            compiled(corner_sums_gradient)(corners, out, step, key_step)
        else:
            along = shaped(scratch.second, *corners.shape)
            along[:, -1] = 0
            along[..., -1] = 0
            torch.add(corners[:, :-1, :-1], corners[:, 1:, 1:], out=along[:, :-1, :-1])
            out[..., -key_step:] = 0
            torch.add(along[:, :-step, :-key_step], along[:, step:, key_step:], out=out[..., :-key_step])
        return out.unflatten(1, (len(rows), -1))

    def softmax_gradient(self, attention: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of scaled scores, (B, rows, w, keys), from that of the attention, both as placed."""
        weighted = torch.mul(attention, grad, out=shaped(self.scratch.third, *grad.shape))
        total = weighted.sum(dim=-1)[:, :, :-1, None, None]
        bare = self.bare(weighted)
        out = shaped(self.scratch.grad, *bare.shape)
        return torch.addcmul(bare, self.bare(attention), total, value=-1, out=out).flatten(3)

    def bare(self, block: Tensor) -> Tensor:
        """Return the cells inside both grids: (B, rows, w, hb, wb)."""
        keys = block[..., : (self.key_grid[0] + 1) * self.key_step].unflatten(3, (-1, self.key_step))
        return keys[:, :, :-1, :-1, :-1]


def corner_sums(window: Tensor, out: Tensor, step: int, key_step: int) -> None:
    """Write the sums of attention at corners: each with its three neighbours before it; for the compiler."""
    along = window + F.pad(window[:, :-1, :-1], (1, 0, 1, 0))
    out.copy_(along[:, step:] + F.pad(along[:, :-step, :-key_step], (key_step, 0, 0, 0)))


def corner_sums_gradient(corners: Tensor, out: Tensor, step: int, key_step: int) -> None:
    """Write the gradient of attention from that of its sums at corners: the way back of `corner_sums`."""
    along = corners + F.pad(corners[:, 1:, 1:], (0, 1, 0, 1))
    out.copy_(along[:, :-step] + F.pad(along[:, step:, key_step:], (0, key_step)))
