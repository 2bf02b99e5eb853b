"""Mask samplers: their protocols, how boxes and hole ratios are read, the local critic's window, mixed samplers."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from gicinpaint.models.compositing import Box

Device = torch.device | str | None
Rng = torch.Generator | None
Augment = Callable[[Tensor, Box, Rng], tuple[Tensor, Box]]


class MaskSampler(ABC):
    """A callable that draws one hole mask per image, and one box per image for the local critic.

    A sampler implements `draw`; size check, boxes, augmentation and device are the same for all.

    Attributes:
        box: Height and width of the boxes in pixels.
        margin: Pixels that stay free above and below the boxes, left and right of them.
        augment: Changes what was drawn, such as `MaskAugment`; None keeps it.
    """

    box: tuple[int, int]
    margin: tuple[int, int] = (0, 0)
    augment: Augment | None = None

    def __call__(
        self, batch_size: int, height: int, width: int, *, generator: Rng = None, device: Device = None
    ) -> tuple[Tensor, Box]:
        """Draw masks of a size in pixels.

        Args:
            batch_size: Number of masks.
            height: Height of the images.
            width: Width of the images.
            generator: Source of all randomness, on any device; None uses PyTorch's global CPU generator.
            device: Where the result goes; None is the CPU.

        Shape:
            - returned: float32 (B, 1, H, W), {0, 1}, 1 = hole; and a box inside the image, tops and lefts (B,)

        Raises:
            ValueError: If the box with its margins does not fit the image.
        """
        check_room(height, width, self.box, self.margin)
        mask, box = self.draw(batch_size, (height, width), generator, device)
        box = hole_window(mask, self.box) if box is None else box
        mask, box = mask.to(device or "cpu", torch.float32), Box(box.top.to(device), box.left.to(device), *self.box)
        return (mask, box) if self.augment is None else self.augment(mask, box, generator)

    @abstractmethod
    def draw(self, batch_size: int, size: tuple[int, int], generator: Rng, device: Device) -> tuple[Tensor, Box | None]:
        """Return masks of any type (B, 1, H, W) and their boxes; None takes the windows that hold most of each hole."""


@runtime_checkable
class NumberedMasks(Protocol):
    """Masks with numbers, such as `FixedMasks`: mask i is the same in every batch and process."""

    def __call__(self, indices: Iterable[int], height: int = 256, width: int = 256) -> tuple[Tensor, Box]:
        """Return the masks with the given numbers, (B, 1, H, W), {0, 1}, 1 = hole, and a box for each."""
        ...

    def manifest(self, count: int, height: int = 256, width: int = 256) -> Mapping[str, int | str]:
        """Describe the first masks, with the SHA-256 over all of them."""
        ...


class MixedMask(MaskSampler):
    """Holes from several samplers; each image draws the sampler that makes its hole.

    Args:
        masks: Samplers, all with the same box.
        weights: How often each sampler is drawn, relative to the others; 0 is never. None draws all equally often.
        box: Height and width of the samplers' box in pixels; None takes it from them.
        augment: Changes what was drawn, such as `MaskAugment`; None keeps it.

    Raises:
        TypeError: If a number of the box is not whole.
        ValueError: If there is no sampler, the boxes differ, or the weights are not one per sampler, finite, not
            negative and not all 0; when called, whatever the samplers raise.

    Source:
        Ours: the paper trains on rectangles alone.

    Example:
        >>> import torch
        >>> from gicinpaint.masks import CenterMask, RectangleMask
        >>> mixed = MixedMask([CenterMask(box=4), RectangleMask(box=4, inset=1)], weights=[1, 3])
        >>> mask, box = mixed(2, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> mask.shape, mixed.box
        (torch.Size([2, 1, 8, 8]), (4, 4))
    """

    def __init__(
        self,
        masks: Sequence[MaskSampler],
        weights: Sequence[float] | None = None,
        box: int | Sequence[int] | None = None,
        augment: Augment | None = None,
    ) -> None:
        self.augment = augment
        self.masks = tuple(masks)
        self.box = common_box(self.masks, "masks", None if box is None else read_pair(box, "box", 1))
        self.weights = (1.0,) * len(self.masks) if weights is None else tuple(weights)
        if len(self.weights) != len(self.masks):
            raise ValueError(
                f"weights must be one per sampler, got {len(self.weights)} for {len(self.masks)}; give one for each"
            )
        if not all(0 <= weight < math.inf for weight in self.weights) or not any(self.weights):
            raise ValueError(f"weights must be finite, at least 0 and not all 0, got {self.weights}; e.g. use shares")

    def draw(self, batch_size: int, size: tuple[int, int], generator: Rng, device: Device) -> tuple[Tensor, Box | None]:
        """Draw masks and their boxes; see `MaskSampler`."""
        weights = torch.tensor(self.weights, dtype=torch.float64, device=device_of(generator))
        choices = torch.multinomial(weights, batch_size, replacement=True, generator=generator).tolist()
        mask = torch.zeros(batch_size, 1, *size, device=device or "cpu")
        top, left = torch.zeros(2, batch_size, dtype=torch.int64, device=mask.device)
        for chosen in sorted(set(choices)):
            images = [image for image, choice in enumerate(choices) if choice == chosen]
            holes, box = self.masks[chosen](len(images), *size, generator=generator, device=device)
            mask[images], top[images], left[images] = holes, box.top, box.left
        return mask, Box(top, left, *self.box)


def common_box(samplers: Sequence[MaskSampler], name: str, box: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return the box of all samplers, or raise a ValueError that uses this name; `box` is the one they should have."""
    if not samplers:
        raise ValueError(f"{name} must hold at least one sampler, got none; add one")
    boxes = [sampler.box for sampler in samplers]
    box = boxes[0] if box is None else box
    if any(other != box for other in boxes):
        raise ValueError(f"{name} must all have the box {box}, got {boxes}; give them the same box")
    return box


def read_pair(value: int | Sequence[int], name: str, smallest: int) -> tuple[int, int]:
    """Return (height, width), or (vertical, horizontal), from one whole number or two.

    Raises:
        TypeError: If a number is not whole.
        ValueError: If there are not two numbers, or one is below `smallest`.
    """
    pair = _read_two(value, name, "(vertical, horizontal)")
    if min(pair) < smallest:
        raise ValueError(f"{name} must be at least {smallest} pixels, got {pair}; choose larger values")
    return pair


def read_range(value: int | Sequence[int], name: str, smallest: int) -> tuple[int, int]:
    """Return an inclusive (low, high) range from one whole number or two.

    Raises:
        TypeError: If a number is not whole.
        ValueError: If there are not two numbers, or not smallest <= low <= high.
    """
    low, high = _read_two(value, name, "(low, high)")
    if not smallest <= low <= high:
        raise ValueError(f"{name} must be a range from {smallest} upwards, got ({low}, {high}); give (low, high)")
    return low, high


def read_hole_ratio(value: Sequence[float]) -> tuple[float, float]:
    """Return a (low, high) range of hole ratios, low included and high excluded.

    Raises:
        ValueError: If there are not two fractions in order.
    """
    ratio = tuple(value)
    if not (len(ratio) == 2 and 0 <= ratio[0] < ratio[1] <= 1):
        raise ValueError(f"hole_ratio must be (low, high) with 0 <= low < high <= 1, got {value}; use fractions, not %")
    return ratio[0], ratio[1]


def check_room(height: int, width: int, box: tuple[int, int], margin: tuple[int, int] = (0, 0)) -> None:
    """Raise a ValueError unless a box (height, width) with margins above and below, left and right fits an image."""
    needed = (box[0] + 2 * margin[0], box[1] + 2 * margin[1])
    if needed[0] > height or needed[1] > width:
        with_margin = f" with margins {margin[0]}, {margin[1]}" if any(margin) else ""
        raise ValueError(
            f"box {box[0]}x{box[1]}{with_margin} must fit the image {height}x{width}, needs {needed[0]}x{needed[1]}; "
            "choose a smaller box or a larger image"
        )


def draw_integers(low: int, high: int, shape: tuple[int, ...], generator: Rng) -> Tensor:
    """Draw whole numbers, every value from low to high (both included) equally likely, on the generator's device."""
    return torch.randint(low, high + 1, shape, generator=generator, device=device_of(generator))


def device_of(generator: Rng) -> torch.device:
    """Return the device on which a generator draws; without one, the CPU."""
    return torch.device("cpu") if generator is None else generator.device


def _read_two(value: int | Sequence[int], name: str, meaning: str) -> tuple[int, int]:
    numbers = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(numbers) != 2:
        raise ValueError(
            f"{name} must be one number or two {meaning}, got {len(numbers)} numbers; leave out the others"
        )
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"{name} must be whole numbers, got {number!r}; round it")
    return numbers


def hole_window(mask: Tensor, size: tuple[int, int]) -> Box:
    """Find the window of a given size (height, width) that holds most of each mask's hole.

    Among windows that hold equally much, the one whose middle is nearest to the hole's centre of mass is taken
    (rounded down to a pixel), then the topmost, then the leftmost.

    Shape:
        - mask: (B, 1, H, W), {0, 1}; 1 = hole
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


def hole_extent(mask: Tensor) -> tuple[int, int]:
    """Return height and width of the smallest window large enough for the hole of every mask, at least 1 x 1."""

    def longest(lines: Tensor) -> int:
        places = torch.arange(lines.shape[1], device=lines.device)
        last = torch.where(lines, places, -1).amax(1)
        return max(1, int((last + 1 - torch.where(lines, places, len(places)).amin(1)).max()))

    hole = mask[:, 0] > 0
    return longest(hole.any(2)), longest(hole.any(1))


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
