"""Parts of feature maps: the numbers that the whole map would have there, from no more than they depend on."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from gicinpaint.models.layers import Convolution, Upsample, mirror_pad


class Rectangle(NamedTuple):
    """A part of an image, in pixels; bottom and right are the first row and column behind it."""

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

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns as slices, for the last two axes of an array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def joined(self, other: "Rectangle") -> "Rectangle":
        """Return the smallest rectangle that holds both."""
        return Rectangle(*map(min, self[:2], other[:2]), *map(max, self[2:], other[2:]))

    def grown(self, rows: int, columns: int, height: int, width: int) -> "Rectangle":
        """Return the rectangle with a margin, cut off at the borders of an image of `height` x `width`."""
        top, left = max(0, self.top - rows), max(0, self.left - columns)
        return Rectangle(top, left, min(height, self.bottom + rows), min(width, self.right + columns))


class Step(NamedTuple):
    """One layer on a part of its map."""

    layer: Convolution | Upsample
    needed: Rectangle  # what it reads of its input
    padding: tuple[int, int, int, int]  # cells beyond the borders of the whole map at the left, right, top and bottom
    result: Rectangle  # what it makes of its output

    @property
    def operations(self) -> float:
        """Products of numbers."""
        if isinstance(self.layer, Upsample):
            return 16 / 9 * self.layer.convolution.weight.numel() * self.needed.area  # of 4 x 4 weights
        return self.layer.weight.numel() * self.result.area

    def run(self, x: Tensor) -> Tensor:
        """Return the result from what is needed."""
        layer, (left, right, top, bottom) = self.layer, self.padding
        if isinstance(layer, Upsample):  # at most the outermost cells are those of a smaller map, and are cut off
            y, x0 = self.result.top - 2 * self.needed.top, self.result.left - 2 * self.needed.left
            return layer(x)[..., y : y + self.result.height, x0 : x0 + self.result.width]
        same = left == right and top == bottom and not layer.mirror
        if not same:
            x = mirror_pad(x, self.padding) if layer.mirror else F.pad(x, self.padding)
        inside = (top, left) if same else 0  # the convolution pads without a copy
        return layer.activate(F.conv2d(x, layer.weight, layer.bias, layer.stride, inside, layer.dilation))


def steps(layers: Sequence[nn.Module], size: tuple[int, int], result: Rectangle) -> list[Step]:
    """Return how a part of what layers make of a map of some height and width is computed.

    The part, `result`, is in cells of the last layer's output. Raises a TypeError if a layer is neither a convolution
    nor an upsampling.
    """
    sizes = []
    for layer in layers:
        if not isinstance(layer, Convolution | Upsample):
            raise TypeError(f"layers must be convolutions or upsamplings, got {type(layer).__name__}")
        sizes.append(size)
        size = tuple(2 * n if isinstance(layer, Upsample) else -(-n // layer.stride[0]) for n in size)  # type: ignore[assignment]
    found: list[Step] = []
    for layer, (h, w) in zip(reversed(layers), reversed(sizes), strict=True):
        assert isinstance(layer, Convolution | Upsample)
        top, bottom = _reach(layer, result.top, result.bottom, h)
        left, right = _reach(layer, result.left, result.right, w)
        needed = Rectangle(max(0, top), max(0, left), min(h, bottom), min(w, right))
        padding = (needed.left - left, right - needed.right, needed.top - top, bottom - needed.bottom)
        found.append(Step(layer, needed, padding, result))
        result = needed
    return found[::-1]


def compute(
    layers: Sequence[nn.Module], source: Callable[[Rectangle], Tensor], size: tuple[int, int], result: Rectangle
) -> Tensor:
    """Return a part, (B, channels, height, width), of what layers make of a map, as in the whole up to rounding.

    `source` returns any part of the map, (B, C, height, width); the other arguments are as for `steps`.
    """
    walk = steps(layers, size, result)
    x = source(walk[0].needed)
    for step in walk:
        x = step.run(x)
    return x


def _reach(layer: Convolution | Upsample, start: int, stop: int, size: int) -> tuple[int, int]:
    """Return the cells of an axis that a layer reads for some of its output, padding included."""
    if isinstance(layer, Upsample):
        return max(0, (start - 1) // 2), min(size, stop // 2 + 1)
    kernel, stride, dilation = layer.kernel_size[0], layer.stride[0], layer.dilation[0]
    before = layer.amounts(size)[0]
    return start * stride - before, (stop - 1) * stride - before + (kernel - 1) * dilation + 1
