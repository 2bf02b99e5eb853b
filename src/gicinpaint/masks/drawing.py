"""Rectangles and thick lines as pixels: the same ones on every machine."""

from typing import NamedTuple

import numpy as np
import torch
from kornia.geometry.bbox import bbox_to_mask
from torch import Tensor

_NOWHERE = 2**40  # left end of an empty span; beyond every image


def fill_rectangles(edges: Tensor, height: int, width: int) -> Tensor:
    """Draw the union of each image's rectangles.

    Args:
        edges: First row and column of each rectangle, and the row and column after its last; empty ones are legal.
        height: Height of the images in pixels.
        width: Width of the images in pixels.

    Shape:
        - edges: int64 (B, N, 4): top, left, bottom, right
        - returned: float32 (B, 1, H, W), {0, 1}
    """
    if edges.device.type != "cpu":
        return _fill_at_once(edges, height, width)
    mask = torch.zeros(len(edges), 1, height, width)
    for image, rectangles in zip(mask.numpy()[:, 0], edges.tolist(), strict=True):
        for top, left, bottom, right in rectangles:
            image[top:bottom, left:right] = 1
    return mask


def _fill_at_once(edges: Tensor, height: int, width: int) -> Tensor:
    """Draw the rectangles of a batch with few large steps: an accelerator's way; a processor is slower by it."""
    b, n, _ = edges.shape
    top, left, bottom, right = edges.reshape(b * n, 4).float().unbind(-1)
    corners = torch.stack([left, top, right - 1, top, right - 1, bottom - 1, left, bottom - 1], -1)
    filled = bbox_to_mask(corners.reshape(b * n, 4, 2), width, height).reshape(b, n, height, width)
    return filled if n == 1 else filled.amax(1, keepdim=True)


class Spans(NamedTuple):
    """Runs of pixels inside the image, one for each row that a capsule touches, in their order; int64 (N,) each."""

    capsule: np.ndarray
    row: np.ndarray
    first: np.ndarray
    last: np.ndarray


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
