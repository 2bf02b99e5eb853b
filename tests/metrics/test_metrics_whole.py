"""SSIM and relative errors against loops, and the columns of an evaluation."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gicinpaint.metrics import SSIM, ImageTV, RegionL1, RegionMetric, RelativeL1, RelativeL2, evaluation_metrics

Array = NDArray[np.float64]


def case(b: int = 3, h: int = 13, w: int = 16, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    prediction, image = (torch.rand(b, 3, h, w, generator=random) * 2 - 1 for _ in range(2))
    region = torch.zeros(b, 1, h, w)
    for number in range(b):
        region[number, :, 2 + number : 9, 3 : 8 + number] = 1
    return prediction, image, region


def unit(image: Tensor) -> Array:
    return ((image.double() + 1) / 2).numpy()


def slow_ssim(prediction: Array, image: Array) -> float:
    """Wang et al. 2004, equation 13, pixel by pixel: Gaussian window of 11x11, sigma 1.5, mirrored at the border."""
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    values = []
    for x, y in zip(prediction, image, strict=True):
        x_wide, y_wide = np.pad(x, 5, mode="reflect"), np.pad(y, 5, mode="reflect")
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                a, b = x_wide[i : i + 11, j : j + 11], y_wide[i : i + 11, j : j + 11]
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
                both = (window * (a - mean_a) * (b - mean_b)).sum()
                light = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
                values.append(light * (2 * both + 9e-4) / (var_a + var_b + 9e-4))
    return float(np.mean(values))


def slow_relative(prediction: Array, image: Array, power: int) -> float:
    errors = total = 0.0
    for p, t in zip(prediction.ravel(), image.ravel(), strict=True):
        errors += abs(p - t) ** power
        total += t**power
    return 100 * errors / total


EXPECTED = {
    SSIM: slow_ssim,
    RelativeL1: lambda p, t: slow_relative(p, t, 1),
    RelativeL2: lambda p, t: slow_relative(p, t, 2),
}
PRECISION = {SSIM: 1e-5, RelativeL1: 1e-9, RelativeL2: 1e-9}  # absolute; SSIM is computed in float32
every_metric = pytest.mark.parametrize("kind", EXPECTED, ids=lambda kind: kind.__name__)


def measured(metric: RegionMetric, *batches: tuple[Tensor, Tensor, Tensor]) -> float:
    for batch in batches:
        metric.update(*batch)
    return metric.compute().item()


@every_metric
@pytest.mark.parametrize(("h", "w"), [(13, 16), (11, 11)])
def test_every_metric_equals_a_loop(kind: type[RegionMetric], h: int, w: int) -> None:
    prediction, image, region = case(h=h, w=w)
    slow = [EXPECTED[kind](p, t) for p, t in zip(unit(prediction), unit(image), strict=True)]
    assert measured(kind(), (prediction, image, region)) == pytest.approx(float(np.mean(slow)), abs=PRECISION[kind])


@every_metric
@pytest.mark.parametrize("sizes", [[1, 1, 1], [2, 1]])
def test_every_split_into_batches_gives_the_same_number(kind: type[RegionMetric], sizes: list[int]) -> None:
    batches = zip(*(x.split(sizes) for x in case()), strict=True)
    assert measured(kind(), *batches) == pytest.approx(measured(kind(), case()), abs=min(1e-7, PRECISION[kind]))


def test_a_perfect_completion_has_the_best_numbers() -> None:
    _, image, region = case()
    columns = evaluation_metrics()
    columns.update(image, image, region)
    found = {name: value.item() for name, value in columns.compute().items()}
    for name in ("hole/l1", "hole/l2", "image/l1", "image/l2", "relative/l1", "relative/l2"):
        assert found[name] == 0
    assert found["hole/psnr"] == found["image/psnr"] == math.inf
    assert found["image/ssim"] == pytest.approx(1, abs=1e-6)
    assert found["hole/tv"] == found["target/hole/tv"] > 0


def test_the_targets_variation_is_the_one_of_a_perfect_completion() -> None:
    prediction, image, region = case()
    columns = evaluation_metrics()
    columns.update(prediction, image, region)
    assert measured(ImageTV(), (prediction, image, region)) == columns["target/hole/tv"].compute().item()
    columns.reset()
    columns.update(image, image, region)
    assert columns["hole/tv"].compute().item() == measured(ImageTV(), (prediction, image, region))


def test_whole_image_columns_do_not_depend_on_the_region() -> None:
    prediction, image, region = case()
    results = []
    for holes in (region, 1 - region, torch.ones_like(region)):
        columns = evaluation_metrics()
        columns.update(prediction, image, holes)
        results.append({name: value.item() for name, value in columns.compute().items() if "hole" not in name})
    assert results[0] == results[1] == results[2]
    assert set(results[0]) == {"image/l1", "image/l2", "image/psnr", "image/ssim", "relative/l1", "relative/l2"}


def test_known_pixels_never_influence_the_errors_in_the_hole() -> None:
    prediction, image, region = case()
    results = []
    for other in (prediction, torch.where(region > 0, prediction, -prediction)):
        columns = evaluation_metrics()
        columns.update(other, image, region)
        results.append([columns[name].compute().item() for name in ("hole/l1", "hole/l2", "hole/psnr")])
    assert results[0] == results[1]


def test_a_whole_image_error_is_that_of_a_region_without_limits() -> None:
    prediction, image, region = case()
    everything = torch.ones_like(region)
    expected = measured(RegionL1(), (prediction, image, everything))
    assert measured(RegionL1(everywhere=True), (prediction, image, region)) == expected


@pytest.mark.parametrize("kind", [RelativeL1, RelativeL2])
def test_black_images_have_no_relative_error(kind: type[RegionMetric]) -> None:
    prediction, image, region = case()
    expected = measured(kind(), (prediction[1:], image[1:], region[1:]))
    image[0] = -1
    assert measured(kind(), (prediction, image, region)) == pytest.approx(expected, rel=1e-12)


def test_a_nan_in_the_completion_shows_in_every_error() -> None:
    prediction, image, region = case()
    prediction[0, 0, 4, 4] = math.nan
    columns = evaluation_metrics()
    columns.update(prediction, image, region)
    found = {name: value.item() for name, value in columns.compute().items()}
    assert [name for name, value in found.items() if not math.isnan(value)] == ["target/hole/tv"]


def test_images_smaller_than_the_window_are_reported() -> None:
    with pytest.raises(ValueError, match="SSIM needs images of at least 11x11, got 10x16; measure larger images"):
        SSIM().update(*case(h=10))
