"""The window of the local critic against all windows, tried one by one."""

from __future__ import annotations

import pytest
import torch

from gicinpaint.masks import FreeFormMask
from gicinpaint.masks.sampler import hole_extent, hole_window
from holes import best_window, seeded


@pytest.mark.parametrize("size", [(3, 4), (5, 2), (1, 1), (9, 4), (9, 11), (6, 11)])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.3, 0.9, 1.0])
def test_the_window_is_the_best_of_all_windows(size: tuple[int, int], density: float) -> None:
    mask = (torch.rand(6, 1, 9, 11, generator=seeded()) < density).float()
    for dtype in (torch.float32, torch.bool):
        box = hole_window(mask.to(dtype), size)
        found = list(zip(box.top.tolist(), box.left.tolist(), strict=True))
        assert found == [best_window(image[0], *size) for image in mask]
        assert (box.height, box.width) == size


def test_the_window_of_strokes_is_the_best_of_all_windows() -> None:
    mask, box = FreeFormMask(box=(6, 5), brush=(1, 3), vertices=(2, 4))(4, 16, 20, generator=seeded())
    for image, top, left in zip(mask, box.top.tolist(), box.left.tolist(), strict=True):
        assert (top, left) == best_window(image[0], 6, 5)


def test_a_window_counts_holes_of_more_pixels_than_small_integers_hold() -> None:
    mask = torch.zeros(1, 1, 300, 400)
    mask[..., 20:290, 60:390] = 1
    box = hole_window(mask, (270, 330))  # 89100 pixels
    assert (box.top.item(), box.left.item()) == (20, 60)


def test_a_window_larger_than_the_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="box 4x5 must fit the image 4x4, needs 4x5; choose a smaller box"):
        hole_window(torch.ones(1, 1, 4, 4), (4, 5))


def test_the_extent_is_that_of_the_highest_and_the_widest_hole_of_a_batch() -> None:
    mask = torch.zeros(3, 1, 12, 16)
    mask[0, 0, 2, 3] = mask[0, 0, 6, 5] = 1  # 5 rows, 3 columns, with a gap between
    mask[1, 0, 9:11, 4:15] = 1  # 2 rows, 11 columns; the third mask has no hole
    assert hole_extent(mask) == (5, 11)
    assert hole_extent(mask[2:]) == (1, 1)
