"""The window that the local critic looks at when a hole is no rectangle."""

import numpy as np
import torch
from torch import Tensor

from gicinpaint.masks.sampler import check_room
from gicinpaint.models.compositing import Box


def hole_window(mask: Tensor, size: tuple[int, int]) -> Box:
    """Find the window of a given size that holds most of each mask's hole.

    Among windows that hold equally much, the one whose middle is nearest to the hole's centre of mass is taken
    (rounded down to a pixel), then the topmost, then the leftmost.

    Args:
        mask: Hole mask; 1 = hole, 0 = known.
        size: Height and width of the window in pixels.

    Shape:
        - mask: (B, 1, H, W), {0, 1}
        - returned: tops and lefts (B,), inside the image

    Raises:
        ValueError: If the window is larger than the image.

    Source:
        Ours: the paper's holes are rectangles, which give the window themselves.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[[[0.0, 1.0, 1.0, 0.0, 1.0]]]])
        >>> hole_window(mask, (1, 2)).left
        tensor([1])
    """
    h, w = mask.shape[-2:]
    check_room(h, w, size)
    holes = mask[:, 0].to("cpu", torch.int32).numpy()  # (B, H, W)
    inside = _running_sum(_running_sum(holes, size[1]).swapaxes(1, 2), size[0]).swapaxes(1, 2)
    places = [_most_central(hole, held.copy(), size) for hole, held in zip(holes, inside, strict=True)]
    top, left = torch.tensor(places, device=mask.device).reshape(-1, 2).unbind(1)
    return Box(top, left, *size)


def _running_sum(values: np.ndarray, length: int) -> np.ndarray:
    """Sum every run of the given length along the last axis: (..., N) -> (..., N - length + 1)."""
    total = np.cumsum(np.ascontiguousarray(values), -1, dtype=np.int32)
    sums = total[..., length - 1 :].copy()
    sums[..., 1:] -= total[..., :-length]
    return sums


def _most_central(hole: np.ndarray, held: np.ndarray, size: tuple[int, int]) -> tuple[int, int]:
    """Return the window that holds most, (H - height + 1, W - width + 1); of equal ones the nearest to the hole."""
    places = np.divmod(np.flatnonzero(held == held.max()), held.shape[1])
    if len(places[0]) == 1:
        return int(places[0][0]), int(places[1][0])
    distance = 0
    for axis in (0, 1):
        profile = hole.sum(1 - axis)
        centre = profile @ np.arange(len(profile)) // max(1, profile.sum())
        distance = distance + (2 * places[axis] + size[axis] - 1 - 2 * centre) ** 2  # in half pixels
    best = np.argmin(distance)  # the first of equal ones: topmost, then leftmost
    return int(places[0][best]), int(places[1][best])
