"""Full-size features cut into the squares around the corners of the shrunk grid, and which corners take part."""

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from gicinpaint.attention.diagonals import Workspace

SHORTEST_GAP = 8  # corners: copying around a shorter gap costs more than multiplying it
FEWEST_LEFT_OUT = 0.05  # share of the corners from which leaving them out pays for the copies


def corner_stride(grid: Sequence[int]) -> int:
    """Return the length of a row of numbers for every corner, rounded up: products like rows that start aligned."""
    return aligned((grid[0] + 1) * (grid[1] + 1))


def aligned(count: int) -> int:
    """Return a count rounded up to what products like rows of."""
    return -(-count // 16) * 16


def corner_grid(corners: Tensor, grid: Sequence[int]) -> Tensor:
    """Return a view of numbers for every corner as a grid: (B, numbers, h + 1, w + 1)."""
    return corners[..., : (grid[0] + 1) * (grid[1] + 1)].unflatten(2, (grid[0] + 1, grid[1] + 1))


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
    squares = corner_grid(corners, (h, w)).unflatten(1, (-1, rate, rate))
    before = rate // 2  # patches start so many cells early: TensorFlow's 'SAME' puts the smaller half first
    for i, j in product(range(rate), repeat=2):
        # Cell i of a square is before the corner, in the grid cell above it, or after it.
        y, x = int(i < before), int(j < before)
        cells = features[:, :, (i - before) % rate :: rate, (j - before) % rate :: rate]
        yield cells, squares[:, :, i, j, y : y + h, x : x + w]


class UsedCorners:
    """The corners of the key grid that touch a valid key: nothing is copied from the others.

    Args:
        valid: Which keys may be copied from.
        space: Memory to put numbers for these corners in.

    Shape:
        - valid: bool (B or 1, hb, wb)
    """

    def __init__(self, valid: Tensor, space: Workspace) -> None:
        self.space = space
        self.stride = self.full_stride = corner_stride(valid.shape[-2:])
        self.runs: list[slice] | None = None  # None: all corners
        if valid.device.type != "cpu":  # asking an accelerator which they are would make the processor wait for it
            return
        touched = F.max_pool2d(F.pad(valid.any(dim=0, keepdim=True).float(), (1, 1, 1, 1)), 2, stride=1)
        runs = _runs(touched.flatten())
        count = sum(run.stop - run.start for run in runs)
        if count <= (1 - FEWEST_LEFT_OUT) * touched.numel():
            self.runs, self.stride = runs, aligned(count)

    def compact(self, full: Tensor, name: str) -> Tensor:
        """Return the numbers of used corners without those between, in the named memory, then zeros.

        Shape:
            - full: (B, numbers, corner_stride(hb, wb))
            - returned: (B, numbers, stride)
        """
        if self.runs is None:
            return full
        out, place = self.space.take(name, *full.shape[:2], self.stride), 0
        for run in self.runs:
            out[..., place : place + run.stop - run.start] = full[..., run]
            place += run.stop - run.start
        out[..., place:] = 0
        return out

    def expand(self, compact: Tensor, name: str) -> Tensor:
        """Return the numbers of used corners in their places, and zeros between: the inverse of `compact`."""
        if self.runs is None:
            return compact
        out, last, place = self.space.take(name, *compact.shape[:2], self.full_stride), 0, 0
        for run in self.runs:
            out[..., last : run.start] = 0
            out[..., run] = compact[..., place : place + run.stop - run.start]
            place, last = place + run.stop - run.start, run.stop
        out[..., last:] = 0
        return out


def _runs(used: Tensor) -> list[slice]:
    """Return the stretches of ones, joined over short gaps."""
    runs: list[slice] = []
    edges = torch.diff(F.pad(used, (1, 1))).nonzero()[:, 0].tolist()
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if runs and start - runs[-1].stop < SHORTEST_GAP:
            start = runs.pop().start
        runs.append(slice(start, stop))
    return runs
