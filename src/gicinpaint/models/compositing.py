"""Every use of the mask convention: 1 = hole, 0 = known."""

from typing import NamedTuple

import torch
from torch import Tensor

from gicinpaint.checks import check_batch, check_image, check_like, check_mask, check_positions


class Box(NamedTuple):
    """Rectangles of one size, one per image, in pixels: what the local critic looks at."""

    top: Tensor  # first rows, int64 (B,)
    left: Tensor  # first columns, int64 (B,)
    height: int
    width: int


def mask_out(image: Tensor, mask: Tensor) -> Tensor:
    """Return the image with its hole set to 0, the middle of the value range.

    Shape:
        - image, returned: (B, C, H, W), [-1, 1]
        - mask: (B or 1, 1, H, W), {0, 1}; 1 = hole, 0 = known

    Raises:
        ValueError: If shapes, types or values differ from that.

    Source:
        Yu et al. 2018, section 3. Differs from the released code: none.

    Example:
        >>> import torch
        >>> mask_out(torch.ones(1, 1, 1, 2), torch.tensor([[[[0.0, 1.0]]]]))
        tensor([[[[1., 0.]]]])
    """
    check_image(image, channels=None)
    check_mask(mask, image)
    return image * (1 - mask.to(image.dtype))


def composite(image: Tensor, prediction: Tensor, mask: Tensor) -> Tensor:
    """Keep the known pixels and fill the hole with the prediction.

    Args:
        image: Image that provides the known pixels.
        prediction: Network output that provides the hole.
        mask: Hole mask; 1 = hole, 0 = known.

    Shape:
        - image, prediction, returned: (B, C, H, W), [-1, 1]
        - mask: (B or 1, 1, H, W), {0, 1}

    Raises:
        ValueError: If the batch or the spatial sizes differ, or the mask is not binary.

    Source:
        Yu et al. 2018, section 3. Differs from the released code: none.

    Example:
        >>> import torch
        >>> composite(torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2), torch.tensor([[[[0.0, 1.0]]]]))
        tensor([[[[0., 1.]]]])
    """
    check_like(prediction, image, "prediction", "image")
    check_mask(mask, image)
    mask = mask.to(image.dtype)
    return prediction * mask + image * (1 - mask)


def fill_with_mean(image: Tensor, mask: Tensor) -> Tensor:
    """Fill each hole with the mean colour of its image's known pixels: the simplest guess, to compare with.

    Shape:
        - image, returned: (B, C, H, W), [-1, 1]; what lies in the image's hole does not matter
        - mask: (B or 1, 1, H, W), {0, 1}; 1 = hole, 0 = known; without a known pixel the hole becomes 0

    Raises:
        ValueError: If shapes, types or values differ from that.

    Example:
        >>> import torch
        >>> fill_with_mean(torch.tensor([[[[0.0, 0.5, 1.0]]]]), torch.tensor([[[[0.0, 0.0, 1.0]]]]))
        tensor([[[[0.0000, 0.5000, 0.2500]]]])
    """
    masked = mask_out(image, mask)
    known = (1 - mask.to(image.dtype)).sum(dim=(2, 3), keepdim=True)
    mean = masked.sum(dim=(2, 3), keepdim=True) / known.clamp_min(1)
    return composite(masked, mean.expand_as(image), mask)


def crop_box(image: Tensor, box: Box) -> Tensor:
    """Cut each image's box out of a batch.

    Shape:
        - image: (B, C, H, W), images or masks
        - box.top, box.left: (B,)
        - returned: (B, C, box.height, box.width)

    Raises:
        ValueError: If the image has other dimensions, the batch sizes differ or a box does not lie inside the image.
            Positions are read on the CPU only.

    Source:
        Yu et al. 2018, section 3.2. Differs from the released code: one box per image instead of one per batch.
    """
    check_batch(image)
    b, c, h, w = image.shape
    if box.top.shape != (b,) or box.left.shape != (b,):
        raise ValueError(
            f"box must hold one rectangle per image ({b}), got {box.top.numel()} tops and {box.left.numel()} lefts; "
            "sample the box with the batch's size"
        )
    if not (1 <= box.height <= h and 1 <= box.width <= w):
        raise ValueError(
            f"box must fit the image {h}x{w}, got {box.height}x{box.width}; choose a smaller box or a larger image"
        )
    check_positions(box.top, h - box.height, "box.top")
    check_positions(box.left, w - box.width, "box.left")
    rows = box.top[:, None] + torch.arange(box.height, device=box.top.device)  # (B, box height)
    columns = box.left[:, None] + torch.arange(box.width, device=box.left.device)  # (B, box width)
    band = image.gather(2, rows[:, None, :, None].expand(b, c, box.height, w))
    return band.gather(3, columns[:, None, None, :].expand(b, c, box.height, box.width))
