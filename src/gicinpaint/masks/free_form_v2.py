"""The second paper's holes as its released code draws them: strokes of a brush and an inset rectangle, always both."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from gicinpaint.masks.sampler import Augment, Device, MaskSampler, Rng, draw_integers, read_pair
from gicinpaint.models.compositing import Box

_STROKES, _SEGMENTS, _WIDTHS = (1, 3), (4, 11), (12, 40)
_ANGLE, _SPREAD = 2 * math.pi / 5, 2 * math.pi / 15


class FreeFormV2Mask(MaskSampler):
    """Holes of one to three strokes and a rectangle, which is shrunk at random, like those of the second paper's code.

    Args:
        box: Height and width of the rectangle before it shrinks, and of the window for a local critic.
        margin: Pixels between rectangle and border, at least.
        inset: Most pixels by which the rectangle shrinks along each axis, both sides together.
        swap_sides: Repeat a fault of the released code: where height and width differ they change places when the
            strokes' points are drawn, so strokes miss a part of the image.
        augment: Changes what was drawn, such as `MaskAugment`; None keeps it.

    Raises:
        TypeError: If a number is not whole.
        ValueError: If a number is too small, or the inset leaves nothing; when called, if the box does not fit.

    Source:
        Released code of Yu et al. 2019: bit by bit the same masks from the same NumPy random numbers, flips that have
        no effect there included.

    Example:
        >>> mask, _ = FreeFormV2Mask(box=16, inset=4)(2, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> mask.shape
        torch.Size([2, 1, 64, 64])
    """

    def __init__(
        self,
        box: int | Sequence[int] = (128, 128),
        margin: int | Sequence[int] = (0, 0),
        inset: int | Sequence[int] = (32, 32),
        swap_sides: bool = False,
        augment: Augment | None = None,
    ) -> None:
        self.box = read_pair(box, "box", 1)
        self.margin = read_pair(margin, "margin", 0)
        self.inset = read_pair(inset, "inset", 0)
        self.swap_sides = swap_sides
        self.augment = augment
        if any(2 * (most // 2) >= side for side, most in zip(self.box, self.inset, strict=True)):
            raise ValueError(f"inset must be smaller than the box {self.box}, got {self.inset}; choose a smaller one")

    def draw(self, batch_size: int, size: tuple[int, int], generator: Rng, device: Device) -> tuple[Tensor, Box | None]:
        """Draw masks; see `MaskSampler`."""
        seeds = draw_integers(0, 2**32 - 1, (batch_size,), generator).tolist()
        masks = np.stack([self._draw(np.random.RandomState(seed), *size) for seed in seeds])
        return torch.from_numpy(masks)[:, None], None

    def _draw(self, rng: np.random.RandomState, height: int, width: int) -> np.ndarray:
        strokes = draw_strokes(rng, height, width, swap_sides=self.swap_sides)
        inset = self.draw_inset(rng)
        top, left = (  # the released code excludes the upper end
            int(rng.randint(least, max(least + 1, side - least - size)))
            for least, side, size in zip(self.margin, (height, width), self.box, strict=True)
        )
        return np.maximum(strokes, draw_rectangle((height, width), (top, left), self.box, inset))

    def draw_inset(self, rng: np.random.RandomState) -> tuple[int, int]:
        """Draw by how many pixels the rectangle shrinks at top and bottom, and at left and right."""
        rows, columns = (int(rng.randint(most // 2 + 1)) for most in self.inset)
        return rows, columns


def draw_strokes(rng: np.random.RandomState, height: int, width: int, *, swap_sides: bool = False) -> np.ndarray:
    """Draw one to three strokes of a brush, as the released code does from the same random numbers.

    Shape:
        - returned: uint8 (height, width), {0, 1}, 1 = hole
    """
    mask = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(mask)
    bounds = np.array([height, width] if swap_sides else [width, height])  # of x and y
    length = math.hypot(height, width) / 8
    for _ in range(rng.randint(_STROKES[0], _STROKES[1] + 1)):
        count = rng.randint(_SEGMENTS[0], _SEGMENTS[1] + 1)
        low, high = _ANGLE - rng.uniform(0, _SPREAD), _ANGLE + rng.uniform(0, _SPREAD)
        angles = [rng.uniform(low, high) for _ in range(count)]
        points = [(int(rng.randint(bounds[0])), int(rng.randint(bounds[1])))]
        for number, angle in enumerate(angles):
            turned = angle if number % 2 else 2 * math.pi - angle
            far = float(np.clip(rng.normal(length, length // 2), 0, 2 * length))
            step = far * np.array([math.cos(turned), math.sin(turned)])
            x, y = np.clip(points[-1] + step, 0, bounds).astype(int).tolist()
            points.append((x, y))
        brush = int(rng.uniform(*_WIDTHS))
        radius = brush // 2
        pen.line(points, fill=1, width=brush)
        for x, y in points:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    rng.normal(size=2)  # for flips whose results the released code throws away
    return np.array(mask)


def draw_rectangle(
    shape: tuple[int, int], corner: tuple[int, int], size: tuple[int, int], inset: tuple[int, int]
) -> np.ndarray:
    """Draw a rectangle shrunk by `inset` (vertical, horizontal) on both sides, uint8 `shape`, 1 = hole."""
    mask = np.zeros(shape, np.uint8)
    (top, left), (height, width) = corner, size
    mask[top + inset[0] : top + height - inset[0], left + inset[1] : left + width - inset[1]] = 1
    return mask
