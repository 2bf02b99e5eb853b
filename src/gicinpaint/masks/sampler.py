"""What a mask sampler is, and how all of them read their settings and draw their numbers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gicinpaint.models.compositing import Box

Device = torch.device | str | None


class MaskSampler(Protocol):
    """A callable that draws one hole mask per image, and one box per image for the local critic."""

    @property
    def box(self) -> tuple[int, int]:
        """Height and width of the boxes in pixels."""
        ...

    def __call__(
        self,
        batch_size: int,
        height: int,
        width: int,
        *,
        generator: torch.Generator | None = None,
        device: Device = None,
    ) -> tuple[Tensor, Box]:
        """Draw masks of the given size.

        Args:
            batch_size: Number of masks.
            height: Height of the images in pixels.
            width: Width of the images in pixels.
            generator: Source of all randomness, on any device; None uses PyTorch's global CPU generator.
            device: Where the result goes; None is the CPU.

        Shape:
            - returned: float32 (B, 1, H, W), {0, 1}, 1 = hole; and a box inside the image, tops and lefts (B,)
        """
        ...


@runtime_checkable
class NumberedMasks(Protocol):
    """Masks with numbers, such as `FixedMasks`: mask i is the same in every batch and process."""

    def __call__(self, indices: Iterable[int], height: int = 256, width: int = 256) -> tuple[Tensor, Box]:
        """Return the masks with the given numbers, (B, 1, H, W), {0, 1}, 1 = hole, and a box for each."""
        ...

    def manifest(self, count: int, height: int = 256, width: int = 256) -> Mapping[str, int | str]:
        """Describe the first masks, with the SHA-256 over all of them."""
        ...


def read_pair(value: int | Sequence[int], name: str, smallest: int) -> tuple[int, int]:
    """Return a (height, width) pair from one whole number or two.

    Args:
        value: One number for both directions, or (vertical, horizontal).
        name: What to call it in the message.
        smallest: Smallest value that is allowed.

    Raises:
        TypeError: If a number is not whole.
        ValueError: If there are not two numbers, or one is too small.
    """
    pair = _read_two(value, name, "(vertical, horizontal)")
    if min(pair) < smallest:
        raise ValueError(f"{name} must be at least {smallest} pixels, got {pair}; choose larger values")
    return pair


def read_range(value: int | Sequence[int], name: str, smallest: int) -> tuple[int, int]:
    """Return an inclusive (low, high) range from one whole number or two.

    Args:
        value: One number, or the smallest and the largest.
        name: What to call it in the message.
        smallest: Smallest value that is allowed.

    Raises:
        TypeError: If a number is not whole.
        ValueError: If there are not two numbers, or they are out of order or too small.
    """
    low, high = _read_two(value, name, "(low, high)")
    if not smallest <= low <= high:
        raise ValueError(f"{name} must be a range from {smallest} upwards, got ({low}, {high}); give (low, high)")
    return low, high


def read_share(value: Sequence[float]) -> tuple[float, float]:
    """Return a (low, high) range of hole shares; the low end belongs to it, the high one does not.

    Raises:
        ValueError: If there are not two fractions in order.
    """
    share = tuple(value)
    if not (len(share) == 2 and 0 <= share[0] < share[1] <= 1):
        raise ValueError(f"share must be (low, high) with 0 <= low < high <= 1, got {value}; use fractions, not %")
    return share[0], share[1]


def check_room(height: int, width: int, box: tuple[int, int], margin: tuple[int, int] = (0, 0)) -> None:
    """Raise unless a box with its margins fits an image; a box as large as the image does.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        box: Height and width of the box.
        margin: Pixels to keep free above and below, left and right.

    Raises:
        ValueError: If it does not fit.
    """
    needed = (box[0] + 2 * margin[0], box[1] + 2 * margin[1])
    if needed[0] > height or needed[1] > width:
        with_margin = f" with margins {margin[0]}, {margin[1]}" if any(margin) else ""
        raise ValueError(
            f"box {box[0]}x{box[1]}{with_margin} must fit the image {height}x{width}, needs {needed[0]}x{needed[1]}; "
            "choose a smaller box or a larger image"
        )


def draw_integers(low: int, high: int, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Draw whole numbers, every value from low to high (both included) equally likely, on the generator's device."""
    return torch.randint(low, high + 1, shape, generator=generator, device=device_of(generator))


def device_of(generator: torch.Generator | None) -> torch.device:
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
