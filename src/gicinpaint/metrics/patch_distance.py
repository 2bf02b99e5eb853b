"""Patch distance: how far the patches of completed holes, as a set, are from those of the true ones."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from gicinpaint.checks import check_image, check_like, check_mask

_BINS = 4096  # per projection, over the whole range of its values: a thousandth of it or less


class PatchDistance(Metric):
    """Sliced Wasserstein distance between patches of completed and of true images; 0 where they look alike.

    Every patch in the image whose centre lies in the hole is projected onto fixed random directions of length 1.
    For each direction the Wasserstein-1 distance between the projections of all completed and all true patches is
    taken; the result is their mean. Blur narrows the distributions, so it counts, whether or not the details are
    where they were: unlike PSNR the distance does not reward a mean of all possible fillings. The projections are
    counted in bins, which sum up over batches and processes.

    Args:
        patch_size: Height and width of a patch in pixels.
        projections: Number of directions.
        seed: Of the directions.

    Shape:
        - prediction, image: (B, 3, H, W), [-1, 1]
        - region: (B or 1, 1, H, W), {0, 1}; 1 = hole
        - returned by compute: scalar, float64, in units of a pixel value in [0, 1]; NaN before the first patch

    Raises:
        ValueError: If a setting is out of range, or shapes, types or values differ.

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
        check_like(prediction, image, "prediction", "image")
        check_image(image)
        check_mask(region, image, "region")
        for one, other, hole in zip(prediction, image, region.expand(len(image), -1, -1, -1), strict=True):
            self._add_image(one, other, hole[0] > 0)

    def compute(self) -> Tensor:
        """Return the distance."""
        apart = self.difference.cumsum(dim=1).abs().sum(dim=1)  # patches that must move on, summed over the bins
        return (apart * self.bin_width.to(apart.device)).mean() / self.count

    def _add_image(self, prediction: Tensor, image: Tensor, hole: Tensor) -> None:
        size = self.patch_size
        before, after = size // 2, (size - 1) // 2
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
