"""Patch distance against a slow loop: patches one by one, projected and sorted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gicinpaint.metrics import PatchDistance


def case(b: int = 3, h: int = 13, w: int = 17, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions that are smoother than the images, and holes that reach the border."""
    rng = torch.Generator().manual_seed(seed)
    image = torch.rand(b, 3, h, w, generator=rng) * 2 - 1
    prediction = torch.nn.functional.avg_pool2d(image, 3, 1, 1)
    region = torch.zeros(b, 1, h, w)
    region[:, :, 2:9, 4:] = 1
    region[1] = 0
    region[1, :, :, 6] = 1
    return prediction, image, region


def slow_distance(metric: PatchDistance, prediction: Tensor, image: Tensor, region: Tensor) -> float:
    """Wasserstein-1 of two samples of equal size is the mean difference of their sorted values; no bins."""
    size, directions = metric.patch_size, metric.directions.double().numpy()
    samples: list[list[np.ndarray]] = [[], []]
    for side, images in enumerate((prediction, image)):
        for one, hole in zip(((images + 1) / 2).double().numpy(), region[:, 0].numpy(), strict=True):
            for y in range(hole.shape[0] - size + 1):
                for x in range(hole.shape[1] - size + 1):
                    if hole[y + size // 2, x + size // 2]:
                        samples[side].append(one[:, y : y + size, x : x + size].ravel())
    distances = []
    for direction in directions:
        completed, true = (np.sort(np.stack(patches) @ direction.ravel()) for patches in samples)
        distances.append(np.abs(completed - true).mean())
    return float(np.mean(distances))


@pytest.mark.parametrize("size", [1, 4, 7])
def test_it_is_the_mean_distance_of_sorted_projections(size: int) -> None:
    metric = PatchDistance(size, projections=16)
    for batch in zip(*(x.split([2, 1]) for x in case()), strict=True):  # two batches
        metric.update(*batch)
    expected = slow_distance(metric, *case())
    assert expected > 0.02
    assert metric.compute().item() == pytest.approx(expected, abs=float(metric.bin_width.mean()))  # bins round


def test_equal_images_are_at_0_and_order_within_the_set_does_not_matter() -> None:
    _, image, region = case()
    same, shuffled = PatchDistance(5), PatchDistance(5)
    same.update(image, image, region)
    assert same.compute() == 0
    whole = torch.ones_like(region)
    shuffled.update(image[[1, 2, 0]], image, whole)  # as a set they are alike
    assert shuffled.compute() == 0


def test_blur_is_farther_than_a_fresh_sample_of_the_same_texture() -> None:
    prediction, image, region = case(h=40, w=40)
    other = case(h=40, w=40, seed=1)[1]
    blurred, fresh = PatchDistance(7), PatchDistance(7)
    blurred.update(prediction, image, region)
    fresh.update(other, image, region)
    assert fresh.compute() < 0.3 * blurred.compute()


def test_holes_without_a_whole_patch_have_no_distance() -> None:
    _, image, region = case()
    for size, hole in ((7, torch.zeros_like(region)), (15, torch.ones_like(region))):  # images of 13x17
        metric = PatchDistance(size)
        metric.update(image, image, hole)
        assert math.isnan(metric.compute())


def test_settings_that_do_not_fit_are_reported() -> None:
    with pytest.raises(ValueError, match="patch_size and projections must be positive, got 0 and 128"):
        PatchDistance(0)
