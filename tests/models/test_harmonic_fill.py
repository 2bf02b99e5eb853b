"""The smooth filling against Laplace's equation solved as a dense linear system."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gicinpaint.models.harmonic_fill import fill_harmonically, solve_laplace

SIZES = [(24, 24), (13, 21), (40, 64), (8, 8)]


def laplace(image: NDArray[np.float64], hole: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Solve for the hole's pixels: each is the mean of its neighbours, and the border's outer neighbours are itself."""
    h, w = hole.shape
    cells = list(zip(*np.nonzero(hole), strict=True))
    number = {cell: i for i, cell in enumerate(cells)}
    matrix, right = np.zeros((len(cells), len(cells))), np.zeros(len(cells))
    for i, (y, x) in enumerate(cells):
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            near = min(max(y + dy, 0), h - 1), min(max(x + dx, 0), w - 1)
            matrix[i, i] += 1
            if near in number:
                matrix[i, number[near]] -= 1
            else:
                right[i] += image[near]
    filled = image.copy()
    filled[hole] = np.linalg.solve(matrix, right)
    return filled


def case(h: int, w: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return a smooth random image in [-1, 1] with a large hole and one in the corner."""
    image = np.cumsum(np.cumsum(np.random.default_rng(h).normal(size=(h, w)), 0), 1)
    hole = np.zeros((h, w), dtype=bool)
    hole[3 : h - 3, 4 : w - 3] = True
    hole[:2, :3] = True
    return image / np.abs(image).max(), hole


def stretched(image: NDArray[np.float64], hole: NDArray[np.bool_]) -> NDArray[np.float64]:
    return fill_harmonically(torch.tensor(image)[None, None], torch.tensor(hole)[None, None].double())[0, 0].numpy()


@pytest.mark.parametrize(("h", "w"), SIZES)
def test_the_surface_is_near_the_solution_of_laplaces_equation(h: int, w: int) -> None:
    """Less than half as far off as the mean colour: the steps are few, and coarse grids move the hole's edge."""
    image, hole = case(h, w)
    expected = laplace(image, hole)[hole]
    error = np.abs(stretched(image, hole)[hole] - expected).mean()
    assert error < np.abs(image[~hole].mean() - expected).mean() / 2


@pytest.mark.parametrize(("h", "w"), [*SIZES, (50, 70), (1, 9)])
def test_the_solver_gives_the_solution_of_laplaces_equation_for_values_of_any_size(h: int, w: int) -> None:
    image, hole = case(h, w) if h > 1 else (np.arange(9.0)[None], np.array([[0, 1, 1, 1, 0, 0, 1, 1, 1]], bool))
    expected = laplace(5 * image, hole)
    given = torch.tensor(np.where(hole, np.float64(99), 5 * image))[None, None]
    actual = solve_laplace(given, torch.tensor(hole)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(actual, expected, atol=5 / 127.5)  # a level of 8 bits
    np.testing.assert_array_equal(actual[~hole], expected[~hole])


@pytest.mark.parametrize(("h", "w"), SIZES)
def test_known_pixels_stay_and_what_lies_in_the_hole_does_not_matter(h: int, w: int) -> None:
    image, hole = case(h, w)
    filled = stretched(image, hole)
    np.testing.assert_array_equal(filled[~hole], image[~hole])
    np.testing.assert_array_equal(stretched(np.where(hole, 0.3, image), hole), filled)


def test_the_surface_stays_between_the_darkest_and_the_brightest_known_pixel() -> None:
    """The maximum principle of Laplace's equation."""
    image, hole = case(40, 64)
    filled = stretched(image, hole)
    assert image[~hole].min() <= filled.min()
    assert filled.max() <= image[~hole].max()


def test_one_colour_goes_on_exactly() -> None:
    _, hole = case(24, 24)
    np.testing.assert_allclose(stretched(np.full((24, 24), 0.25), hole), 0.25, atol=1e-15)


def test_every_image_has_its_own_hole_and_one_mask_serves_a_batch() -> None:
    random = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 16, 24, generator=random) * 2 - 1
    mask = (torch.rand(2, 1, 16, 24, generator=random) < 0.4).float()
    together = fill_harmonically(image, mask)
    torch.testing.assert_close(
        together, torch.cat([fill_harmonically(image[i : i + 1], mask[i : i + 1]) for i in (0, 1)])
    )
    shared = fill_harmonically(image, mask[:1])
    torch.testing.assert_close(shared, fill_harmonically(image, mask[:1].expand(2, -1, -1, -1)))


def test_without_a_hole_nothing_changes_and_without_a_known_pixel_all_becomes_0() -> None:
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fill_harmonically(image, torch.zeros(1, 1, 16, 16)), image)
    assert torch.equal(fill_harmonically(image, torch.ones(1, 1, 16, 16)), torch.zeros_like(image))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_images_type_is_kept(dtype: torch.dtype) -> None:
    image, hole = case(24, 24)
    filled = fill_harmonically(
        torch.tensor(image, dtype=dtype)[None, None], torch.tensor(hole, dtype=dtype)[None, None]
    )
    assert filled.dtype == dtype
    np.testing.assert_allclose(filled[0, 0].double().numpy(), stretched(image, hole), atol=0.05)


def test_large_bright_images_of_half_precision_stay_finite() -> None:
    """Sums over a grid of 272 x 272 cells exceed float16's largest number, 65504."""
    mask = torch.zeros(1, 1, 2176, 2176, dtype=torch.float16)
    mask[..., :64, :64] = 1
    filled = fill_harmonically(torch.ones(1, 1, 2176, 2176, dtype=torch.float16), mask)
    assert torch.equal(filled, torch.ones_like(filled))


def test_a_wrong_mask_is_reported() -> None:
    with pytest.raises(ValueError, match="mask must be"):
        fill_harmonically(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


class Fill(torch.nn.Module):
    """The filling as a network, which is what can be exported."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return fill_harmonically(image, mask)


def test_an_exported_filling_takes_as_many_steps() -> None:
    # Its steps are a loop: one more or less of the 122 moves the surface by far more than rounding.
    image, hole = case(24, 24)
    inputs = torch.from_numpy(image)[None, None], torch.from_numpy(hole)[None, None].double()
    exported = torch.export.export(Fill(), inputs).module()
    torch.testing.assert_close(exported(*inputs), fill_harmonically(*inputs), rtol=0, atol=1e-12)
