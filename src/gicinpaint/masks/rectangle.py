"""Rectangular holes, as the released code draws them."""

from collections.abc import Sequence

import numpy as np
import torch
from kornia.geometry.bbox import bbox_to_mask
from torch import Tensor

from gicinpaint.masks.sampler import Augment, Device, MaskSampler, Rng, draw_integers, read_pair, read_range
from gicinpaint.models.compositing import Box


class RectangleMask(MaskSampler):
    """Rectangular holes at random places.

    A box of fixed size is placed at random; the hole is the box without a random border of 0 to ``inset`` pixels,
    equal at the top and the bottom, and another one, equal at the left and the right. The defaults are those of the
    released configuration (maximal deltas of 32 are insets of 16), so holes measure 96, 98, ... 128 pixels.

    Args:
        box: Height and width of the box in pixels; what the local critic sees.
        inset: Largest border between box and hole, vertical and horizontal, in pixels. Default: an eighth of the box.
        margin: Pixels that stay free above and below the box, left and right of it.
        count: Number of rectangles per image, or the smallest and the largest number. With more than one possible,
            the returned box is the window that holds most of the hole.
        same_in_batch: Give every image of a batch the same hole, as the released code does.
        augment: Changes what was drawn, such as `MaskAugment`; None keeps it.

    Raises:
        TypeError: If a setting is not whole.
        ValueError: If a setting is out of range, or the inset can swallow the hole; when called, if the box with its
            margins does not fit the image.

    Source:
        Yu et al. 2018, section 3.2 and released code 1.0.0 (`random_bbox`, `bbox2mask`). As there, the last possible
        place (touching the lower or right margin) is never drawn, and a box of 128 in 256 starts at 0 ... 127.
        Differs from the released code: a place per image instead of one per batch, and a box that leaves only
        one place is legal.

    Example:
        >>> import torch
        >>> mask, box = RectangleMask(box=4, inset=1)(2, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> mask.shape, box.height, box.width
        (torch.Size([2, 1, 8, 8]), 4, 4)
    """

    def __init__(
        self,
        box: int | Sequence[int] = (128, 128),
        inset: int | Sequence[int] | None = None,
        margin: int | Sequence[int] = (0, 0),
        count: int | Sequence[int] = 1,
        same_in_batch: bool = False,
        augment: Augment | None = None,
    ) -> None:
        self.box = read_pair(box, "box", 1)
        self.inset = (self.box[0] // 8, self.box[1] // 8) if inset is None else read_pair(inset, "inset", 0)
        self.margin = read_pair(margin, "margin", 0)
        self.count = read_range(count, "count", 1)
        self.same_in_batch = same_in_batch
        self.augment = augment
        if 2 * self.inset[0] >= self.box[0] or 2 * self.inset[1] >= self.box[1]:
            raise ValueError(
                f"inset must be less than half the box {self.box}, got {self.inset}; choose a smaller inset"
            )

    def draw(self, batch_size: int, size: tuple[int, int], generator: Rng, device: Device) -> tuple[Tensor, Box | None]:
        """Draw masks and their boxes; see `MaskSampler`."""
        drawn = 1 if self.same_in_batch else batch_size
        most = self.count[1]
        top, inset_y = self._draw_side(0, size[0], (drawn, most), generator)
        left, inset_x = self._draw_side(1, size[1], (drawn, most), generator)
        # NumPy's arithmetic, for so few numbers: it takes a third of torch's time
        hole = [top + inset_y, left + inset_x, top + self.box[0] - inset_y, left + self.box[1] - inset_x]
        edges = np.stack(hole, -1)  # (drawn, most, 4)
        if self.count[0] < most:
            edges[np.arange(most) >= draw_integers(*self.count, (drawn, 1), generator).numpy(force=True)] = 0
        edges, top, left = (numbers.repeat(batch_size // drawn, axis=0) for numbers in (edges, top, left))
        mask = fill_rectangles(torch.from_numpy(edges).to(device or "cpu"), *size)
        return mask, Box(torch.from_numpy(top[:, 0]), torch.from_numpy(left[:, 0]), *self.box) if most == 1 else None

    def _draw_side(self, axis: int, size: int, shape: tuple[int, int], generator: Rng) -> tuple[np.ndarray, np.ndarray]:
        """Draw where the boxes start along one axis, and their insets."""
        first = self.margin[axis]
        end = size - self.margin[axis] - self.box[axis]  # excluded by the released code, unless it is the only place
        start = draw_integers(first, max(first, end - 1), shape, generator)
        return start.numpy(force=True), draw_integers(0, self.inset[axis], shape, generator).numpy(force=True)


class CenterMask(MaskSampler):
    """One rectangular hole in the middle of every image.

    Args:
        box: Height and width of the hole in pixels.

    Raises:
        TypeError: If a number is not whole.
        ValueError: If the box is empty; when called, if it does not fit the image.

    Source:
        Yu et al. 2018, section 4: the quantitative examples; released `center_mask_256.png`.

    Example:
        >>> CenterMask(box=(1, 2))(1, 1, 4)[0]
        tensor([[[[0., 1., 1., 0.]]]])
    """

    def __init__(self, box: int | Sequence[int] = (128, 128)) -> None:
        self.box = read_pair(box, "box", 1)

    def draw(self, batch_size: int, size: tuple[int, int], generator: Rng, device: Device) -> tuple[Tensor, Box | None]:
        """Return masks and their boxes; nothing is drawn from the generator."""
        top, left = ((side - own) // 2 for side, own in zip(size, self.box, strict=True))
        place = torch.tensor([[top, left]], device=device).repeat(batch_size, 1)  # (B, 2)
        edges = torch.cat([place, place + place.new_tensor(self.box)], 1)
        return fill_rectangles(edges[:, None], *size), Box(place[:, 0], place[:, 1], *self.box)


def fill_rectangles(edges: Tensor, height: int, width: int) -> Tensor:
    """Draw the union of each image's rectangles; empty ones are legal.

    Shape:
        - edges: int64 (B, N, 4): first row and column, and the row and column after the last
        - returned: float32 (B, 1, height, width), {0, 1}
    """
    b, n, _ = edges.shape
    top, left, bottom, right = edges.reshape(b * n, 4).float().unbind(-1)
    corners = torch.stack([left, top, right - 1, top, right - 1, bottom - 1, left, bottom - 1], -1)
    filled = bbox_to_mask(corners.reshape(b * n, 4, 2), width, height).reshape(b, n, height, width)
    return filled if n == 1 else filled.amax(1, keepdim=True)
