"""Slow and plain ways to draw and measure holes, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hole_edges(mask: torch.Tensor) -> tuple[int, int, int, int]:
    """First row, first column, last row + 1, last column + 1 of the hole of one image (1, H, W)."""
    rows = [row for row in range(mask.shape[1]) if mask[0, row].any()]
    columns = [column for column in range(mask.shape[2]) if mask[0, :, column].any()]
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def rectangle(height: int, width: int, *edges: int) -> torch.Tensor:
    """One filled rectangle (1, H, W), pixel by pixel."""
    top, left, bottom, right = edges
    rows = [[float(top <= y < bottom and left <= x < right) for x in range(width)] for y in range(height)]
    return torch.tensor([rows])


def best_window(hole: torch.Tensor, height: int, width: int) -> tuple[int, int]:
    """The window with most of the hole (H, W), then the most central, topmost and leftmost one; by trying all."""
    places = [(int(y), int(x)) for y, x in hole.nonzero()]
    total = max(1, len(places))
    middle = (sum(y for y, _ in places) // total, sum(x for _, x in places) // total)

    def rank(place: tuple[int, int]) -> tuple[float, ...]:
        top, left = place
        held = sum(top <= y < top + height and left <= x < left + width for y, x in places)
        down, right = top + (height - 1) / 2 - middle[0], left + (width - 1) / 2 - middle[1]
        return -held, down**2 + right**2, top, left

    tops, lefts = range(hole.shape[0] - height + 1), range(hole.shape[1] - width + 1)
    return min(((top, left) for top in tops for left in lefts), key=rank)


def save_mask(path: Path) -> None:
    """Save a mask file of 32 x 32 whose hole is 8 rows of 8 white pixels."""
    picture = Image.new("L", (32, 32))
    picture.paste(255, (8, 8, 16, 16))
    picture.save(path)
