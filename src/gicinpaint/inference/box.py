"""A part of an image."""

from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle of pixels; bottom and right are the first row and column behind it.

    Attributes:
        top: First row.
        left: First column.
        bottom: Last row + 1.
        right: Last column + 1.
    """

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def area(self) -> int:
        """Pixels."""
        return self.height * self.width

    def joined(self, other: "Box") -> "Box":
        """Return the smallest box that holds both."""
        return Box(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )

    def grown(self, rows: int, columns: int, height: int, width: int) -> "Box":
        """Return the box with a margin on each side, cut off at the borders of an image of `height` x `width`."""
        return Box(
            max(0, self.top - rows),
            max(0, self.left - columns),
            min(height, self.bottom + rows),
            min(width, self.right + columns),
        )

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns as slices, for the last two axes of an array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)
