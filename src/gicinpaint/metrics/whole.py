"""Measures of the whole completed image that are no plain error: SSIM and errors relative to the image."""

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from gicinpaint.metrics.region import RegionMetric

_WINDOW = 11  # pixels per side of SSIM's Gaussian


class SSIM(RegionMetric):
    """Structural similarity of the whole image, Gaussian window of 11x11 with sigma 1.5, averaged over images.

    Windows that reach over the border see the image mirrored.

    Raises:
        ValueError: Also if an image is smaller than the window.

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
        return similarity.double().reshape(-1)  # a batch of one comes without its dimension


class RelativeL1(RegionMetric):
    """Relative absolute error in percent: 100 * sum of |prediction - image| / sum of image, over the whole image.

    Averaged over images; a black image, which has no relative error, does not count.
    """

    def __init__(self) -> None:
        super().__init__(everywhere=True)

    def weights(self, image: Tensor, region: Tensor) -> Tensor:
        """Return 1 for images that are not black, 0 for the others, (B,)."""
        return image.flatten(1).any(1)

    def measure(self, prediction: Tensor, image: Tensor, region: Tensor) -> Tensor:
        """Return the error of each image."""
        return 100 * _total((prediction - image).abs()) / _total(image)


class RelativeL2(RegionMetric):
    """Relative squared error in percent: 100 * sum of (prediction - image)^2 / sum of image^2, over the whole image.

    Averaged over images; a black image, which has no relative error, does not count.
    """

    def __init__(self) -> None:
        super().__init__(everywhere=True)

    def weights(self, image: Tensor, region: Tensor) -> Tensor:
        """Return 1 for images that are not black, 0 for the others, (B,)."""
        return image.flatten(1).any(1)

    def measure(self, prediction: Tensor, image: Tensor, region: Tensor) -> Tensor:
        """Return the error of each image."""
        return 100 * _total((prediction - image).square()) / _total(image.square())


def _total(values: Tensor) -> Tensor:
    return values.sum(dim=(1, 2, 3))
