from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import golden
from gicinpaint.losses import (
    BoxReconstruction,
    HoleReconstruction,
    discounted_l1,
    hole_discount,
    known_l1,
    spatial_discount,
)
from gicinpaint.models.compositing import Box

DISCOUNTS = golden.load("spatial_discounting_mask.npz")


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


@pytest.mark.parametrize("name", sorted(golden.section(DISCOUNTS, "mask_")))
def test_the_boxs_discount_equals_the_golden_one(name: str) -> None:
    size, gamma = name.split("_gamma")
    discount = spatial_discount(*map(int, size.split("x")), gamma=float(gamma))
    torch.testing.assert_close(discount, DISCOUNTS[f"mask_{name}"], rtol=1e-6, atol=0)


def _slow_discount(mask: Tensor, gamma: float) -> Tensor:
    """Weights by visiting every known pixel for every hole pixel."""
    discount = torch.zeros_like(mask)
    for item, row, column in (mask[:, 0] == 1).nonzero().tolist():
        known = (mask[item, 0] == 0).nonzero().tolist()
        distances = [((row - r) ** 2 + (column - c) ** 2) ** 0.5 for r, c in known]
        discount[item, 0, row, column] = gamma ** min(distances) if known else 0
    return discount


@pytest.mark.parametrize("gamma", [0.5, 0.99, 1.0])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 9)])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.98])
def test_the_holes_discount_equals_a_loop_over_known_pixels(
    share: float, height: int, width: int, gamma: float
) -> None:
    mask = (torch.rand(4, 1, height, width, generator=torch.Generator().manual_seed(5)) < share).double()
    mask[0], mask[1] = 0, 1  # an empty hole, and no known pixel at all
    expected = _slow_discount(mask, gamma)
    torch.testing.assert_close(hole_discount(mask, gamma).double(), expected, rtol=1e-5, atol=0)


def test_the_holes_discount_equals_scipys_distance_transform() -> None:
    mask = (torch.rand(2, 1, 31, 44, generator=torch.Generator().manual_seed(1)) < 0.995).float()
    mask[1, :, 3:28, 5:30] = 1
    expected = torch.stack([torch.from_numpy(0.9 ** distance_transform_edt(item[0].numpy())) for item in mask])
    torch.testing.assert_close(hole_discount(mask, 0.9).double(), expected[:, None] * mask, rtol=1e-5, atol=0)


class _Largest(TorchDispatchMode):
    """Note the size of the largest tensor that anything returns, in bytes."""

    size = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.size = max(self.size, result.nbytes)
        return result


def test_the_holes_discount_of_a_large_mask_is_made_in_parts() -> None:
    """All sums of a vertical and a horizontal distance at once would be 256^3 numbers, 67 MB."""
    mask = torch.ones(1, 1, 256, 256)
    mask[..., 128] = 0
    with _Largest() as largest:
        weights = hole_discount(mask, 0.9)
    assert largest.size <= 4 * 2**20
    expected = 0.9 ** (torch.arange(256) - 128).abs().double() * mask
    torch.testing.assert_close(weights.double(), expected, rtol=1e-5, atol=0)


def test_discounted_error_equals_a_hand_calculation() -> None:
    image, prediction = torch.zeros(1, 2, 1, 2), torch.tensor([[[[1.0, -2.0]], [[3.0, 0.5]]]])
    error = discounted_l1(prediction, image, torch.tensor([[[[1.0, 0.5]]]]))
    assert error.item() == (1 + 1 + 3 + 0.25) / 4


def test_known_error_of_different_masks_is_the_mean_of_batches_of_one() -> None:
    image, prediction = _random(4, 3, 8, 8), _random(4, 3, 8, 8, seed=1)
    mask = (_random(4, 1, 8, 8, seed=2) > torch.tensor([-0.5, 0.0, 0.7, -2.0])[:, None, None, None]).double()
    assert mask[3].all()  # nothing known: counts as 0
    error = (prediction - image).abs()
    expected = [error[i][:, mask[i, 0] == 0].mean().item() for i in range(3)]
    assert known_l1(prediction, image, mask).item() == pytest.approx(sum(expected) / 4)
    single = [known_l1(*(x[i : i + 1] for x in (prediction, image, mask))).item() for i in range(4)]
    assert known_l1(prediction, image, mask).item() == pytest.approx(np.mean(single))


def test_one_mask_serves_the_whole_batch() -> None:
    image, prediction, mask = _random(3, 3, 8, 8), _random(3, 3, 8, 8, seed=1), torch.ones(1, 1, 8, 8)
    mask[..., 2:] = 0
    for loss in (known_l1, lambda p, i, m: HoleReconstruction()(p, i, m, None)):
        torch.testing.assert_close(loss(prediction, image, mask), loss(prediction, image, mask.expand(3, -1, -1, -1)))


def test_box_error_weighs_each_images_own_box() -> None:
    image, prediction = torch.zeros(2, 1, 6, 6), torch.zeros(2, 1, 6, 6)
    prediction[0, 0, 0, 1] = 1.0  # outside image 0's box
    prediction[0, 0, 2, 2] = 1.0  # second row and column of its box: weight 0.5
    prediction[1, 0, 0, 4] = 1.0  # first row of image 1's box: weight 1
    box = Box(torch.tensor([1, 0]), torch.tensor([1, 3]), 4, 3)
    loss = BoxReconstruction(0.5)(prediction, image, torch.zeros(2, 1, 6, 6), box)
    assert loss.item() == pytest.approx(1.5 / (2 * 4 * 3))


def test_hole_error_is_divided_by_each_images_hole() -> None:
    image, prediction = _random(3, 3, 8, 8), _random(3, 3, 8, 8, seed=1)
    mask = torch.zeros(3, 1, 8, 8, dtype=torch.float64)
    mask[0, :, :3, 2:], mask[1, :, 4:, 4:] = 1, 1  # the third hole is empty: counts as 0
    box = Box(torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), 8, 8)
    error = (prediction - image).abs() * _slow_discount(mask, 0.9)
    expected = sum(error[i].sum().item() / (3 * mask[i].sum().item()) for i in range(2)) / 3
    assert HoleReconstruction(0.9)(prediction, image, mask, box).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, -0.5, 1.1, float("nan")])
@pytest.mark.parametrize(
    "build",
    [
        lambda gamma: spatial_discount(4, 4, gamma),
        lambda gamma: hole_discount(torch.ones(1, 1, 4, 4), gamma),
        BoxReconstruction,
        HoleReconstruction,
    ],
)
def test_a_factor_out_of_range_is_reported(build: Any, gamma: float) -> None:
    with pytest.raises(ValueError, match=rf"gamma must lie in \(0, 1\], got {gamma}; the released value is 0.9"):
        build(gamma)


def test_an_empty_box_is_reported() -> None:
    with pytest.raises(ValueError, match="height and width must be positive, got 0x3; pass the size of the box"):
        spatial_discount(0, 3)


@pytest.mark.parametrize("loss", [lambda p, i: discounted_l1(p, i, torch.ones(1)), lambda p, i: known_l1(p, i, p)])
def test_predictions_of_another_shape_are_reported(loss: Any) -> None:
    with pytest.raises(ValueError, match=r"prediction must have the shape of image, \(2, 3, 4, 4\), got"):
        loss(torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4, 4))


def test_masks_that_are_not_binary_are_reported() -> None:
    image, mask = torch.zeros(2, 3, 4, 4), torch.full((2, 1, 4, 4), 0.5)
    for loss in (
        lambda: hole_discount(mask),
        lambda: known_l1(image, image, mask),
    ):
        with pytest.raises(ValueError, match="mask must hold only 0"):
            loss()
