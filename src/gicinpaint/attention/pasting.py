"""Pasting a block of attention rows, and the way back to attention and values."""

from collections.abc import Iterator

import torch
from torch import Tensor

from gicinpaint.attention.diagonals import Workspace, product
from gicinpaint.attention.matching import Rows

BACK, AHEAD = -1, 1  # which neighbour's patch also covers a cell: the one before its query, or the one after


class BlockPaster:
    """Sums of values, weighted by attention, for any rows of queries.

    Of the rate x rate cells that a query stands for, the first rows (columns) are covered by its own patch and the
    one before, the others by its own and the one after: four kinds of cells, each with its own sum of the attention.

    Args:
        query_grid: Height and width of the query grid.
        key_grid: Height and width of the key grid.
        rate: Cells of the full-size grid per cell of the shrunk one.
        space: Memory for the blocks; the pieces "first", "second" and "third" are overwritten.
    """

    def __init__(self, query_grid: tuple[int, int], key_grid: tuple[int, int], rate: int, space: Workspace) -> None:
        self.query_grid, self.key_grid, self.rate, self.space = query_grid, key_grid, rate, space
        first = rate - rate // 2  # patches start rate // 2 cells early, as TensorFlow's 'SAME' pads the smaller half
        stretches = {BACK: slice(0, first), AHEAD: slice(first, rate)}
        self.sides = {side: cells for side, cells in stretches.items() if cells.start < cells.stop}
        self.kinds = [(row_side, column_side) for column_side in self.sides for row_side in self.sides]

    def split(self, features: Tensor, grid: tuple[int, int]) -> dict[tuple[int, int], Tensor]:
        """Return the cells of every kind: (B, C, rate * h, rate * w) -> {kind: (B, C * cells, h * w)}."""
        cells = features.unflatten(3, (grid[1], self.rate)).unflatten(2, (grid[0], self.rate))
        return {
            kind: cells[:, :, :, self.sides[kind[0]], :, self.sides[kind[1]]]
            .permute(0, 1, 3, 5, 2, 4)
            .flatten(1, 3)
            .flatten(2)
            .contiguous()
            for kind in self.kinds
        }

    def merge(self, parts: dict[tuple[int, int], Tensor], grid: tuple[int, int], out: Tensor) -> None:
        """Write the cells of every kind to features: the inverse of `split`."""
        cells = out.view(*out.shape[:2], grid[0], self.rate, grid[1], self.rate)
        for kind, part in parts.items():
            target = cells[:, :, :, self.sides[kind[0]], :, self.sides[kind[1]]].permute(0, 1, 3, 5, 2, 4)
            target.copy_(part.view(target.shape))

    def summed(self, window: Tensor, rows: Rows) -> Iterator[tuple[tuple[int, int], Rows, Tensor]]:
        """Return, kind by kind, the rows that a block completes and their sums of attention.

        A kind that looks back completes the block's own rows; one that looks ahead lags by a row, and the last block
        completes them all.

        Args:
            window: Attention of the rows and of the one before them.
            rows: Rows of queries.

        Shape:
            - window: (B, (1 + rows) * w, keys)
            - returned: (B, completed rows * w, keys) in the piece "second"
        """
        height, width = self.query_grid
        have = Rows(rows.start - 1, rows.stop)
        if rows.start == 0:
            have, window = rows, window[:, width:]
        for column_side in self.sides:
            along = self._sum_columns(window, column_side)
            for row_side in self.sides:
                completed = rows
                if row_side == AHEAD:
                    completed = Rows(max(0, rows.start - 1), rows.stop if rows.stop == height else rows.stop - 1)
                if completed.count > 0:
                    yield (row_side, column_side), completed, self._sum_rows(along, have, completed, row_side)

    def attention_gradient(
        self, grads: dict[tuple[int, int], Tensor], values: dict[tuple[int, int], Tensor], rows: Rows, name: str
    ) -> Tensor:
        """Return the gradient of some rows' attention.

        Args:
            grads: Gradient of the output, split.
            values: Values, split.
            rows: Rows of queries.
            name: Piece of memory for the gradient.

        Shape:
            - returned: (B, rows * w, keys) in the named piece
        """
        (height, width), (_, key_width) = self.query_grid, self.key_grid
        batch, keys = next(iter(values.values())).shape[0::2]
        out = self.space.take(name, batch, rows.count * width, keys)
        for side in self.sides:
            # A row of attention went to its own row of sums and to the one on the other side.
            have = (
                Rows(rows.start, min(height, rows.stop + 1))
                if side == BACK
                else Rows(max(0, rows.start - 1), rows.stop)
            )
            summed = self._columns_gradient(grads, values, have, side)
            here = self._part(summed, have, rows)
            if side == BACK:
                out.copy_(here)
            else:
                out += here
            reached = Rows(max(rows.start, have.start + side), min(rows.stop, have.stop + side))
            there = self._part(summed, have, Rows(reached.start - side, reached.stop - side))
            target, source = self._overlap(keys, -side * key_width)
            self._part(out, rows, reached)[..., target] += there[..., source]
        return out

    def _sum_columns(self, window: Tensor, side: int) -> Tensor:
        out = self.space.take("first", *window.shape)
        here, there = self._overlap(window.shape[1], side), self._overlap(window.shape[2], side)
        torch.add(window[:, here[0], there[0]], window[:, here[1], there[1]], out=out[:, here[0], there[0]])
        edge = 0 if side == BACK else -1  # where the neighbour would be on another row
        self._grids(out)[:, :, edge] = self._grids(window)[:, :, edge]
        self._grids(out)[..., edge] = self._grids(window)[..., edge]
        return out

    def _sum_rows(self, along: Tensor, have: Rows, rows: Rows, side: int) -> Tensor:
        (height, width), (_, key_width) = self.query_grid, self.key_grid
        out = self.space.take("second", along.shape[0], rows.count * width, along.shape[2])
        paired = Rows(max(rows.start, -side), min(rows.stop, height - side))
        for single in (Rows(rows.start, paired.start), Rows(paired.stop, rows.stop)):
            if single.count > 0:
                self._part(out, rows, single).copy_(self._part(along, have, single))
        if paired.count > 0:
            target, source = self._overlap(along.shape[2], side * key_width)
            here, total = self._part(along, have, paired), self._part(out, rows, paired)
            there = self._part(along, have, Rows(paired.start + side, paired.stop + side))
            torch.add(here[..., target], there[..., source], out=total[..., target])
            rest = slice(0, target.start) if side == BACK else slice(target.stop, None)
            total[..., rest] = here[..., rest]
        return out

    def _columns_gradient(
        self, grads: dict[tuple[int, int], Tensor], values: dict[tuple[int, int], Tensor], rows: Rows, row_side: int
    ) -> Tensor:
        width = self.query_grid[1]
        terms = {}
        for column_side, name in zip(self.sides, ("first", "second"), strict=False):
            kind = row_side, column_side
            out = self.space.take(name, len(values[kind]), rows.count * width, values[kind].shape[-1])
            product(grads[kind][..., rows.start * width : rows.stop * width].mT, values[kind], out)
            terms[column_side] = out
        total = self.space.take("third", *out.shape)
        if len(terms) == 1:
            total.copy_(out)
        else:
            torch.add(terms[BACK], terms[AHEAD], out=total)
        for column_side, term in terms.items():
            edge = 0 if column_side == BACK else -1
            self._grids(term)[:, :, edge] = 0
            self._grids(term)[..., edge] = 0
            here, there = self._overlap(term.shape[1], -column_side), self._overlap(term.shape[2], -column_side)
            total[:, here[0], there[0]] += term[:, here[1], there[1]]
        return total

    @staticmethod
    def _overlap(size: int, shift: int) -> tuple[slice, slice]:
        """Return the targets that have a source `shift` further, and those sources."""
        length = max(0, size - abs(shift))
        target, source = max(0, -shift), max(0, shift)
        return slice(target, target + length), slice(source, source + length)

    def _part(self, block: Tensor, have: Rows, rows: Rows) -> Tensor:
        width = self.query_grid[1]
        return block[:, (rows.start - have.start) * width : (rows.stop - have.start) * width]

    def _grids(self, block: Tensor) -> Tensor:
        return block.view(len(block), -1, self.query_grid[1], *self.key_grid)
