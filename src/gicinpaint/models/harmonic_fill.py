"""A smooth filling of holes: a membrane stretched over each hole and held by the known pixels around it."""

import torch
from torch import Tensor
from torch.nn import functional as F

from gicinpaint.checks import check_image, check_mask

_STEPS = (2, 8, 32)  # of smoothing at full, half and quarter size
_REACHES = (16, 8, 4, 2, 1)  # distances of the neighbours at an eighth of the size, in cells
_STEPS_PER_REACH = 16  # with half as many the surface is 0.06 dB farther from real photographs


def fill_harmonically(image: Tensor, mask: Tensor) -> Tensor:
    """Fill holes with a smooth surface through the known pixels at their edges.

    The surface approaches the solution of Laplace's equation, where each pixel is the mean of its four neighbours. At
    an eighth of the size, the means of neighbours far away and then ever nearer bring the colours into the hole; the
    result is enlarged and smoothed three times. So it takes the same operations for every mask and every size.

    Args:
        image: Images; what lies in the hole does not matter.
        mask: Hole mask; 1 = hole. Without a known pixel the hole becomes 0.

    Shape:
        - image: (B, C, H, W), [-1, 1]
        - mask: (B or 1, 1, H, W), {0, 1}
        - returned: (B, C, H, W), [-1, 1]; known pixels as they were

    Raises:
        ValueError: If shapes, types or values differ from that.

    Source:
        Ours; not in the paper or the released code.

    Example:
        >>> import torch
        >>> fill_harmonically(torch.tensor([[[[0.0, 0.9, 1.0]]]]), torch.tensor([[[[0.0, 1.0, 0.0]]]]))
        tensor([[[[0.0000, 0.4375, 1.0000]]]])
    """
    check_image(image, channels=None)
    check_mask(mask, image)
    known = 1 - mask.to(image.dtype)
    return _stretch(image * known, known, _STEPS)


def _stretch(masked: Tensor, known: Tensor, steps: tuple[int, ...]) -> Tensor:
    """Return the surface of a grid; `known` is 1 where a cell has a colour, and the colours are 0 elsewhere."""
    hole = known == 0
    if not steps:
        whole = (2, 3)  # means, because sums of large grids would exceed float16
        mean = _of_known(masked.mean(whole, keepdim=True), known.mean(whole, keepdim=True))
        surface = torch.where(hole, mean, masked)
        for reach in _REACHES:
            surface = _smooth(surface, masked, hole, reach, _STEPS_PER_REACH)
        return surface
    share = _half(known)
    h, w = masked.shape[-2:]
    coarse = _stretch(_of_known(_half(masked), share), (share > 0).to(share.dtype), steps[1:])
    guess = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)[..., :h, :w]
    return _smooth(torch.where(hole, guess, masked), masked, hole, 1, steps[0])


def _smooth(surface: Tensor, masked: Tensor, hole: Tensor, reach: int, steps: int) -> Tensor:
    """Replace the hole by the mean of the four neighbours at a distance, several times; edges repeat their cells."""
    inner, before, after = slice(reach, -reach), slice(None, -2 * reach), slice(2 * reach, None)
    for _ in range(steps):
        padded = F.pad(surface, (reach, reach, reach, reach), mode="replicate")
        vertical = padded[..., before, inner] + padded[..., after, inner]
        horizontal = padded[..., inner, before] + padded[..., inner, after]
        surface = torch.where(hole, (vertical + horizontal) / 4, masked)
    return surface


def _of_known(mean: Tensor, share: Tensor) -> Tensor:
    """Turn means over cells, the hole's counted as 0, into means over the known ones; 0 where there are none."""
    return mean / (share + (share == 0).to(share.dtype))


def _half(grid: Tensor) -> Tensor:
    return F.avg_pool2d(grid, 2, ceil_mode=True, count_include_pad=False)
