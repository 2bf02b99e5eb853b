"""The window that the local critic looks at when a hole is no rectangle."""

import torch
from torch import Tensor

from gicinpaint.compositing import Box
from gicinpaint.masks.sampler import check_room


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
    hole = mask[:, 0].to(torch.uint8)
    across = _running_sum(hole)  # (B, H, W + 1)
    inside = _running_sum((across[..., size[1] :] - across[..., : w - size[1] + 1]).mT)
    inside = (inside[..., size[0] :] - inside[..., : h - size[0] + 1]).long()  # (B, W - width + 1, H - height + 1)
    down = _distance_to_centre(across[..., -1], size[0])  # (B, H - height + 1)
    right = _distance_to_centre(hole.sum(1, dtype=torch.int32), size[1])  # (B, W - width + 1)
    farthest = 8 * (h * h + w * w)
    score = inside.mT * farthest - (down[:, :, None] + right[:, None, :])
    best = score.flatten(1).argmax(1)  # the first of equal ones
    columns = w - size[1] + 1
    return Box(best // columns, best % columns, *size)


def _running_sum(values: Tensor) -> Tensor:
    """Sum the values before every place of the last dimension: (..., N) -> (..., N + 1)."""
    total = values.new_zeros((*values.shape[:-1], values.shape[-1] + 1), dtype=torch.int32)
    torch.cumsum(values, -1, dtype=torch.int32, out=total[..., 1:])
    return total


def _distance_to_centre(profile: Tensor, length: int) -> Tensor:
    """Square the distance, in half pixels, of each run from the centre of mass: (B, N) -> (B, N - length + 1)."""
    position = torch.arange(profile.shape[1], device=profile.device)
    centre = (profile * position).sum(1) // profile.sum(1).clamp_min(1)
    middle = 2 * position[: profile.shape[1] - length + 1] + length - 1
    return (middle - 2 * centre[:, None]) ** 2
