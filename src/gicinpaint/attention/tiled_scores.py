"""Scores of blocks of query rows with all keys, and the way back from their gradient to features and norms."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gicinpaint.attention.factorized import diagonal_sum
from gicinpaint.attention.tiled_blocks import (
    FeatureGradients,
    RowWindow,
    Walk,
    add_diagonal,
    multiply,
    shaped,
    widened_rows,
)


def wrapped(position: int, height: int, width: int) -> tuple[int, slice, slice]:
    """Return where row `position`, off a grid, continues: propagation goes from the end of a column to the next one.

    Returned are the row of the grid, the columns that have a cell there, and the columns in which these cells lie.

    Example:
        >>> wrapped(-1, 3, 4)  # above the first row: the last row, one column before
        (2, slice(1, 4, None), slice(0, 3, None))
    """
    carry = position // height
    before, after = max(0, -carry), max(0, carry)
    return position % height, slice(before, max(0, width - after)), slice(after, max(0, width - before))


class BlockScores:
    """Scores for blocks of rows of a query grid, from the first to the last.

    The foreground, (B, C, h, w), has the `inner` columns, whose scores are wanted, and those that they need besides.
    Matched scores go to memory for all rows, (B, h, w, keys), where it is given.
    """

    def __init__(self, foreground: Tensor, walk: Walk, inner: slice, matched: Tensor | None = None) -> None:
        batch, _, self.height, self.width = foreground.shape
        self.foreground, self.walk, self.inner, self.mark = foreground, walk, inner, walk.arena.used
        self.keys = keys = walk.keys
        self.slack = -(-keys.spread // self.width)  # rows that `spread` steps along row-major positions lead to
        self.padded_width = self.width + keys.reach
        rows = min(self.height, walk.rows + 2 * (keys.spread + self.slack))
        if matched is None:
            matched = walk.arena.take(batch, rows, self.width, keys.count)
        self.matched = RowWindow(matched)
        rows = min(self.height, rows + 2 * keys.reach)
        self.products = RowWindow(walk.arena.take(batch, rows, self.padded_width, keys.padded_count))
        self.whole = walk.rows >= self.height
        self.ends: dict[int, Tensor] = {} if self.whole else self._far_ends()

    def scores(self, rows: range) -> Tensor:
        """Return scaled scores of the next rows, 0 for invalid keys: (B, rows * inner columns, keys), in `second`."""
        keys, (batch, spread) = self.keys, (len(self.foreground), self.keys.spread)
        self.match(widened_rows(rows, spread + self.slack, self.height))
        outer = range(rows.start - spread, rows.stop + spread)
        along = shaped(self.walk.scratch.first, batch, len(outer), self.width, keys.tall_count)
        inside = widened_rows(rows, spread, self.height)
        self.along(inside, along[:, inside.start - outer.start : inside.stop - outer.start])
        for y in off_grid(outer, self.height):
            row, here, there = wrapped(y, self.height, self.width)
            cells = along[:, row - outer.start] if self.whole else self.ends[row]
            target = along[:, y - outer.start].zero_()
            target[:, here] = cells[:, there]
        tall = along.unflatten(3, (keys.tall_height, keys.width))
        for y in off_grid(range(-spread, keys.height + spread), keys.height):
            row, here, there = wrapped(y, keys.height, keys.width)
            target = tall[..., y + spread, :].zero_()
            target[..., here] = tall[..., row + spread, there]
        columns = len(range(self.width)[self.inner])
        out = shaped(self.walk.scratch.second, batch, len(rows), columns, keys.count)
        self._spread_columns(along[:, :, self.inner], out)
        return out.flatten(1, 2).mul_(keys.keep[:, None])

    def match(self, rows: range) -> None:
        """Hold matched scores of some rows: products with the key's patch, times the key's factor."""
        keys, batch = self.keys, len(self.foreground)
        missing = self.matched.advance(rows)
        if not missing:
            return
        have = widened_rows(missing, keys.reach, self.height)
        new = self.products.advance(have)
        if new:
            multiply(self.queries(new).mT, keys.features, self.products.part(new).flatten(1, 2))
        out = self.matched.part(missing).unflatten(3, (keys.height, keys.width))
        skipped = missing.start - have.start
        if self.walk.compile:
            compiled(match_sums)(keys.bare(self.products.held, self.width), keys.factor, out, keys.reach, skipped)
            return
        shape = batch, len(missing) * self.padded_width, keys.padded_count
        down, both = shaped(self.walk.scratch.first, *shape), shaped(self.walk.scratch.second, *shape)
        products = self.products.held.flatten(1, 2)
        add_diagonal(products, down, keys.reach, self.padded_width, keys.padded_width, skipped * self.padded_width)
        add_diagonal(down, both, keys.reach, 1, 1)
        torch.mul(keys.bare(both.unflatten(1, (len(missing), -1)), self.width), keys.factor, out=out)

    def queries(self, rows: range) -> Tensor:
        """Return the features of some rows: (B, C, rows * padded_width)."""
        return F.pad(self.foreground[:, :, rows.start : rows.stop], (0, self.keys.reach)).flatten(2)

    def along(self, rows: range, out: Tensor) -> None:
        """Write the sums along rows to the grid's part of out, (B, rows, w, tall_count)."""
        keys, held = self.keys, self.matched.held
        first = (rows.start - self.matched.rows.start) * self.width
        target = out.flatten(1, 2)[..., keys.spread * keys.width :][..., : keys.count]
        add_diagonal(held.flatten(1, 2), target, keys.spread, 1, 1, first)

    def end(self, at_bottom: bool) -> tuple["BlockScores", range]:
        """Return scores for the first or last rows alone, and which of these rows propagation wraps to."""
        keys = self.keys
        count = min(self.height, keys.spread)
        rows = min(self.height, count + self.slack + keys.reach)
        part = self.foreground[:, :, self.height - rows :] if at_bottom else self.foreground[:, :, :rows]
        block = BlockScores(part, self.walk._replace(rows=rows), self.inner)
        block.match(range(rows))
        return block, range(rows - count, rows) if at_bottom else range(count)

    def _far_ends(self) -> dict[int, Tensor]:
        """Return sums along the rows that propagation wraps to from the other end of the grid."""
        keys, ends, used = self.keys, {}, self.walk.arena.used
        for at_bottom in (True, False) if keys.spread else ():
            block, rows = self.end(at_bottom)
            out = self.foreground.new_empty(len(self.foreground), len(rows), self.width, keys.tall_count)
            block.along(rows, out)
            first = self.height - len(rows) if at_bottom else 0
            ends.update({first + i: out[:, i] for i in range(len(rows))})
        self.walk.arena.used = used
        return ends

    def _spread_columns(self, along: Tensor, out: Tensor) -> None:
        """Sum along the diagonal of column-major positions: no step leaves the rows that were put around."""
        keys, spread = self.keys, self.keys.spread
        terms = [
            along[:, spread + d : spread + d + out.shape[1], :, (spread + d) * keys.width :][..., : keys.count]
            for d in range(-spread, spread + 1)
        ]
        torch.add(terms[0], terms[1] if spread else 0, out=out)
        for term in terms[2:]:
            out += term


class ScoresGradient:
    """Collect the gradient of scores, for blocks of rows from the first to the last; then call `finish`.

    Every sum of the scores has the same sum along the same diagonals as its transpose. A row is taken back to the
    features once all blocks that it serves have been there, so no product is made twice. `block` made the scores and
    holds the matched scores of the same rows; `totals` is where to collect.
    """

    def __init__(self, block: BlockScores, totals: FeatureGradients) -> None:
        keys, batch, take = block.keys, len(block.foreground), block.walk.arena.take
        self.block, self.totals = block, totals
        rows = block.walk.rows + keys.spread + block.slack
        self.along = RowWindow(take(batch, rows + keys.spread + block.slack, block.width, keys.tall_count))
        # Rows that are summed over the patch need those below and above; rows that are pulled before wait here.
        rows = min(block.height, rows + 2 * keys.reach)
        self.weighted = RowWindow(take(batch, rows, block.padded_width, keys.padded_count))
        self.found = take(batch * keys.features.shape[1] * rows * block.padded_width)
        self.pulled = self.summed = 0  # rows that are done
        shape = batch, block.width, keys.tall_count
        self.ends = {row: block.foreground.new_zeros(shape) for row in block.ends}

    def add(self, rows: range, grad: Tensor) -> None:
        """Add what the gradient of the next rows' scaled scores, (B, rows, inner columns, keys), gives."""
        block, keys, window = self.block, self.block.keys, self.along
        spread, height = keys.spread, block.height
        start = max(-spread, rows.start - spread - 2 * block.slack)
        window.part(window.advance(range(start, rows.stop + spread))).zero_()
        for d in range(-spread, spread + 1):
            there = window.part(range(rows.start + d, rows.stop + d))[:, :, block.inner]
            there[..., (spread + d) * keys.width :][..., : keys.count] += grad
        tall = window.held.unflatten(3, (keys.tall_height, keys.width))
        for y in off_grid(range(-spread, keys.height + spread), keys.height):
            row, here, source = wrapped(y, keys.height, keys.width)
            tall[..., row + spread, source] += tall[..., y + spread, here]
            tall[..., y + spread, :] = 0
        for y in off_grid(range(rows.start - spread, rows.stop + spread), height):
            row, here, source = wrapped(y, height, block.width)
            cells = window.part(range(y, y + 1))[:, 0]
            target = window.part(range(row, row + 1))[:, 0] if block.whole else self.ends[row]
            target[:, source] += cells[:, here]
            cells.zero_()
        stop = height if rows.stop == height else rows.stop - spread - block.slack
        if stop > self.pulled:
            self._pull_along(range(self.pulled, stop))
            self.pulled = stop

    def finish(self) -> None:
        """Add what is left: the gradient of sums along rows at the other end of the grid."""
        block, totals = self.block, self.totals
        for at_bottom in (True, False) if self.ends else ():
            block.walk.arena.used = block.mark  # the buffers of the walk have served
            end, rows = block.end(at_bottom)
            first = block.height - end.height if at_bottom else 0
            queries = totals.queries[:, :, first : first + end.height]
            gradient = ScoresGradient(end, FeatureGradients(queries, totals.keys, totals.log_norm))
            every = range(end.height)
            gradient.along.part(gradient.along.advance(every)).zero_()
            for row in rows:
                if first + row in self.ends:  # both ends of a low grid may have it
                    gradient.along.held[:, row] = self.ends.pop(first + row)
            gradient._pull_along(every)

    def _pull_along(self, rows: range) -> None:
        block, keys = self.block, self.block.keys
        inside = widened_rows(self.along.rows, 0, block.height)
        source = self.along.part(inside).flatten(1, 2)[..., keys.spread * keys.width :][..., : keys.count]
        out = shaped(block.walk.scratch.second, len(source), len(rows) * block.width, keys.count)
        self._pull(rows, add_diagonal(source, out, keys.spread, 1, 1, (rows.start - inside.start) * block.width))

    def _pull(self, rows: range, grad: Tensor) -> None:
        """Take the gradient of matched scores of the next rows, (B, rows * w, keys), back to the features."""
        block, keys, totals, scratch = self.block, self.block.keys, self.totals, self.block.walk.scratch
        batch, reach, height, pitch = len(grad), keys.reach, block.height, block.padded_width
        weighted = torch.mul(grad, block.matched.part(rows).flatten(1, 2), out=shaped(scratch.third, *grad.shape))
        totals.log_norm.sub_(weighted.sum(dim=1))  # d(m / n) = -(m / n) d(log n)
        window, have = self.weighted, range(max(0, rows.start - 2 * reach), rows.stop)
        window.part(window.advance(have)).zero_()
        grids = grad.unflatten(2, (keys.height, keys.width)).unflatten(1, (len(rows), -1))
        torch.mul(grids, keys.factor, out=keys.bare(window.part(rows), block.width))
        done = range(self.summed, height if rows.stop == height else max(self.summed, rows.stop - reach))
        if not done:
            return
        self.summed = done.stop
        shape = batch, len(done) * pitch, keys.padded_count
        down, gram = shaped(scratch.third, *shape), shaped(scratch.first, *shape)
        held, first = window.held.flatten(1, 2), (done.start - have.start) * pitch
        add_diagonal(held, down, reach, pitch, keys.padded_width, first)
        add_diagonal(down, gram, reach, 1, 1)
        found = shaped(self.found, batch, keys.features.shape[1], len(done) * pitch)
        multiply(keys.features, gram.mT, found)
        totals.queries[:, :, done.start : done.stop] += found.unflatten(2, (-1, pitch))[..., : block.width]
        multiply(block.queries(done), gram, totals.keys, accumulate=True)


def off_grid(positions: range, size: int) -> list[int]:
    """Return the positions that lie before or after a grid."""
    return [position for position in positions if not 0 <= position < size]


def match_sums(products: Tensor, factor: Tensor, out: Tensor, reach: int, skipped: int) -> None:
    """Write matched scores, (B, rows, w, hb, wb), from products of cells; the first rows of these are skipped."""
    shifts = range(-reach, reach + 1)
    summed = diagonal_sum(diagonal_sum(products, 1, 3, shifts), 2, 4, shifts)
    out.copy_(summed[:, skipped : skipped + out.shape[1]] * factor)


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function compiled for all sizes: one kernel, so a block is read and written once."""
    return torch.compile(function, dynamic=True)
