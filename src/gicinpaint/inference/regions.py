"""Large images: how one that does not fit the memory as a whole is divided into regions."""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from skimage.measure import label, regionprops
from torch import Tensor
from torch.nn import functional as F

from gicinpaint.models.generator import SIZE_MULTIPLE
from gicinpaint.models.windows import Rectangle

_BASE_BYTES = 200e6  # what a pass takes beside what grows with the image
_BYTES_PER_PIXEL = 1000  # measured from 256x256 to 1920x1080 at width 32: 690 to 930 beside the base
_CELL = 16  # pixels; holes are grouped on a grid of such cells
_NEAR = 2  # cells; holes that lie closer are filled together
_LEAST_CONTEXT = 128  # pixels: what the dilated convolutions reach
_MOST_CONTEXT = 512


class Method(StrEnum):
    """How an image was filled."""

    NOTHING = "nothing to fill"
    WHOLE = "whole image"
    EXACT = "around the holes only"  # with the result of the whole image
    CROPS = "in crops around the holes"
    COARSE_TO_FINE = "at reduced size, then refined"


class Region(NamedTuple):
    """A part of an image that is filled by itself."""

    box: Rectangle  # what the networks see
    own: Rectangle  # the part of it whose hole is painted
    reduced: bool  # whether the box is too large for one pass at full size


def most_pixels(max_memory: float) -> int:
    """Return how many pixels one pass may have within a bound on its memory in GB.

    Raises:
        ValueError: If no useful pass fits it.
    """
    pixels = int((max_memory * 1e9 - _BASE_BYTES) / _BYTES_PER_PIXEL)
    if pixels < 256**2:
        least = (_BASE_BYTES + _BYTES_PER_PIXEL * 256**2) / 1e9
        raise ValueError(f"max_memory must be at least {least:.2g} GB, got {max_memory:g}; 3 suits most machines")
    return pixels


def padded_size(height: int, width: int) -> tuple[int, int]:
    """Return the next multiples of 8."""
    return -(-height // SIZE_MULTIPLE) * SIZE_MULTIPLE, -(-width // SIZE_MULTIPLE) * SIZE_MULTIPLE


def divide(hole: Tensor, pixels: int) -> tuple[Method, list[Region]]:
    """Return the regions in which a hole is filled, and what that way is called.

    An image of at most `pixels` is one region. In a larger one, near holes are filled together in a crop with context:
    their own height and width on each side, at least 128 and at most 512 pixels, less where the memory asks for it. A
    group of holes whose crop is too large even so is filled at reduced size and then refined. The hole is bool (H, W).
    """
    h, w = hole.shape
    whole = Rectangle(0, 0, h, w)
    if _padded_area(whole) <= pixels:
        return Method.WHOLE, [Region(whole, whole, False)]
    regions = []
    for own in group(hole, pixels):
        rows, columns = (min(max(n, _LEAST_CONTEXT), _MOST_CONTEXT) for n in (own.height, own.width))
        box = own.grown(rows, columns, h, w)
        while _padded_area(box) > pixels and min(rows, columns) > _LEAST_CONTEXT // 2:
            rows, columns = int(rows * 0.8), int(columns * 0.8)
            box = own.grown(rows, columns, h, w)
        reduced = _padded_area(box) > pixels
        if reduced:
            box = own.grown(max(own.height, _LEAST_CONTEXT), max(own.width, _LEAST_CONTEXT), h, w)
        regions.append(Region(box, own, reduced))
    return Method.COARSE_TO_FINE if any(region.reduced for region in regions) else Method.CROPS, regions


def group(hole: Tensor, pixels: int) -> list[Rectangle]:
    """Return disjoint rectangles that hold the whole hole, bool (H, W); each fits a few near holes tightly."""

    def together(one: Rectangle, other: Rectangle) -> bool:
        both = one.joined(other)
        if max(both.height, both.width) <= _LEAST_CONTEXT and both.area <= pixels // 16:
            return True  # both are small and share most of their context
        rows = min(one.bottom, other.bottom) > max(one.top, other.top)
        return rows and min(one.right, other.right) > max(one.left, other.left)

    boxes = merged(groups(hole), together)
    return [tight(hole, box) for box in boxes]


def groups(hole: Tensor) -> list[Rectangle]:
    """Return a rectangle for each group of near holes, bool (H, W); they may overlap."""
    cells = F.max_pool2d(hole[None].float(), _CELL, ceil_mode=True)
    near = F.max_pool2d(cells, 2 * _NEAR + 1, stride=1, padding=_NEAR)[0].bool().numpy()
    found = (properties.bbox for properties in regionprops(label(near, connectivity=2)))
    return [tight(hole, Rectangle(*(int(edge) * _CELL for edge in bbox))) for bbox in found]


def tiles(box: Rectangle, size: int, overlap: int) -> list[Rectangle]:
    """Return as few rectangles of at most `size` x `size` pixels as cover a box and overlap by at least `overlap`.

    They are as small as that number allows, in steps of 8 pixels.
    """

    def sides(first: int, length: int) -> list[tuple[int, int]]:
        count = max(1, -(-(length - overlap) // (size - overlap)))
        side = min(length, size, padded_size(-(-(length + (count - 1) * overlap) // count), 1)[0])
        starts = (first + round(i * (length - side) / max(1, count - 1)) for i in range(count))
        return [(start, start + side) for start in starts]

    rows, columns = sides(box.top, box.height), sides(box.left, box.width)
    return [Rectangle(top, left, bottom, right) for top, bottom in rows for left, right in columns]


def tight(hole: Tensor, box: Rectangle) -> Rectangle:
    """Return the smallest rectangle that holds a box's part of the hole, which must not be empty."""
    rows, columns = (places + start for places, start in zip(np.nonzero(hole[box.slices].numpy()), box, strict=False))
    return Rectangle(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)


def merged(boxes: list[Rectangle], together: Callable[[Rectangle, Rectangle], bool]) -> list[Rectangle]:
    """Join rectangles that belong together, until none do."""
    boxes, before = sorted(boxes), -1
    while len(boxes) != before:
        before, result = len(boxes), list[Rectangle]()
        for box in boxes:
            index = next((i for i, other in enumerate(result) if together(box, other)), None)
            if index is None:
                result.append(box)
            else:
                result[index] = box.joined(result[index])
        boxes = result
    return boxes


def _padded_area(box: Rectangle) -> int:
    height, width = padded_size(box.height, box.width)
    return height * width
