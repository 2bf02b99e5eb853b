"""Scores of a block of query rows, and the way back from their gradient to the features."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gicinpaint.attention.diagonals import Workspace, add_diagonal, column_runs, moved_row, multiply
from gicinpaint.attention.fused import compiled, match


class Rows(NamedTuple):
    """A range of rows of the query grid, the second excluded."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """The number of rows."""
        return self.stop - self.start

    def widened(self, count: int, height: int) -> "Rows":
        """Return the range with more rows at both ends, as far as the grid goes."""
        return Rows(max(0, self.start - count), min(height, self.stop + count))


class BlockMatcher:
    """Scores of any rows of queries with all keys, without a matrix of all queries.

    Matching works on padded grids, whose empty columns at the right end keep a step along a row from meeting the
    next row; so every sum runs over long contiguous stretches. Propagation wraps, so it works on the bare grids.

    Args:
        foreground: Shrunk features to fill.
        background: Shrunk features to copy from.
        key_factor: What matched scores are multiplied by: the softmax's scale over the key's norm.
        patch_size: Height and width of a patch, odd.
        propagation_size: Length of the propagation's diagonal, odd; 1 for none.
        space: Memory for the blocks; the pieces "first" and "second" are overwritten by every call.

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
        self.batch, _, self.height, self.width = foreground.shape
        self.key_height, self.key_width = background.shape[-2:]
        self.reach, self.spread = patch_size // 2, propagation_size // 2
        self.padded_width = self.width + self.reach
        self.padded_key_width = self.key_width + self.reach
        self.queries = F.pad(foreground, (0, self.reach)).flatten(2)  # (B, C, h * padded_width)
        self.keys = F.pad(background, (0, self.reach)).flatten(2)  # (B, C, hb * padded_key_width)
        self.key_factor = key_factor[:, None, None]  # (B, 1, 1, hb, wb)
        self.key_count = self.key_height * self.key_width
        self.space = space
        self.slack = -(-self.spread // self.width)  # rows that `spread` steps along flat positions can lead to

    def scores(self, rows: Rows, name: str) -> tuple[Tensor, Tensor]:
        """Return scaled scores of some rows, and the matched ones they are made of.

        Args:
            rows: Rows of queries.
            name: Piece of memory for the matched scores.

        Shape:
            - returned: (B, rows * w, keys) in the piece "second", or in the named one without propagation;
              (B, matched rows * w, keys) in the named piece
        """
        if self.spread == 0:
            matched = self._matched(rows, name)
            return matched, matched
        inner = rows.widened(self.spread, self.height)
        # Rows that wrap to the far end of the grid; they are made first because they use the same memory.
        far = {y: self._spread_row(y % self.height, name) for y in self._wrapped(rows) if not self._has(inner, y)}
        have = inner.widened(self.slack, self.height)
        matched = self._matched(have, name)
        outer = self._outer(rows)
        along = self.space.take("first", self.batch, outer.size * self.width, self.key_count)
        add_diagonal(matched, self._part(along, outer, have), self.spread, 1, 1)
        for y in self._wrapped(rows):
            source = y % self.height
            near = self._part(along, outer, Rows(source, source + 1)) if self._has(inner, y) else far[y]
            moved_row(near, y // self.height, self._part(along, outer, Rows(y, y + 1)))
        scores = self.space.take("second", self.batch, rows.size * self.width, self.key_count)
        return self._spread_columns(along, outer, rows, scores), matched

    def start_gradient(self) -> None:
        """Start to collect gradients at zero."""
        self.grad_queries = torch.zeros_like(self.queries)
        self.grad_keys = torch.zeros_like(self.keys)
        self.grad_log_norm = self.keys.new_zeros(self.batch, self.key_count)

    def add_gradient(self, rows: Rows, grad: Tensor, matched: Tensor, name: str) -> None:
        """Add what the gradient of some rows' scores gives to the features and the norms.

        Args:
            rows: Rows of queries.
            grad: Gradient of their scaled scores; not in the pieces "first", "second" or "third".
            matched: What `scores` returned second.
            name: Piece of memory for matched scores of rows at the far end of the grid; it may hold `matched`.

        Shape:
            - grad: (B, rows * w, keys)
        """
        if self.spread == 0:
            return self._add_matched_gradient(rows, grad, matched)
        inner = rows.widened(self.spread, self.height)
        have = inner.widened(self.slack, self.height)
        outer = self._outer(rows)
        along = self.space.take("first", self.batch, outer.size * self.width, self.key_count)
        self._spread_columns_back(grad, rows, along, outer)
        far = []
        for y in self._wrapped(rows):
            source, strip = y % self.height, self._part(along, outer, Rows(y, y + 1))
            if self._has(inner, y):
                moved_row(strip, -(y // self.height), self._part(along, outer, Rows(source, source + 1)), True)
            else:
                far.append((source, strip.clone(), -(y // self.height)))
        self._add_spread_gradient(have, self._part(along, outer, have), matched)
        for source, strip, columns in far:
            have = Rows(source, source + 1).widened(self.slack, self.height)
            matched = self._matched(have, name)
            along = self.space.take("first", self.batch, have.size * self.width, self.key_count).zero_()
            moved_row(strip, columns, self._part(along, have, Rows(source, source + 1)))
            self._add_spread_gradient(have, along, matched)
        return None

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the collected gradients of foreground, background (as matched) and the logarithm of the norms."""
        queries = self.grad_queries.unflatten(2, (self.height, self.padded_width))[..., : self.width]
        keys = self.grad_keys.unflatten(2, (self.key_height, self.padded_key_width))[..., : self.key_width]
        return queries, keys, self.grad_log_norm.unflatten(1, (self.key_height, self.key_width))

    def _matched(self, rows: Rows, name: str) -> Tensor:
        gram_rows = rows.widened(self.reach, self.height)
        gram = self._padded("first", gram_rows)
        multiply(self._columns(self.queries, gram_rows).mT, self.keys, gram)
        if self.space.fuse:
            scores = self.space.take(name, self.batch, rows.size * self.width, self.key_count)
            skipped = rows.start - gram_rows.start
            compiled(match)(gram, self.key_factor, self._grids(scores), self.reach, skipped)
            return scores
        along = self._padded("second", gram_rows)
        add_diagonal(gram, along, self.reach, 1, 1)
        add_diagonal(along, gram, self.reach, self.padded_width, self.padded_key_width)
        scores = self.space.take(name, self.batch, rows.size * self.width, self.key_count)
        torch.mul(self._bare(gram, gram_rows, rows), self.key_factor, out=self._grids(scores))
        return scores

    def _spread_row(self, row: int, name: str) -> Tensor:
        have = Rows(row, row + 1).widened(self.slack, self.height)
        matched = self._matched(have, name)
        along = self.space.take("first", *matched.shape)
        add_diagonal(matched, along, self.spread, 1, 1)
        return self._part(along, have, Rows(row, row + 1)).clone()

    def _spread_columns(self, along: Tensor, outer: Rows, rows: Rows, out: Tensor) -> Tensor:
        here = self._part(along, outer, rows)
        for d in sorted(range(-self.spread, self.spread + 1), key=lambda d: d != 1):
            there = self._part(along, outer, Rows(rows.start + d, rows.stop + d))
            for target, source in column_runs(self.key_height, self.key_width, d) if d else []:
                if d == 1:  # the first: it also copies, so that out need not be filled before
                    torch.add(here[..., target], there[..., source], out=out[..., target])
                else:
                    out[..., target] += there[..., source]
            if d == 1:
                out[..., -1] = here[..., -1]  # the only cell without a next one
        return out

    def _spread_columns_back(self, grad: Tensor, rows: Rows, along: Tensor, outer: Rows) -> None:
        self._part(along, outer, Rows(outer.start, rows.start)).zero_()
        self._part(along, outer, Rows(rows.stop, outer.stop)).zero_()
        self._part(along, outer, rows).copy_(grad)
        for d in range(-self.spread, self.spread + 1):
            there = self._part(along, outer, Rows(rows.start + d, rows.stop + d))
            for target, source in column_runs(self.key_height, self.key_width, d) if d else []:
                there[..., source] += grad[..., target]

    def _add_spread_gradient(self, have: Rows, along: Tensor, matched: Tensor) -> None:
        grad = self.space.take("second", *matched.shape)
        self._add_matched_gradient(have, add_diagonal(along, grad, self.spread, 1, 1), matched)

    def _add_matched_gradient(self, rows: Rows, grad: Tensor, matched: Tensor) -> None:
        weighted = torch.mul(grad, matched, out=self.space.take("third", *matched.shape))
        self.grad_log_norm -= weighted.sum(dim=1)  # d(m / n) = -(m / n) d(log n)
        gram_rows = rows.widened(self.reach, self.height)
        padded = self._padded("first", gram_rows).zero_()
        torch.mul(self._grids(grad), self.key_factor, out=self._bare(padded, gram_rows, rows))
        along = self._padded("third", gram_rows)
        add_diagonal(padded, along, self.reach, self.padded_width, self.padded_key_width)
        gram = add_diagonal(along, self._padded("first", gram_rows), self.reach, 1, 1)
        multiply(self.keys, gram.mT, self._columns(self.grad_queries, gram_rows), accumulate=True)
        multiply(self._columns(self.queries, gram_rows), gram, self.grad_keys, accumulate=True)

    def _wrapped(self, rows: Rows) -> list[int]:
        return [y for y in range(rows.start - self.spread, rows.stop + self.spread) if not 0 <= y < self.height]

    def _has(self, rows: Rows, y: int) -> bool:
        return rows.start <= y % self.height < rows.stop

    def _outer(self, rows: Rows) -> Rows:
        have = rows.widened(self.spread, self.height).widened(self.slack, self.height)
        return Rows(min(have.start, rows.start - self.spread), max(have.stop, rows.stop + self.spread))

    def _padded(self, name: str, rows: Rows) -> Tensor:
        return self.space.take(name, self.batch, rows.size * self.padded_width, self.keys.shape[-1])

    def _columns(self, features: Tensor, rows: Rows) -> Tensor:
        return features[..., rows.start * self.padded_width : rows.stop * self.padded_width]

    def _part(self, block: Tensor, have: Rows, rows: Rows) -> Tensor:
        return block[:, (rows.start - have.start) * self.width : (rows.stop - have.start) * self.width]

    def _grids(self, block: Tensor) -> Tensor:
        return block.view(self.batch, -1, self.width, self.key_height, self.key_width)

    def _bare(self, padded: Tensor, have: Rows, rows: Rows) -> Tensor:
        grids = padded.view(self.batch, have.size, self.padded_width, self.key_height, self.padded_key_width)
        return grids[:, rows.start - have.start : rows.stop - have.start, : self.width, :, : self.key_width]
