"""Laplace's equation in holes: a smooth surface through the known pixels around each hole."""

import torch
from torch import Tensor
from torch.nn import functional as F

from gicinpaint.checks import check_image, check_mask

_STEPS = (2, 8, 32)  # smoothing steps at full, half and quarter size
_REACHES = (16, 8, 4, 2, 1)  # distances of the neighbours at the coarsest size, in cells
_STEPS_PER_REACH = 16  # with half as many the surface is 0.06 dB farther from real photographs
_SWEEPS, _FEW_SWEEPS = 60, 8  # of the solver; few on large grids, where all but the edges comes from the grid below
_LARGE = 2**18  # cells
_COARSEST = 8  # cells along the shorter side of the solver's coarsest grid
_RELAXATION = 1.7  # over-relaxation of the solver; 1 would be the plain mean


def fill_harmonically(image: Tensor, mask: Tensor) -> Tensor:
    """Fill holes with a smooth surface through the known pixels at their edges.

    The surface approximates the solution of Laplace's equation, where each pixel is the mean of its four neighbours.
    The number of operations does not depend on the mask or the image, so networks can contain it.

    Shape:
        - image: (B, C, H, W), [-1, 1]; what lies in the hole does not matter
        - mask: (B or 1, 1, H, W), {0, 1}; 1 = hole; without a known pixel the hole becomes 0
        - returned: (B, C, H, W), [-1, 1]; known pixels unchanged

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
    return _fill(image * known, known, _STEPS)


def solve_laplace(values: Tensor, mask: Tensor) -> Tensor:
    """Replace the hole by the solution of Laplace's equation, to about a level of 8 bits.

    The same coarse-to-fine scheme as `fill_harmonically` on more grids, with enough sweeps to converge.

    Shape:
        - values, returned: (B, C, H, W), any values; what lies in the hole does not matter
        - mask: (B or 1, 1, H, W), {0, 1}; 1 = hole; without a known pixel the hole becomes 0

    Raises:
        ValueError: If the mask differs from that.

    Source:
        Pérez et al. 2003, "Poisson image editing", equation 2; successive over-relaxation in two colours.

    Example:
        >>> import torch
        >>> solve_laplace(torch.tensor([[[[0.0, 9.0, 9.0, 3.0]]]]), torch.tensor([[[[0.0, 1.0, 1.0, 0.0]]]]))
        tensor([[[[0., 1., 2., 3.]]]])
    """
    check_mask(mask, values)
    known = 1 - mask.to(values.dtype)
    h, w = values.shape[-2:]
    steps: list[int] = []
    while min(h, w) > _COARSEST or not steps:
        steps.append(_SWEEPS if h * w <= _LARGE else _FEW_SWEEPS)
        h, w = -(-h // 2), -(-w // 2)
    return _fill(values * known, known, tuple(steps), _RELAXATION)


def _fill(masked: Tensor, known: Tensor, steps: tuple[int, ...], relaxation: float = 1) -> Tensor:
    """Return the surface of a grid; `known` is 1 where a cell has a value, and the values are 0 elsewhere."""
    hole = known == 0
    if not steps:  # on the coarsest grid means of neighbours far away, then ever nearer, bring values into the hole
        whole = (2, 3)  # means, because sums of large grids would exceed float16
        mean = _of_known(masked.mean(whole, keepdim=True), known.mean(whole, keepdim=True))
        surface = torch.where(hole, mean, masked)
        for reach in _REACHES:
            surface = _smooth(surface, hole, reach, _STEPS_PER_REACH)
        return surface
    share = _half(known)
    h, w = masked.shape[-2:]
    coarse = _fill(_of_known(_half(masked), share), (share > 0).to(share.dtype), steps[1:], relaxation)
    guess = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)[..., :h, :w]
    return _smooth(torch.where(hole, guess, masked), hole, 1, steps[0], relaxation)


def _smooth(surface: Tensor, hole: Tensor, reach: int, steps: int, relaxation: float = 1) -> Tensor:
    """Replace the hole by the mean of the four neighbours at a distance, several times; edges repeat their cells."""
    if relaxation == 1 and torch.compiler.is_exporting():  # a loop: 122 copies of a step take minutes to trace
        inputs = (torch.zeros((), dtype=torch.int64), surface, hole)
        return torch.while_loop(
            lambda number, *_: number < steps,
            lambda number, values, where: (number + 1, _step(values, where, reach, 1), where.clone()),
            inputs,
        )[1]
    turns = [hole]
    if relaxation != 1:  # beyond the mean, for every second cell and then for the others
        rows, columns = (torch.arange(size, device=hole.device) for size in hole.shape[-2:])
        even = (rows[:, None] + columns) % 2 == 0
        turns = [hole & even, hole & ~even]
    for _ in range(steps):
        for turn in turns:
            surface = _step(surface, turn, reach, relaxation)
    return surface


def _step(surface: Tensor, turn: Tensor, reach: int, relaxation: float) -> Tensor:
    """Move the cells whose turn it is towards the mean of their neighbours, or beyond."""
    inner, before, after = slice(reach, -reach), slice(None, -2 * reach), slice(2 * reach, None)
    padded = F.pad(surface, (reach, reach, reach, reach), mode="replicate")
    vertical = padded[..., before, inner] + padded[..., after, inner]
    horizontal = padded[..., inner, before] + padded[..., inner, after]
    mean = (vertical + horizontal) / 4
    return torch.where(turn, mean if relaxation == 1 else surface.lerp(mean, relaxation), surface)


def _of_known(mean: Tensor, share: Tensor) -> Tensor:
    """Turn means over cells, the hole's counted as 0, into means over the known ones; 0 where there are none."""
    return mean / (share + (share == 0).to(share.dtype))


def _half(grid: Tensor) -> Tensor:
    return F.avg_pool2d(grid, 2, ceil_mode=True, count_include_pad=False)
