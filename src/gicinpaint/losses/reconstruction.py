"""Reconstruction: absolute errors of the hole with a spatial discount, and of the known pixels."""

import torch
from torch import Tensor

from gicinpaint.checks import check_like, check_mask
from gicinpaint.models.compositing import Box, crop_box

_NUMBERS_AT_ONCE = 2**20  # 4 MB: all sums of one 256 x 256 mask would take 67 MB


def spatial_discount(height: int, width: int, gamma: float = 0.9) -> Tensor:
    """Return the weight of every pixel of a box, smaller towards its middle.

    The weight of row i and column j is max(gamma^min(i, H - i), gamma^min(j, W - j)), counted from zero: 1 along the
    first row and column, gamma along the last. Returned is (1, 1, height, width), (0, 1].

    Raises:
        ValueError: If gamma lies outside (0, 1] or the box is empty.

    Source:
        Released code, `spatial_discounting_mask`. The paper (section 4.2, gamma 0.99) measures the distance to the
        nearest known pixel instead, see `hole_discount`.

    Example:
        >>> spatial_discount(2, 3, gamma=0.5)[0, 0]
        tensor([[1.0000, 1.0000, 1.0000],
                [1.0000, 0.5000, 0.5000]])
    """
    _check_gamma(gamma)
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be positive, got {height}x{width}; pass the size of the box")
    row, column = (torch.arange(size, dtype=torch.float64) for size in (height, width))
    row, column = gamma ** torch.minimum(row, height - row), gamma ** torch.minimum(column, width - column)
    return torch.maximum(row[:, None], column[None, :]).float()[None, None]


def hole_discount(mask: Tensor, gamma: float = 0.99) -> Tensor:
    """Return the weight of every hole pixel, smaller the farther it lies from a known pixel.

    The weight is gamma^d with d the Euclidean distance in pixels to the nearest known pixel; known pixels have
    weight 0, and so has every pixel of an image without a known one.

    Shape:
        - mask: (B, 1, H, W), {0, 1}; 1 = hole
        - returned: (B, 1, H, W), [0, 1]

    Raises:
        ValueError: If gamma lies outside (0, 1] or the mask is not binary.

    Source:
        Yu et al. 2018, section 4.2. The released code measures the distance to the box's edge, see `spatial_discount`.

    Example:
        >>> import torch
        >>> hole_discount(torch.tensor([[[[0.0, 1.0, 1.0]]]]), gamma=0.5)
        tensor([[[[0.0000, 0.5000, 0.2500]]]])
    """
    _check_gamma(gamma)
    check_mask(mask)
    distance = torch.stack([_squared_distance(hole) for hole in mask[:, 0] > 0]).sqrt()[:, None]
    # gamma^inf is 0 for gamma < 1; without any known pixel gamma 1 would give 1
    return torch.where(distance.isinf(), 0.0, gamma**distance).to(mask.device) * mask


def discounted_l1(prediction: Tensor, image: Tensor, discount: Tensor) -> Tensor:
    """Return the mean absolute error, over images, channels and pixels, with a weight per pixel.

    Shape:
        - prediction, image: (B, C, H, W), [-1, 1]
        - discount: (B or 1, 1, H, W), [0, 1]

    Raises:
        ValueError: If the shapes of prediction and image differ.

    Source:
        Yu et al. 2018, section 4.2. Differs from the released code: none.
    """
    check_like(prediction, image, "prediction", "image")
    return ((prediction - image).abs() * discount).mean()


def known_l1(prediction: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Return the mean absolute error of the known pixels, averaged over images; 0 for an image without any.

    Shape:
        - prediction, image: (B, C, H, W), [-1, 1]
        - mask: (B or 1, 1, H, W), {0, 1}; 1 = hole

    Raises:
        ValueError: If the shapes differ or the mask is not binary.

    Source:
        Released code, `ae_loss`. Differs from it: each image is divided by its own share of known pixels, so
        that a batch of different masks is the mean of its images.
    """
    check_like(prediction, image, "prediction", "image")
    check_mask(mask, image)
    return _region_mean((prediction - image).abs(), 1 - mask.to(image.dtype))


class BoxReconstruction:
    """Spatially discounted absolute error inside the box.

    Args:
        gamma: Factor per pixel of distance to the box's edge; 1 switches the discount off.

    Source:
        Released code, `l1_loss` with `spatial_discounting_mask`.
    """

    def __init__(self, gamma: float = 0.9) -> None:
        _check_gamma(gamma)
        self.gamma = gamma

    def __call__(self, prediction: Tensor, image: Tensor, mask: Tensor, box: Box) -> Tensor:
        """Return the loss, a scalar, of (B, C, H, W) images."""
        discount = spatial_discount(box.height, box.width, self.gamma).to(image)
        return discounted_l1(crop_box(prediction, box), crop_box(image, box), discount)


class HoleReconstruction:
    """Absolute error of the hole's pixels, discounted by their distance to the nearest known pixel.

    Args:
        gamma: Factor per pixel of distance; 1 switches the discount off.

    Source:
        Yu et al. 2018, section 4.2. Divided by the number of hole pixels of each image.
    """

    def __init__(self, gamma: float = 0.99) -> None:
        _check_gamma(gamma)
        self.gamma = gamma

    def __call__(self, prediction: Tensor, image: Tensor, mask: Tensor, box: Box) -> Tensor:
        """Return the loss, a scalar, of (B, C, H, W) images."""
        error = (prediction - image).abs() * hole_discount(mask, self.gamma).to(image.dtype)
        return _region_mean(error, mask.to(image.dtype))


class ImageReconstruction:
    """Absolute error of the whole image, known pixels included, without discount.

    Source:
        Released code of Yu et al. 2019, `ae_loss`; give `InpaintingLoss` a known_weight of 0 beside it.
    """

    def __call__(self, prediction: Tensor, image: Tensor, mask: Tensor, box: Box) -> Tensor:
        """Return the loss, a scalar, of (B, C, H, W) images."""
        check_like(prediction, image, "prediction", "image")
        return (prediction - image).abs().mean()


def _region_mean(values: Tensor, region: Tensor) -> Tensor:
    """Mean over images of each image's mean inside its region, (B or 1, 1, H, W); an empty region counts as 0."""
    pixels = region.sum(dim=(1, 2, 3)) * values.shape[1]
    return ((values * region).sum(dim=(1, 2, 3)) / pixels.clamp_min(1)).mean()


def _squared_distance(hole: Tensor) -> Tensor:
    """Squared Euclidean distance of every pixel of one (H, W) mask to the nearest known pixel, inf without one."""
    h, w = hole.shape
    row = torch.arange(h, dtype=torch.float32, device=hole.device)[:, None]
    known_row = torch.where(hole, torch.inf, row.expand(h, w))
    above = row - torch.where(hole, -torch.inf, row.expand(h, w)).cummax(0).values
    below = known_row.flip(0).cummin(0).values.flip(0) - row
    vertical = torch.minimum(above, below).square()
    column = torch.arange(w, dtype=torch.float32, device=hole.device)
    horizontal = (column[:, None] - column[None, :]).square()  # (to, from)
    rows = max(1, _NUMBERS_AT_ONCE // (w * w))
    return torch.cat([(some[:, None, :] + horizontal[None]).amin(-1) for some in vertical.split(rows)])


def _check_gamma(gamma: float) -> None:
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma must lie in (0, 1], got {gamma}; the released value is 0.9, the paper's 0.99")
