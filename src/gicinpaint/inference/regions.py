"""How an image is divided where it does not fit the memory as a whole."""

from enum import StrEnum
from typing import NamedTuple

import numpy as np
from skimage.measure import label, regionprops
from torch import Tensor
from torch.nn import functional as F

from gicinpaint.inference.box import Box
from gicinpaint.inference.padding import padded_size

_BASE_BYTES = 200e6  # what a pass takes beside what grows with the image
_BYTES_PER_PIXEL = 1000  # measured from 256x256 to 1920x1080 at width 32: 690 to 930 beside the base
_CELL = 16  # pixels; holes are grouped on a grid of such cells
_NEAR = 2  # cells; holes that lie closer are filled together
_CONTEXT = 1.0  # known pixels around a hole on each side, in heights and widths of the hole
_LEAST_CONTEXT = 128  # pixels: what the dilated convolutions reach
_MOST_CONTEXT = 512


class Method(StrEnum):
    """How an image was filled."""

    NOTHING = "nothing to fill"
    WHOLE = "whole image"
    CROPS = "a crop around each hole"
    COARSE_TO_FINE = "filled at reduced size, refined at full size"


class Region(NamedTuple):
    """A part of an image that is filled by itself.

    Attributes:
        box: What the networks see.
        own: Part of it whose hole is painted.
        reduced: Whether the box is too large for one pass at full size.
    """

    box: Box
    own: Box
    reduced: bool


def most_pixels(max_memory: float) -> int:
    """Return how many pixels one pass may have.

    Args:
        max_memory: Bound on the memory of one pass, in GB.

    Raises:
        ValueError: If no useful pass fits it.
    """
    pixels = int((max_memory * 1e9 - _BASE_BYTES) / _BYTES_PER_PIXEL)
    if pixels < 256**2:
        least = (_BASE_BYTES + _BYTES_PER_PIXEL * 256**2) / 1e9
        raise ValueError(f"max_memory must be at least {least:.2g} GB, got {max_memory:g}; 3 suits most machines")
    return pixels


def divide(hole: Tensor, pixels: int) -> tuple[Method, list[Region]]:
    """Return the regions in which a hole is filled, and what that way is called.

    An image of at most `pixels` is one region. Of a larger one, holes that lie near each other are filled together in
    a crop with context: its own height and width on each side, at least 128 and at most 512 pixels, less where the
    memory asks for it. A group of holes whose crop is too large even so is filled at reduced size and then refined.

    Args:
        hole: bool (H, W).
        pixels: Most pixels of one pass.
    """
    h, w = hole.shape
    whole = Box(0, 0, h, w)
    height, width = padded_size(h, w)
    if height * width <= pixels:
        return Method.WHOLE, [Region(whole, whole, False)]
    regions = []
    for own in group(hole, pixels):
        rows, columns = (min(max(int(_CONTEXT * n), _LEAST_CONTEXT), _MOST_CONTEXT) for n in (own.height, own.width))
        box = own.grown(rows, columns, h, w)
        while _padded_area(box) > pixels and min(rows, columns) > _LEAST_CONTEXT // 2:
            rows, columns = int(rows * 0.8), int(columns * 0.8)
            box = own.grown(rows, columns, h, w)
        if _padded_area(box) > pixels:
            context = own.grown(max(own.height, _LEAST_CONTEXT), max(own.width, _LEAST_CONTEXT), h, w)
            regions.append(Region(context, own, True))
        else:
            regions.append(Region(box, own, False))
    reduced = any(region.reduced for region in regions)
    return Method.COARSE_TO_FINE if reduced else Method.CROPS, regions


def group(hole: Tensor, pixels: int) -> list[Box]:
    """Return boxes that do not overlap and hold the whole hole, bool (H, W); each fits a few near holes tightly."""
    h, w = hole.shape
    cells = F.max_pool2d(hole[None].float(), _CELL, ceil_mode=True)[0]
    near = F.max_pool2d(cells[None], 2 * _NEAR + 1, stride=1, padding=_NEAR)[0].bool().numpy()
    boxes = []
    for properties in regionprops(label(near, connectivity=2)):
        top, left, bottom, right = (int(edge) * _CELL for edge in properties.bbox)
        boxes.append(_tight(hole, Box(top, left, min(bottom, h), min(right, w))))
    return [_tight(hole, box) for box in _merged(boxes, pixels)]


def tiles(box: Box, size: int, overlap: int) -> list[Box]:
    """Return boxes of at most `size` x `size` pixels that cover a box and overlap by at least `overlap`."""

    def starts(first: int, length: int) -> list[int]:
        count = max(1, -(-(length - overlap) // (size - overlap)))
        return [first + round(i * (length - min(size, length)) / max(1, count - 1)) for i in range(count)]

    return [
        Box(top, left, min(top + size, box.bottom), min(left + size, box.right))
        for top in starts(box.top, box.height)
        for left in starts(box.left, box.width)
    ]


def _tight(hole: Tensor, box: Box) -> Box:
    rows, columns = np.nonzero(hole[box.slices].numpy())
    return Box(
        box.top + int(rows.min()),
        box.left + int(columns.min()),
        box.top + int(rows.max()) + 1,
        box.left + int(columns.max()) + 1,
    )


def _merged(boxes: list[Box], pixels: int) -> list[Box]:
    """Join boxes that overlap, until none do, and small ones that share most of their context."""
    boxes = sorted(boxes)
    joined = True
    while joined:
        joined = False
        result: list[Box] = []
        for box in boxes:
            for index, other in enumerate(result):
                both = box.joined(other)
                if _overlap(box, other) or (
                    both.area <= pixels // 16 and both.height <= _LEAST_CONTEXT and both.width <= _LEAST_CONTEXT
                ):
                    result[index], joined = both, True
                    break
            else:
                result.append(box)
        boxes = result
    return boxes


def _overlap(one: Box, other: Box) -> bool:
    rows = min(one.bottom, other.bottom) > max(one.top, other.top)
    return rows and min(one.right, other.right) > max(one.left, other.left)


def _padded_area(box: Box) -> int:
    height, width = padded_size(box.height, box.width)
    return height * width
