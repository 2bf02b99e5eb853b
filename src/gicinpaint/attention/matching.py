"""Scores of a block of query rows with all keys, without a matrix of all queries."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gicinpaint.attention.diagonals import Workspace, add_diagonal, column_runs, multiply
from gicinpaint.attention.fused import compiled, match
from gicinpaint.attention.windows import RowWindow, Span, wrapped_pieces


class Matching:
    """What all blocks of some images are matched with: features, and the keys' factors.

    The grids of keys and of queries carry empty columns at the right end, which keep a step along a row from meeting
    the next row; so every sum runs over long contiguous stretches.

    Args:
        foreground: Shrunk features to fill.
        background: Shrunk features to copy from.
        key_factor: What matched scores are multiplied by: the softmax's scale over the key's norm.
        patch_size: Height and width of a patch, odd.
        propagation_size: Length of the propagation's diagonal, odd; 1 for none.
        space: Memory for the blocks; the pieces "first" and "second" are overwritten by every step.

    Shape:
        - foreground: (B, C, h, w)
        - background: (B, C, hb, wb)
        - key_factor: (B, hb, wb)
    """

    def __init__(
        self,
        foreground: Tensor,
        background: Tensor,
        key_factor: Tensor,
        patch_size: int,
        propagation_size: int,
        space: Workspace,
    ) -> None:
        self.foreground = foreground
        self.batch, _, self.height, self.width = foreground.shape
        self.key_height, self.key_width = background.shape[-2:]
        self.reach, self.spread = patch_size // 2, propagation_size // 2
        self.padded_key_width = self.key_width + self.reach
        self.keys = F.pad(background, (0, self.reach)).flatten(2)  # (B, C, hb * padded_key_width)
        self.key_factor = key_factor[:, None, None]  # (B, 1, 1, hb, wb)
        self.key_count = self.key_height * self.key_width
        self.space = space

    def queries(self, rows: Span, columns: Span) -> Tensor:
        """Return the features of some cells: (B, C, rows * (columns + reach)), empty columns included."""
        return F.pad(self.foreground[:, :, slice(*rows), slice(*columns)], (0, self.reach)).flatten(2)

    def take(self, name: str, rows: Span, pitch: int, padded: bool = False) -> Tensor:
        """Return the named memory for rows of queries with all keys, the keys' grid padded or not."""
        keys = self.keys.shape[-1] if padded else self.key_count
        return self.space.take(name, self.batch, rows.size * pitch, keys)

    def bare(self, padded: Tensor, pitch: int) -> Tensor:
        """Return the cells of padded grids without the keys' empty columns: (B, rows, pitch, hb, wb)."""
        grids = padded.unflatten(2, (self.key_height, self.padded_key_width)).unflatten(1, (-1, pitch))
        return grids[..., : self.key_width]


class Piece(NamedTuple):
    """A rectangle of queries that a strip of the grid is matched with.

    Attributes:
        carry: How many rows further it lies than the strip's rows.
        columns: Its columns.
        place: Where its first column lies in a row of the strip's memory.
        around: Its columns and those around it that its patches reach.
    """

    carry: int
    columns: Span
    place: int
    around: Span


class StripMatcher:
    """Scores for a strip of the query grid, for blocks of its rows from the first to the last.

    Patches do not wrap, but propagation does: one step off the end of a row leads to the next row. A strip of all
    columns has the next row in memory; a narrower one holds `spread` more columns at each side, which at the edge of
    the grid lie at the other end of the rows above and below.

    Args:
        matching: What to match.
        columns: Columns of the strip.
        block_rows: Most rows of a block.
        memory: Where matched scores are put; None for the workspace.
        suffix: Name of its memory; two strips in use need two.
    """

    def __init__(
        self, matching: Matching, columns: Span, block_rows: int, memory: Tensor | None = None, suffix: str = ""
    ) -> None:
        self.matching, self.columns, self.suffix = matching, columns, suffix
        height, width, spread = matching.height, matching.width, matching.spread
        whole = columns == (0, width)
        self.halo = 0 if whole else spread
        self.slack = -(-spread // width) if whole else 0  # rows that `spread` steps along flat positions can lead to
        self.pitch = columns.size + 2 * self.halo
        pieces = wrapped_pieces(Span(columns.start - self.halo, columns.stop + self.halo), width)
        self.pieces = [Piece(*piece, piece[1].widened(matching.reach, width)) for piece in pieces]
        self.most = Span(0, min(height, block_rows + 2 * (spread + self.slack)))
        if memory is None:
            memory = matching.take(f"matched{suffix}", self.most, self.pitch)
        self.matched = RowWindow(memory, self.pitch)
        self.products = self.padded_window(f"products{suffix}", self.main, self.most)

    @property
    def main(self) -> Piece:
        """The rectangle in the strip's own rows."""
        return next(piece for piece in self.pieces if piece.carry == 0)

    def scores(self, rows: Span) -> Tensor:
        """Return scaled scores of the next rows: (B, rows * columns, keys), in the piece "second".

        Without propagation they are the matched scores, in the matched scores' memory.
        """
        matching = self.matching
        self.match(rows)
        if matching.spread == 0:
            return self.matched.part(rows)
        inner = rows.widened(matching.spread, matching.height)
        outer = Span(rows.start - matching.spread, rows.stop + matching.spread)
        far = {y: self._far_row(y) for y in self.wrapped(rows) if not self.near(y, inner)}  # it needs the same memory
        along = self._along(inner, outer)
        for y in self.wrapped(rows):
            self._fill_wrapped(along, outer, y, far.get(y))
        out = matching.take("second", rows, self.columns.size).unflatten(1, (rows.size, -1))
        self._spread_columns(along, rows.seen_from(outer), out)
        return out.flatten(1, 2)

    def wrapped(self, rows: Span) -> list[int]:
        """Return the rows off the grid that propagation of some rows leads to: those of the next or last columns."""
        spread, height = self.matching.spread, self.matching.height
        return [y for y in range(rows.start - spread, rows.stop + spread) if not 0 <= y < height]

    def near(self, y: int, rows: Span) -> bool:
        """Return whether the row that row y off the grid leads to is among some rows of this strip's memory."""
        return not self.halo and rows.start <= y % self.matching.height < rows.stop

    def wrapped_columns(self, y: int) -> tuple[Span, Span]:
        """Return the strip's columns whose cells in row y off the grid exist, and the columns these are in truth."""
        carry = y // self.matching.height
        there = self.columns.moved(carry).within(Span(0, self.matching.width))
        return there.moved(-carry), there

    def other(self, columns: Span) -> "StripMatcher":
        """Return a matcher for single rows of some columns: of all, if this strip has all, else of these alone."""
        return StripMatcher(self.matching, columns if self.halo else self.columns, 1, suffix="far")

    def inner(self, block: Tensor) -> Tensor:
        """Return the strip's own columns of a block: (B, rows, columns, keys)."""
        return block.unflatten(1, (-1, self.pitch))[:, :, self.halo : self.pitch - self.halo]

    def padded_window(self, name: str, piece: Piece, rows: Span) -> RowWindow:
        """Return a window for padded rows of a rectangle and those that its patches reach."""
        matching = self.matching
        pitch = piece.around.size + matching.reach
        most = Span(0, min(matching.height, rows.size + 2 * matching.reach))
        return RowWindow(matching.take(name, most, pitch, padded=True), pitch)

    def match(self, rows: Span) -> None:
        """Hold the matched scores of the next rows and of those that propagation reaches."""
        matching = self.matching
        missing = self.matched.advance(rows.widened(matching.spread + self.slack, matching.height))
        grids = self.matched.part(missing).unflatten(1, (-1, self.pitch))
        grids = grids.unflatten(3, (matching.key_height, matching.key_width))
        for piece in self.pieces:
            source = missing.moved(piece.carry).within(Span(0, matching.height))
            target = grids[:, :, piece.place : piece.place + piece.columns.size]
            inside = source.moved(-piece.carry).seen_from(missing)
            if inside.stop - inside.start < missing.size:
                target.zero_()
            if source.size > 0:
                self._match(source, piece, target[:, inside])

    def _match(self, rows: Span, piece: Piece, out: Tensor) -> None:
        """Write matched scores of a rectangle of queries to out, (B, rows, columns, hb, wb)."""
        matching, reach = self.matching, self.matching.reach
        window = self.products if piece.carry == 0 else self.padded_window("wrapped", piece, rows)
        have = rows.widened(reach, matching.height)
        missing = window.advance(have)
        multiply(matching.queries(missing, piece.around).mT, matching.keys, window.part(missing))
        skipped, left = (rows.start - have.start) * window.pitch, piece.columns.start - piece.around.start
        if matching.space.fuse:
            compiled(match)(window.held, matching.key_factor, out, reach, window.pitch, skipped, left)
            return
        down = matching.take("first", rows, window.pitch, padded=True)
        add_diagonal(window.held, down, reach, window.pitch, matching.padded_key_width, skipped)
        both = add_diagonal(down, matching.take("second", rows, window.pitch, padded=True), reach, 1, 1)
        torch.mul(matching.bare(both, window.pitch)[:, :, left : left + out.shape[2]], matching.key_factor, out=out)

    def _along(self, rows: Span, outer: Span) -> Tensor:
        """Write sums along rows of matched scores into memory for the outer rows; return that, the piece "first"."""
        along = self.matching.take("first", outer, self.pitch)
        where = rows.seen_from(outer)
        first = (rows.start - self.matched.rows.start) * self.pitch
        out = along[:, where.start * self.pitch : where.stop * self.pitch]
        add_diagonal(self.matched.held, out, self.matching.spread, 1, 1, first)
        return along

    def _far_row(self, y: int) -> Tensor | None:
        """Return the sums along rows of the row that row y off the grid leads to, or None if there are no cells."""
        _, there = self.wrapped_columns(y)
        if there.size <= 0:
            return None
        other, row = self.other(there), Span(0, 1).moved(y % self.matching.height)
        other.match(row)
        return other.inner(other._along(row, row))[:, 0, there.seen_from(other.columns)].clone()

    def _fill_wrapped(self, along: Tensor, outer: Span, y: int, far: Tensor | None) -> None:
        """Write to row y off the grid what it leads to: a far row, or one of the same block, some columns on."""
        grids, (here, there) = self.inner(along), self.wrapped_columns(y)
        target = grids[:, y - outer.start].zero_()
        if far is not None:
            target[:, here.seen_from(self.columns)] = far
        elif there.size > 0:
            target[:, here.seen_from(self.columns)] = grids[:, y % self.matching.height - outer.start][:, slice(*there)]

    def _spread_columns(self, along: Tensor, inner: slice, out: Tensor) -> None:
        matching, grids = self.matching, self.inner(along)
        here = grids[:, inner]
        for d in sorted(range(-matching.spread, matching.spread + 1), key=lambda d: d != 1):
            there = grids[:, inner.start + d : inner.stop + d]
            for target, source in column_runs(matching.key_height, matching.key_width, d) if d else []:
                if d == 1:  # the first: it also copies, so that out need not be filled before
                    torch.add(here[..., target], there[..., source], out=out[..., target])
                else:
                    out[..., target] += there[..., source]
            if d == 1:
                out[..., -1] = here[..., -1]  # the only cell without a next one
