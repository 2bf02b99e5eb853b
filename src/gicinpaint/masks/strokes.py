"""Strokes of a brush as straight segments with round ends: their pixels in whole numbers, or by kornia's polygons."""

import math
from typing import NamedTuple

import numpy as np
import torch
from kornia.image import draw_convex_polygon
from torch import Tensor

from gicinpaint.masks.sampler import Device

_NOWHERE = 2**40  # left end of an empty span; beyond every image
_CORNERS = 48  # of a round end: its polygon is within 0.1 pixels of the circle for every brush below 90


class Segment(NamedTuple):
    """A straight line of a stroke, in pixels, with round ends."""

    image: int
    x0: int
    y0: int
    x1: int
    y1: int
    brush: int


class Spans(NamedTuple):
    """Runs of pixels inside the image, one for each row that a capsule touches, in their order; int64 (N,) each."""

    capsule: np.ndarray
    row: np.ndarray
    first: np.ndarray
    last: np.ndarray


def draw_by_kornia(segments: list[Segment], batch_size: int, height: int, width: int, device: Device = None) -> Tensor:
    """Draw each image's segments as convex polygons of kornia, all of an image at once, on a device.

    Shape:
        - returned: uint8 (B, H, W), {0, 1}
    """
    canvas = torch.zeros(batch_size, height, width, dtype=torch.uint8, device=device)
    table = torch.tensor(segments, dtype=torch.float32, device=canvas.device)  # (N, 6)
    along = table[:, 3:5] - table[:, 1:3]
    fan = torch.linspace(-math.pi / 2, math.pi / 2, _CORNERS, device=canvas.device)
    turns = torch.atan2(along[:, 1], along[:, 0])[:, None] + fan  # (N, corners)
    reach = table[:, 5, None, None] / 2 * torch.stack([turns.cos(), turns.sin()], -1)
    polygons = torch.cat([table[:, None, 3:5] + reach, table[:, None, 1:3] - reach], 1)  # around the end, the start
    for image in table[:, 0].long().unique().tolist():
        own = polygons[table[:, 0] == image]
        blank = canvas.new_zeros((len(own), 1, height, width), dtype=torch.float32)
        canvas[image] = draw_convex_polygon(blank, own, blank.new_ones(len(own), 1)).amax((0, 1)) > 0
    return canvas


def find_spans(capsules: np.ndarray, height: int, width: int) -> Spans:
    """Find the pixels whose distance from a line is at most half of its thickness.

    A row of such a capsule is one run of pixels, from the leftmost to the rightmost of what the row shares with
    the disc around the start, the disc around the end and the band between them. All comparisons are of whole
    numbers, with square roots that IEEE 754 rounds alike everywhere.

    Args:
        capsules: Start x and y, end x and y, thickness in whole pixels, int64 (N, 5).
        height: Height of the image in pixels.
        width: Width of the image in pixels.
    """
    reach = capsules[:, 4] // 2
    top = np.maximum(np.minimum(capsules[:, 1], capsules[:, 3]) - reach, 0)
    bottom = np.minimum(np.maximum(capsules[:, 1], capsules[:, 3]) + reach, height - 1)
    rows = np.maximum(bottom - top + 1, 0)
    capsule = np.arange(len(capsules)).repeat(rows)
    ends = rows.cumsum()
    row = np.arange(len(capsule)) + (top - ends + rows)[capsule]
    x0, y0, x1, y1, thickness = capsules.T[:, capsule]
    square = thickness * thickness
    first, last = _disc(x0, row - y0, square)
    for some_first, some_last in (_disc(x1, row - y1, square), _band(x0, row - y0, x1 - x0, y1 - y0, square)):
        np.minimum(first, some_first, out=first)
        np.maximum(last, some_last, out=last)
    np.maximum(first, 0, out=first)
    np.minimum(last, width - 1, out=last)
    inside = first <= last
    return Spans(capsule[inside], row[inside], first[inside], last[inside])


def fill_spans(row: np.ndarray, first: np.ndarray, last: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the union of runs of pixels, bool (height, width)."""
    change = np.zeros(height * (width + 1), np.int32)  # how many runs begin at each pixel, less those that have ended
    np.add.at(change, row * (width + 1) + first, np.int32(1))
    np.subtract.at(change, row * (width + 1) + last + 1, np.int32(1))
    covers = change.cumsum(dtype=np.int32)  # from row to row: all runs have ended before a row does
    return covers.reshape(height, width + 1)[:, :width] > 0


def _disc(x: np.ndarray, y: np.ndarray, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns p with 4 (p - x)² + 4 y² <= square; an empty run ends before it starts."""
    rest = square - 4 * y * y
    half = np.where(rest < 0, -_NOWHERE, _root(np.maximum(rest, 0)) // 2)
    return x - half, x + half


def _band(
    x: np.ndarray, q: np.ndarray, u: np.ndarray, v: np.ndarray, square: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns x + p with 0 <= p u + q v <= u² + v², beside the line, and |p v - q u| <= across, near it."""
    length = u * u + v * v
    across = _root(square * length) // 2
    low_along, high_along = _divide(-q * v, length - q * v, u)
    low_across, high_across = _divide(q * u - across, q * u + across, v)
    low, high = np.maximum(low_along, low_across), np.minimum(high_along, high_across)
    empty = (low > high) | (length == 0)  # a dot is a disc alone
    return np.where(empty, _NOWHERE, x + low), np.where(empty, -_NOWHERE, x + high)


def _divide(low: np.ndarray, high: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the whole numbers p with low <= p factor <= high; for a factor of 0 all, if 0 lies between, or none."""
    flipped = factor < 0
    low, high = np.where(flipped, -high, low), np.where(flipped, -low, high)
    divisor = np.where(factor == 0, 1, np.abs(factor))
    free = np.where((low <= 0) & (high >= 0), _NOWHERE, -_NOWHERE)
    first, last = -(-low // divisor), high // divisor
    return np.where(factor == 0, -free, first), np.where(factor == 0, free, last)


def _root(square: np.ndarray) -> np.ndarray:
    """Return the square root, rounded down; exact below 2^52: lines of 10,000 pixels and a thickness of 6,000."""
    return np.sqrt(square.astype(np.float64)).astype(np.int64)
