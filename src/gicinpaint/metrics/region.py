"""Errors, PSNR, total variation, SSIM of each image, in a region or everywhere, averaged; distance of their patches.

Values are measured in [0, 1]. Each metric holds a sum and a count, so the result does not depend on batch sizes, on a
short last batch or on the number of processes.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.functional.image import structural_similarity_index_measure

from gicinpaint.checks import check_image, check_like, check_mask

_WINDOW = 11  # pixels per side of SSIM's Gaussian
_BINS = 4096  # of the patch distance's projections, over the whole range of values: a thousandth of it or less


class SumMetric(Metric):
    """A metric that sums in float64 on the CPU and in float32 elsewhere, because Apple's GPUs have no float64."""

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Metric:
        on_cpu = fn(torch.zeros(0)).device.type == "cpu"
        if not on_cpu:
            self._sum_in(torch.float32)
        super()._apply(fn, exclude_state)
        if on_cpu:
            self._sum_in(torch.float64)
        return self

    def _sum_in(self, dtype: torch.dtype) -> None:
        self._computed = self._forward_cache = None  # of the earlier type
        for name, default in self._defaults.items():
            if isinstance(default, Tensor) and default.is_floating_point():
                self._defaults[name] = default.to(dtype)
                setattr(self, name, getattr(self, name).to(dtype))


class RegionMetric(SumMetric):
    """Average of one number per image over all images that have the region.

    Subclasses say in `measure` what the number is.

    Args:
        everywhere: Measure all of each image instead, whatever region is given.

    Attributes:
        latest: The last batch's images one by one, (B, 2): the number, and 1; or 0 and 0 where an image has none.

    Shape:
        - prediction, image: (B, C, H, W), [-1, 1]
        - region: (B or 1, 1, H, W), {0, 1}; 1 = counts
        - returned by compute: scalar, in float64 on the CPU and float32 elsewhere; NaN before the first image

    Raises:
        ValueError: If shapes, types or values differ from that.

    Source:
        Yu et al. 2018, table 1, whose protocol is not published.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, everywhere: bool = False) -> None:
        super().__init__()
        self.everywhere = everywhere
        self.latest = torch.zeros(0, 2, dtype=torch.float64)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, image: Tensor, region: Tensor) -> None:
        """Add a batch."""
        _check(prediction, image, region)
        region = torch.ones_like(region) if self.everywhere else region
        region = region.to(self.total.dtype).expand(image.shape[0], -1, -1, -1)
        prediction, target = ((x.to(self.total.dtype) + 1) / 2 for x in (prediction, image))
        values = self.measure(prediction, target, region)
        weights = self.weights(target, region).to(values)
        values = torch.where(weights > 0, values, 0.0)
        self.latest = torch.stack([values, (weights > 0).to(values)], dim=1)
        self.total += (values * weights).sum()
        self.count += weights.sum()

    def compute(self) -> Tensor:
        """Return the average."""
        return self.total / self.count

    def weights(self, image: Tensor, region: Tensor) -> Tensor:
        """Return each image's weight in the average, (B,): here 1 with a region, 0 without."""
        return region.flatten(1).any(1)

    @abstractmethod
    def measure(self, prediction: Tensor, image: Tensor, region: Tensor) -> Tensor:
        """Return one number per image, (B,), from tensors with values in [0, 1], in float64 on the CPU."""


class RegionL1(RegionMetric):
    """Mean absolute error in percent: 100 * mean of |prediction - image| over the region's pixels and channels."""

    power = 1

    def measure(self, prediction: Tensor, image: Tensor, region: Tensor) -> Tensor:
        """Return the error of each image."""
        return 100 * _mean_inside((prediction - image).abs() ** self.power, region)


class RegionL2(RegionL1):
    """Mean squared error in percent: 100 * mean of (prediction - image)^2 over the region's pixels and channels."""

    power = 2


class RegionPSNR(RegionMetric):
    """Peak signal-to-noise ratio in dB: 10 * log10(1 / mean squared error in the region), averaged over images.

    One image that is filled perfectly makes the average infinite.
    """

    def measure(self, prediction: Tensor, image: Tensor, region: Tensor) -> Tensor:
        """Return the ratio of each image."""
        return -10 * _mean_inside((prediction - image).square(), region).log10()


class RegionTV(RegionMetric):
    """Anisotropic total variation of the prediction in percent, inside the region and across its border.

    The sum of absolute horizontal and vertical differences between neighbours of which at least one lies in the
    region, divided by the region's pixels and channels, times 100; to be compared with the ground truth's.
    """

    def measure(self, prediction: Tensor, image: Tensor, region: Tensor) -> Tensor:
        """Return the variation of each image."""
        total = torch.zeros(prediction.shape[0], dtype=prediction.dtype, device=prediction.device)
        for axis in (-2, -1):
            size = prediction.shape[axis]
            touches = torch.maximum(region.narrow(axis, 0, size - 1), region.narrow(axis, 1, size - 1))
            total = total + (prediction.diff(dim=axis).abs() * touches).sum(dim=(1, 2, 3))
        return 100 * total / (region.sum(dim=(1, 2, 3)) * prediction.shape[1])


class RelativeTV(RegionTV):
    """Total variation of the prediction in the region over the ground truth's: 1 is as much texture, less is blur.

    Over several images it is the ratio of the averages: those of nearly flat images mean nothing.
    """

    def weights(self, image: Tensor, region: Tensor) -> Tensor:
        """Return the ground truth's variation: the average so weighted is the ratio of sums."""
        return torch.nan_to_num(super().measure(image, image, region))

    def measure(self, prediction: Tensor, image: Tensor, region: Tensor) -> Tensor:
        """Return the ratio of each image."""
        return super().measure(prediction, image, region) / super().measure(image, image, region)


class ImageTV(RegionTV):
    """Total variation of the ground truth in percent, measured as `RegionTV` measures the prediction's."""

    def measure(self, prediction: Tensor, image: Tensor, region: Tensor) -> Tensor:
        """Return the variation of each image."""
        return super().measure(image, image, region)


class SSIM(RegionMetric):
    """Structural similarity of the whole image, Gaussian window of 11x11 with sigma 1.5, averaged over images.

    Windows that reach over the border see the image mirrored; a smaller image raises a ValueError.

    Source:
        Wang et al. 2004, computed by torchmetrics in float32: ten times as fast as in float64, and within 1e-4 of it.
    """

    def __init__(self) -> None:
        super().__init__(everywhere=True)

    def measure(self, prediction: Tensor, image: Tensor, region: Tensor) -> Tensor:
        """Return the similarity of each image."""
        h, w = image.shape[-2:]
        if min(h, w) < _WINDOW:
            raise ValueError(f"SSIM needs images of at least {_WINDOW}x{_WINDOW}, got {h}x{w}; measure larger images")
        pair = prediction.float(), image.float()
        similarity = torch.as_tensor(structural_similarity_index_measure(*pair, data_range=1.0, reduction="none"))
        return similarity.to(image.dtype).reshape(-1)  # a batch of one comes without its dimension


class RelativeL1(RegionMetric):
    """Relative absolute error in percent: 100 * sum of |prediction - image| / sum of image, over the whole image.

    Averaged over images; a black image, which has no relative error, does not count.
    """

    power = 1

    def __init__(self) -> None:
        super().__init__(everywhere=True)

    def weights(self, image: Tensor, region: Tensor) -> Tensor:
        """Return 1 for images that are not black, 0 for the others, (B,)."""
        return image.flatten(1).any(1)

    def measure(self, prediction: Tensor, image: Tensor, region: Tensor) -> Tensor:
        """Return the error of each image."""
        errors, values = (prediction - image).abs() ** self.power, image**self.power
        return 100 * errors.sum(dim=(1, 2, 3)) / values.sum(dim=(1, 2, 3))


class RelativeL2(RelativeL1):
    """Relative squared error in percent: 100 * sum of (prediction - image)^2 / sum of image^2; else as `RelativeL1`."""

    power = 2


class PatchDistance(SumMetric):
    """Sliced Wasserstein distance between patches of completed and of true images; 0 where they look alike.

    Every patch in the image whose centre lies in the hole is projected onto fixed random directions of length 1.
    For each direction the Wasserstein-1 distance between the projections of all completed and all true patches is
    taken; the result is their mean. Blur narrows the distributions and so counts, wherever the details are: unlike
    PSNR the distance does not reward a mean of all possible fillings. Projections are counted in bins.

    Args:
        patch_size: Height and width of a patch in pixels.
        projections: Number of directions.
        seed: Of the directions.

    Inputs and errors are those of `RegionMetric`, with three channels; the result, a scalar, is in units of a pixel
    value in [0, 1], and NaN before the first patch.

    Source:
        Karras et al. 2018 (progressive growing), section 5, uses such distances of patches; the settings are ours.
    """

    full_state_update = False
    difference: Tensor
    count: Tensor

    def __init__(self, patch_size: int = 7, projections: int = 128, seed: int = 0) -> None:
        super().__init__()
        if patch_size < 1 or projections < 1:
            raise ValueError(f"patch_size and projections must be positive, got {patch_size} and {projections}")
        self.patch_size = patch_size
        rng = torch.Generator().manual_seed(seed)
        directions = torch.randn(projections, 3, patch_size, patch_size, generator=rng, dtype=torch.float64)
        directions /= directions.flatten(1).norm(dim=1)[:, None, None, None]
        self.directions = directions.float()
        self.low = directions.clamp(max=0).sum(dim=(1, 2, 3))  # what patches with values in [0, 1] can reach
        self.bin_width = directions.abs().sum(dim=(1, 2, 3)) / _BINS
        self.add_state("difference", torch.zeros(projections, _BINS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, image: Tensor, region: Tensor) -> None:
        """Add a batch."""
        _check(prediction, image, region, channels=3)
        for one, other, hole in zip(prediction, image, region.expand(len(image), -1, -1, -1), strict=True):
            self._add_image(one, other, hole[0] > 0)

    def compute(self) -> Tensor:
        """Return the distance."""
        apart = self.difference.cumsum(dim=1).abs().sum(dim=1)  # patches that must move on, summed over the bins
        return (apart * self.bin_width.to(self.count)).mean() / self.count

    def _add_image(self, prediction: Tensor, image: Tensor, hole: Tensor) -> None:
        size, before, after = self.patch_size, self.patch_size // 2, (self.patch_size - 1) // 2
        h, w = hole.shape
        centres = hole[before : max(before, h - after), before : max(before, w - after)]
        rows, columns = centres.any(1).nonzero(), centres.any(0).nonzero()
        if not len(rows):
            return
        (top, bottom), (left, right) = ((int(x[0]), int(x[-1]) + 1) for x in (rows, columns))
        window = slice(top, bottom + size - 1), slice(left, right + size - 1)
        centres = centres[top:bottom, left:right]
        for values, sign in ((prediction, 1), (image, -1)):
            unit = (values[(..., *window)].float().clamp(-1, 1) + 1) / 2
            projected = F.conv2d(unit[None], self.directions.to(unit.device))[0, :, centres]
            self.difference += sign * self._histogram(projected)
            self.count += 0 * projected.sum()  # NaN pixels have no bin: they make the result NaN
        self.count += int(centres.sum())

    def _histogram(self, projected: Tensor) -> Tensor:
        """Count projections (K, N) in each direction's bins, (K, bins)."""
        k = len(projected)
        low, width = (x.to(projected)[:, None] for x in (self.low, self.bin_width))
        bins = ((projected - low) / width).long().clamp_(0, _BINS - 1)
        bins += _BINS * torch.arange(k, device=bins.device)[:, None]
        return torch.bincount(bins.flatten(), minlength=k * _BINS).reshape(k, _BINS)


def _check(prediction: Tensor, image: Tensor, region: Tensor, channels: int | None = None) -> None:
    check_like(prediction, image, "prediction", "image")
    check_image(image, channels=channels)
    check_mask(region, image, "region")


def _mean_inside(values: Tensor, region: Tensor) -> Tensor:
    return (values * region).sum(dim=(1, 2, 3)) / (region.sum(dim=(1, 2, 3)) * values.shape[1])
