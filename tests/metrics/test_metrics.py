from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gicinpaint.metrics import RegionL1, RegionL2, RegionMetric, RegionPSNR, RegionTV, RelativeTV, hole_metrics

Slow = Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], float]
Array = NDArray[np.float64]


def _cells(region: Array) -> list[tuple[int, int]]:
    return [(i, j) for i in range(region.shape[1]) for j in range(region.shape[2]) if region[0, i, j] == 1]


def _slow_l1(prediction: Array, image: Array, region: Array) -> float:
    return 100 * float(np.mean([np.abs(prediction[:, i, j] - image[:, i, j]) for i, j in _cells(region)]))


def _slow_l2(prediction: Array, image: Array, region: Array) -> float:
    return 100 * float(np.mean([(prediction[:, i, j] - image[:, i, j]) ** 2 for i, j in _cells(region)]))


def _slow_psnr(prediction: Array, image: Array, region: Array) -> float:
    return 10 * math.log10(100 / _slow_l2(prediction, image, region))


def _slow_tv(prediction: Array, image: Array, region: Array) -> float:
    c, h, w = prediction.shape
    total = 0.0
    for i in range(h):
        for j in range(w):
            for k, m in ((i + 1, j), (i, j + 1)):
                if k < h and m < w and (region[0, i, j] or region[0, k, m]):
                    total += float(np.abs(prediction[:, i, j] - prediction[:, k, m]).sum())
    return 100 * total / (c * len(_cells(region)))


METRICS: dict[type[RegionMetric], Slow] = {
    RegionL1: _slow_l1,
    RegionL2: _slow_l2,
    RegionPSNR: _slow_psnr,
    RegionTV: _slow_tv,
}
every_metric = pytest.mark.parametrize("kind", METRICS, ids=lambda kind: kind.__name__)


def _case(b: int = 5, h: int = 6, w: int = 9, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return predictions, images and regions of different sizes, the last one all of the image."""
    random = torch.Generator().manual_seed(seed)
    prediction, image = (torch.rand(b, 3, h, w, generator=random) * 2 - 1 for _ in range(2))
    share = torch.linspace(0.05, 1, b)[:, None, None, None]
    region = (torch.rand(b, 1, h, w, generator=random) < share).float()
    region[:, :, 0, 0] = 1  # none is empty
    return prediction, image, region


def _expected(kind: type[RegionMetric], prediction: Tensor, image: Tensor, region: Tensor) -> float:
    """Return the mean over images of the slow loop's numbers, from values in [0, 1]."""
    units = [((x.double() + 1) / 2).numpy() for x in (prediction, image)]
    slow = METRICS[kind]
    return float(np.mean([slow(*item) for item in zip(*units, region.double().numpy(), strict=True)]))


def _measured(kind: type[RegionMetric], *batches: tuple[Tensor, Tensor, Tensor]) -> float:
    metric = kind()
    for batch in batches:
        metric.update(*batch)
    return metric.compute().item()


@every_metric
@pytest.mark.parametrize(("h", "w", "seed"), [(6, 9, 0), (8, 8, 1), (1, 7, 2), (7, 1, 3)])
def test_every_metric_equals_a_loop(kind: type[RegionMetric], h: int, w: int, seed: int) -> None:
    case = _case(5, h, w, seed)
    assert _measured(kind, case) == pytest.approx(_expected(kind, *case), rel=1e-12)


@every_metric
@pytest.mark.parametrize("sizes", [[1, 1, 1, 1, 1], [2, 3], [4, 1], [3, 2]])
def test_every_split_into_batches_gives_the_same_number(kind: type[RegionMetric], sizes: list[int]) -> None:
    case = _case()
    batches = zip(*(x.split(sizes) for x in case), strict=True)
    assert _measured(kind, *batches) == pytest.approx(_measured(kind, case), rel=1e-12)


@every_metric
def test_pixels_outside_the_region_do_not_count(kind: type[RegionMetric]) -> None:
    prediction, image, region = _case(3, 8, 8)
    region.zero_()
    region[:, :, 2:5, 3:6] = 1
    touched = torch.nn.functional.max_pool2d(region, 3, 1, 1) if kind is RegionTV else region  # it crosses the border
    other = torch.where(touched > 0, prediction, -prediction)
    assert _measured(kind, (other, image, region)) == _measured(kind, (prediction, image, region))
    changed = torch.where(region > 0, image, -image)
    assert _measured(kind, (prediction, changed, region)) == _measured(kind, (prediction, image, region))


@every_metric
def test_pixels_inside_the_region_count(kind: type[RegionMetric]) -> None:
    prediction, image, region = _case(3, 8, 8)
    other = torch.where(region > 0, -prediction, prediction)
    assert _measured(kind, (other, image, region)) != pytest.approx(_measured(kind, (prediction, image, region)))


@every_metric
def test_images_without_the_region_are_left_out(kind: type[RegionMetric]) -> None:
    prediction, image, region = _case()
    expected = _measured(kind, (prediction[1:], image[1:], region[1:]))
    region[0] = 0
    assert _measured(kind, (prediction, image, region)) == pytest.approx(expected, rel=1e-12)


@every_metric
def test_there_is_no_number_without_any_region(kind: type[RegionMetric]) -> None:
    prediction, image, region = _case()
    assert math.isnan(_measured(kind, (prediction, image, torch.zeros_like(region))))


@every_metric
def test_one_region_serves_the_whole_batch(kind: type[RegionMetric]) -> None:
    prediction, image, region = _case()
    single = (prediction, image, region[2:3])
    repeated = (prediction, image, region[2:3].expand(5, -1, -1, -1))
    assert _measured(kind, single) == _measured(kind, repeated)


@every_metric
def test_a_reset_forgets_earlier_images(kind: type[RegionMetric]) -> None:
    metric = kind()
    metric.update(*_case(seed=1))
    metric.reset()
    metric.update(*_case())
    assert metric.compute().item() == _measured(kind, _case())


@pytest.mark.parametrize(("kind", "best"), [(RegionL1, 0.0), (RegionL2, 0.0), (RegionPSNR, math.inf)])
def test_a_perfect_completion_has_the_best_number(kind: type[RegionMetric], best: float) -> None:
    _, image, region = _case()
    assert _measured(kind, (image, image, region)) == best


def test_a_flat_completion_has_no_variation() -> None:
    _, image, region = _case()
    assert _measured(RegionTV, (torch.full_like(image, 0.3), image, region)) == 0


def test_errors_are_measured_in_percent_of_the_value_range() -> None:
    """A step of 0.5 in [-1, 1] is 0.25 in [0, 1]: 25 %, 6.25 % and 20 log10(4) dB."""
    image, region = torch.zeros(1, 3, 4, 4), torch.ones(1, 1, 4, 4)
    values = [_measured(kind, (image + 0.5, image, region)) for kind in (RegionL1, RegionL2, RegionPSNR)]
    assert values == pytest.approx([25, 6.25, 20 * math.log10(4)])


def test_half_precision_inputs_are_averaged_in_float64() -> None:
    prediction, image, region = _case()
    batch = (prediction.bfloat16(), image.bfloat16(), region)
    metric = RegionL1()
    metric.update(*batch)
    assert metric.compute().dtype == torch.float64
    assert metric.compute().item() == pytest.approx(_expected(RegionL1, *batch), rel=1e-12)


def test_the_papers_columns_are_there_under_their_prefix() -> None:
    columns, case = hole_metrics("validation/"), _case(h=9)
    columns.update(*case)
    found = {name: value.item() for name, value in columns.compute().items()}
    expected = {"l1": RegionL1, "l2": RegionL2, "psnr": RegionPSNR, "tv": RegionTV}
    assert set(found) == {f"validation/{name}" for name in (*expected, "tv_ratio", "patch_distance")}
    for name, kind in expected.items():
        assert found[f"validation/{name}"] == pytest.approx(_expected(kind, *case))


def test_relative_tv_is_the_ratio_of_the_averages_and_flat_images_do_not_count() -> None:
    prediction, image, region = _case()
    image[1] = 0.5  # its ratio would be infinite
    images = [((x.double() + 1) / 2).numpy() for x in (prediction, image)]
    pairs = [(_slow_tv(p, i, r), _slow_tv(i, i, r)) for p, i, r in zip(*images, region.double().numpy(), strict=True)]
    metric = RelativeTV()
    for batch in zip(*(x.split([3, 2]) for x in (prediction, image, region)), strict=True):
        metric.update(*batch)
    ratio = (sum(tv for tv, _ in pairs) - pairs[1][0]) / sum(target for _, target in pairs)
    assert metric.compute().item() == pytest.approx(ratio)
    assert metric.latest.tolist() == pytest.approx(np.array([[tv / target, 1] for tv, target in pairs[3:]]))


@every_metric
def test_inputs_that_do_not_fit_are_reported(kind: type[RegionMetric]) -> None:
    prediction, image, region = _case()
    with pytest.raises(ValueError, match=r"prediction must have the shape of image, \(5, 3, 6, 9\), got"):
        kind().update(prediction[..., 1:], image, region)
    with pytest.raises(ValueError, match=r"image must lie in \[-1, 1\], got values from"):
        kind().update(prediction, 127.5 * image, region)
    with pytest.raises(ValueError, match="region must have the image's height and width"):
        kind().update(prediction, image, region[..., 1:])
    with pytest.raises(ValueError, match="region must hold only 0"):
        kind().update(prediction, image, 0.5 * region)
