"""Fillings meet the known pixels: the membrane is the exact solution, feathers fade, seams go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from gicinpaint.inference.blending import FEATHER, blended


def smooth(height: int, width: int, seed: int) -> torch.Tensor:
    noise = np.random.default_rng(seed).normal(size=(3, height, width))
    return torch.from_numpy(np.stack([gaussian_filter(plane, 4) * 2 for plane in noise]).astype(np.float32))


def holes(height: int, width: int) -> torch.Tensor:
    """One in the middle, one in a corner, one that touches a side."""
    hole = torch.zeros(height, width, dtype=torch.bool)
    hole[height // 4 : 3 * height // 4, width // 5 : 4 * width // 5] = True
    hole[: height // 8, : width // 8] = True
    hole[height // 2, : width // 2] = True
    return hole


def membrane(difference: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The linear system, pixel by pixel: each hole pixel is the mean of its neighbours in the image."""
    number = np.full(hole.shape, -1)
    number[hole] = range(int(hole.sum()))
    system, right = lil_matrix((hole.sum(), hole.sum())), np.zeros((int(hole.sum()), 3))
    for y, x in zip(*np.nonzero(hole), strict=True):
        beside = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        beside = [(v, u) for v, u in beside if 0 <= v < hole.shape[0] and 0 <= u < hole.shape[1]]
        system[number[y, x], number[y, x]] = len(beside)
        for v, u in beside:
            if hole[v, u]:
                system[number[y, x], number[v, u]] = -1
            else:
                right[number[y, x]] += difference[:, v, u]
    return spsolve(system.tocsr(), right).T


@pytest.mark.parametrize("size", [(20, 30), (64, 90), (130, 120)])
def test_poisson_adds_the_membrane_of_the_difference(size: tuple[int, int]) -> None:
    prediction, image, hole = smooth(*size, 1) / 2, smooth(*size, 2) / 2, holes(*size)
    expected = membrane((image - prediction).double().numpy(), hole.numpy())
    result = blended(prediction, image, hole, "poisson")
    correction = (result - prediction)[:, hole].numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(correction, expected, atol=1 / 127.5)  # a level of 8 bits


def test_poisson_removes_a_shift_of_colour_everywhere_and_feather_at_the_edge_only() -> None:
    truth, hole = smooth(80, 80, 3) / 2, torch.zeros(80, 80, dtype=torch.bool)
    hole[10:70, 10:70] = True
    shift = torch.tensor([0.2, -0.1, 0.05])[:, None, None]
    poisson = blended(truth + shift, truth, hole, "poisson")
    torch.testing.assert_close(poisson[:, hole], truth[:, hole], atol=2e-3, rtol=0)
    feather = blended(truth + shift, truth, hole, "feather")
    middle = (slice(None), slice(10 + FEATHER, 70 - FEATHER), slice(10 + FEATHER, 70 - FEATHER))
    torch.testing.assert_close(feather[middle], (truth + shift)[middle])
    for depth in range(FEATHER):  # from 15/16 of the shift taken away to nothing, in a straight line
        row = feather[:, 10 + depth, 40] - truth[:, 10 + depth, 40]
        torch.testing.assert_close(row, shift[:, 0, 0] * (depth + 1) / FEATHER, atol=1e-3, rtol=0)


def test_nothing_is_added_where_prediction_and_image_agree() -> None:
    image, hole = smooth(40, 50, 4) / 2, holes(40, 50)
    for blend in ("none", "feather", "poisson"):
        torch.testing.assert_close(blended(image, image, hole, blend)[:, hole], image[:, hole], atol=1e-6, rtol=0)


def test_values_stay_in_range() -> None:
    hole = holes(30, 30)
    for blend in ("feather", "poisson"):
        result = blended(torch.ones(3, 30, 30), torch.where(hole, 0.0, 1.0) * 1.0 + torch.zeros(3, 30, 30), hole, blend)
        assert result.abs().max() <= 1
