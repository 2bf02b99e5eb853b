"""The way back from the gradient of scores to features and norms, block by block."""

import torch
from torch import Tensor

from gicinpaint.attention.diagonals import add_diagonal, column_runs, multiply
from gicinpaint.attention.matching import Matching, Piece, StripMatcher
from gicinpaint.attention.windows import RowWindow, Span


class MatchingGradient:
    """Gradients of what blocks are matched with, collected over all strips.

    Args:
        matching: What was matched.
    """

    def __init__(self, matching: Matching) -> None:
        self.matching = matching
        self.queries = torch.zeros_like(matching.foreground)
        self.keys = torch.zeros_like(matching.keys)
        self.log_norm = matching.keys.new_zeros(matching.batch, matching.key_count)

    def results(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the collected gradients of foreground, background (as matched) and the logarithm of the norms."""
        grid = self.matching.key_height, self.matching.key_width
        keys = self.keys.unflatten(2, (-1, self.matching.padded_key_width))[..., : grid[1]]
        return self.queries, keys, self.log_norm.unflatten(1, grid)


class StripGradient:
    """Collect the gradient of a strip's scores, for blocks of its rows from the first to the last.

    Every sum of the scores has the same sum along the same diagonals as its transpose. A row is taken back to the
    features once all blocks that it serves have been there, so no product is made twice.

    Args:
        strip: The matcher that made the scores; it holds the matched scores of the same block.
        total: Where to collect.
        block_rows: Most rows of a block.
        closed: Whether there is a single call of `pull` instead of blocks that follow each other.
    """

    def __init__(self, strip: StripMatcher, total: MatchingGradient, block_rows: int, closed: bool = False) -> None:
        matching = strip.matching
        self.strip, self.total, self.closed = strip, total, closed
        most = Span(0, block_rows + 2 * (matching.spread + strip.slack))
        self.along = RowWindow(matching.take(f"along{strip.suffix}", most, strip.pitch), strip.pitch)
        # Rows that are summed over the patch need those below and above; rows that are pulled before wait here.
        rows = Span(0, block_rows + 2 * matching.spread + strip.slack)
        self.weighted = strip.padded_window(f"weighted{strip.suffix}", strip.main, rows)
        self.pulled = self.summed = 0  # rows that are done

    def add(self, rows: Span, grad: Tensor) -> None:
        """Add what the gradient of the next rows' scaled scores gives to the features and the norms.

        Args:
            rows: Rows of queries.
            grad: Gradient of their scaled scores; not in the pieces "first", "second" or "third".

        Shape:
            - grad: (B, rows * columns, keys)
        """
        strip, matching = self.strip, self.strip.matching
        spread, height = matching.spread, matching.height
        if spread == 0:
            return self.pull(rows, grad)
        self._spread_columns(rows, grad.unflatten(1, (rows.size, -1)))
        far = [(y, row) for y in strip.wrapped(rows) if (row := self._take_wrapped(y)) is not None]
        stop = height if rows.stop == height else max(self.pulled, rows.stop - spread - strip.slack)
        if stop > self.pulled:
            self._pull_along(Span(self.pulled, stop))
        self.pulled = stop
        for y, row in far:
            self._add_far(y, row)
        return None

    def pull(self, rows: Span, grad: Tensor) -> None:
        """Take the gradient of matched scores of the next rows, (B, rows * pitch, keys), back to the features."""
        strip, matching = self.strip, self.strip.matching
        weighted = torch.mul(grad, strip.matched.part(rows), out=matching.take("third", rows, strip.pitch))
        self.total.log_norm -= weighted.sum(dim=1)  # d(m / n) = -(m / n) d(log n)
        grids = grad.unflatten(1, (-1, strip.pitch)).unflatten(3, (matching.key_height, matching.key_width))
        for piece in strip.pieces:
            source = rows.moved(piece.carry).within(Span(0, matching.height))
            if source.size > 0:
                inside = source.moved(-piece.carry).seen_from(rows)
                self._pull_piece(source, piece, grids[:, inside, piece.place : piece.place + piece.columns.size])

    def _spread_columns(self, rows: Span, grad: Tensor) -> None:
        """Add the gradient of rows to that of their sums along rows, off the grid too."""
        strip, matching, window = self.strip, self.strip.matching, self.along
        spread = matching.spread
        start = max(-spread, rows.start - spread - 2 * strip.slack)
        window.part(window.advance(Span(start, rows.stop + spread))).zero_()
        grids = strip.inner(window.held)
        for d in range(-spread, spread + 1):
            there = grids[:, rows.moved(d).seen_from(window.rows)]
            if d == 0:
                there += grad
            for target, source in column_runs(matching.key_height, matching.key_width, d) if d else []:
                there[..., source] += grad[..., target]

    def _take_wrapped(self, y: int) -> Tensor | None:
        """Add the gradient of row y off the grid to that of the row it leads to, or return it if that is far."""
        strip, window = self.strip, self.along
        grids, (here, there) = strip.inner(window.held), strip.wrapped_columns(y)
        row = grids[:, y - window.rows.start]
        cells = row[:, here.seen_from(strip.columns)].clone() if there.size > 0 else None
        row.zero_()
        open_rows = Span(self.pulled + strip.slack if self.pulled else 0, window.rows.stop)
        if cells is not None and strip.near(y, open_rows):
            grids[:, y % strip.matching.height - window.rows.start, slice(*there)] += cells
            return None
        return cells

    def _pull_along(self, rows: Span) -> None:
        strip, matching = self.strip, self.strip.matching
        inside = self.along.rows.within(Span(0, matching.height))
        out = matching.take("second", rows, strip.pitch)
        first = (rows.start - inside.start) * strip.pitch
        self.pull(rows, add_diagonal(self.along.part(inside), out, matching.spread, 1, 1, first))

    def _add_far(self, y: int, cells: Tensor) -> None:
        """Take back the gradient of the sums along a row at the other end of the grid."""
        strip, matching = self.strip, self.strip.matching
        there, row = strip.wrapped_columns(y)[1], Span(0, 1).moved(y % matching.height)
        other = strip.other(there)
        other.match(row)
        gradient = StripGradient(other, self.total, 1, closed=True)
        rows = row.widened(other.slack, matching.height)
        gradient.along.part(gradient.along.advance(rows)).zero_()
        other.inner(gradient.along.part(row))[:, 0, there.seen_from(other.columns)] = cells
        gradient._pull_along(rows)

    def _pull_piece(self, rows: Span, piece: Piece, grad: Tensor) -> None:
        """Take the gradient of a rectangle's matched scores, (B, rows, columns, hb, wb), back to the features."""
        matching, total = self.strip.matching, self.total
        reach, height = matching.reach, matching.height
        if self.closed or piece.carry != 0:
            window = self.strip.padded_window("wrapped", piece, rows)
            have = done = rows.widened(reach, height)
        else:
            window, have = self.weighted, Span(max(0, rows.start - 2 * reach), rows.stop)
            done = Span(self.summed, height if rows.stop == height else max(self.summed, rows.stop - reach))
            self.summed = done.stop
        window.part(window.advance(have)).zero_()
        left = piece.columns.start - piece.around.start
        inside = matching.bare(window.part(rows), window.pitch)[:, :, left : left + piece.columns.size]
        torch.mul(grad, matching.key_factor, out=inside)
        if done.size <= 0:
            return
        down = matching.take("third", done, window.pitch, padded=True)
        first = (done.start - have.start) * window.pitch
        add_diagonal(window.held, down, reach, window.pitch, matching.padded_key_width, first)
        gram = add_diagonal(down, matching.take("first", done, window.pitch, padded=True), reach, 1, 1)
        found = matching.space.take("found", matching.batch, matching.keys.shape[1], done.size * window.pitch)
        multiply(matching.keys, gram.mT, found)
        cells = found.unflatten(2, (-1, window.pitch))[..., : piece.around.size]
        total.queries[:, :, slice(*done), slice(*piece.around)] += cells
        multiply(matching.queries(done, piece.around), gram, total.keys, accumulate=True)
