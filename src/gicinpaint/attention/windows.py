"""Ranges of rows and columns, and memory for the rows that a walk over blocks keeps from one step to the next."""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor


class Span(NamedTuple):
    """A range of rows or of columns of a grid, the second excluded; it may leave the grid."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """The number of rows or columns."""
        return self.stop - self.start

    def widened(self, count: int, limit: int) -> "Span":
        """Return the range with more at both ends, as far as the grid goes."""
        return Span(max(0, self.start - count), min(limit, self.stop + count))

    def moved(self, count: int) -> "Span":
        """Return the range so many rows or columns further."""
        return Span(self.start + count, self.stop + count)

    def within(self, other: "Span") -> "Span":
        """Return what both ranges share; its size is not positive if that is nothing."""
        return Span(max(self.start, other.start), min(self.stop, other.stop))

    def seen_from(self, other: "Span") -> slice:
        """Return where this range lies in memory that begins with another one."""
        return slice(self.start - other.start, self.stop - other.start)


def wrapped_pieces(columns: Span, width: int) -> Iterator[tuple[int, Span, int]]:
    """Yield the parts of a range of columns that leaves the grid: off the end of a row, the next one begins.

    Args:
        columns: The range.
        width: Columns of the grid.

    Returns:
        For each part: how many rows further it lies, its columns there, and the place of its first column in the
        range.

    Example:
        >>> list(wrapped_pieces(Span(-1, 3), 3))
        [(-1, Span(start=2, stop=3), 0), (0, Span(start=0, stop=3), 1)]
    """
    for carry in range(columns.start // width, (columns.stop - 1) // width + 1):
        part = columns.within(Span(carry * width, (carry + 1) * width))
        yield carry, part.moved(-carry * width), part.start - columns.start


class RowWindow:
    """Memory for some rows of a walk downwards; rows that two steps share stay, so nothing is made twice.

    Args:
        memory: Room for the rows of any step.
        pitch: Query cells per row.

    Shape:
        - memory: (B, rows * pitch, keys)
    """

    def __init__(self, memory: Tensor, pitch: int) -> None:
        self.memory, self.pitch = memory, pitch
        self.rows = Span(0, 0)

    def advance(self, rows: Span) -> Span:
        """Hold some rows, which begin and end no earlier than those held before; return which of them are missing."""
        shared = rows.within(self.rows)
        if shared.size > 0 and rows.start > self.rows.start:
            for row in range(shared.start, shared.stop):  # one by one, because source and target may overlap
                self.memory[:, self._place(row, rows)] = self.memory[:, self._place(row, self.rows)]
        self.rows = rows
        return Span(shared.stop, rows.stop) if shared.size > 0 else rows

    def part(self, rows: Span) -> Tensor:
        """Return the memory of some of the rows: (B, rows * pitch, keys)."""
        where = rows.seen_from(self.rows)
        return self.memory[:, where.start * self.pitch : where.stop * self.pitch]

    @property
    def held(self) -> Tensor:
        """The memory of all rows held."""
        return self.part(self.rows)

    def _place(self, row: int, rows: Span) -> slice:
        first = (row - rows.start) * self.pitch
        return slice(first, first + self.pitch)
