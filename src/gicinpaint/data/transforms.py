"""Crops and augmentation: from an image of any size to the training size.

A crop is an object called as `crop(image, height, width, generator) -> image`: 8-bit RGB images in and out.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from kornia.color import rgb_to_grayscale
from kornia.enhance import add_weighted, invert
from kornia.geometry.bbox import bbox_generator
from kornia.geometry.transform import crop_by_indices
from PIL import Image
from torch import Tensor

from gicinpaint.data.image_io import ImageError, to_levels

Crop = Callable[[Image.Image, int, int, torch.Generator], Image.Image]
ColorAugment = Callable[[Tensor, torch.Generator], Tensor]

_RESAMPLE = Image.Resampling.BICUBIC


@dataclass
class RandomCrop:
    """Cut a random window out of the image at its own scale, as for Places2, ImageNet and DTD.

    Args:
        enlarge: What to do with an image that is smaller than the window: enlarge it until it just covers it (as the
            released code does), or refuse it with an `ImageError`.
        cut: What cuts the window: "pillow" copies its pixels alone, "kornia" takes it from a tensor of the whole image.
            Both give the same pixels; of a photograph of 1024x768, Pillow takes 0.2 ms and kornia 4 ms.

    Raises:
        ValueError: If `cut` is something else.
    """

    enlarge: bool = False
    cut: Literal["pillow", "kornia"] = "pillow"

    def __post_init__(self) -> None:
        if self.cut not in ("pillow", "kornia"):
            raise ValueError(f"cut must be pillow or kornia, got {self.cut}; pillow is the fast one")

    def __call__(self, image: Image.Image, height: int, width: int, generator: torch.Generator) -> Image.Image:
        """Return the window, height x width."""
        image = _cover(image, height, width, self.enlarge)
        top = _draw(image.height - height, generator)
        left = _draw(image.width - width, generator)
        if self.cut == "pillow":
            return image.crop((left, top, left + width, top + height))
        box = bbox_generator(*(torch.tensor([number]) for number in (left, top, width, height)))
        window = crop_by_indices(to_levels(image)[None], box)[0]
        return Image.fromarray(window.movedim(0, -1).numpy())


@dataclass
class RandomScaleCrop:
    """Cut a random window of random scale and shrink it: many different views of few photographs.

    Args:
        smallest: Smallest share of the largest window that fits, above 0 and at most 1. The window is never smaller
            than the result, so nothing is enlarged unless the image itself is too small.
        enlarge: As in `RandomCrop`.

    Raises:
        ValueError: If the share is not in that range.
    """

    smallest: float = 0.4
    enlarge: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise ValueError(f"smallest must be a share above 0 and at most 1, got {self.smallest}; try 0.4")

    def __call__(self, image: Image.Image, height: int, width: int, generator: torch.Generator) -> Image.Image:
        """Return the window, resized to height x width."""
        image = _cover(image, height, width, self.enlarge)
        largest = min(image.height / height, image.width / width)
        smallest = max(1.0, self.smallest * largest)
        scale = smallest + (largest - smallest) * torch.rand((), generator=generator).item()
        window_height, window_width = round(scale * height), round(scale * width)
        top = _draw(image.height - window_height, generator)
        left = _draw(image.width - window_width, generator)
        return _resize(image, height, width, (left, top, left + window_width, top + window_height))


class ResizeThenCrop:
    """Resize the image until it just covers the window, then cut at a random place along the longer side.

    A square image is simply resized, as for CelebA-HQ. Smaller images are enlarged.
    """

    def __call__(self, image: Image.Image, height: int, width: int, generator: torch.Generator) -> Image.Image:
        """Return the window, height x width."""
        scale = min(image.height / height, image.width / width)
        top = (image.height - scale * height) * torch.rand((), generator=generator).item()
        left = (image.width - scale * width) * torch.rand((), generator=generator).item()
        return _resize(image, height, width, (left, top, left + scale * width, top + scale * height))


@dataclass
class RepeatedCrop:
    """Cut as another crop does, and now and then a small view that is repeated over the window: patterns to copy.

    Photographs seldom repeat exactly, so that a network hardly learns from them to copy; here each hole's content
    lies elsewhere in the image. Period, skew and phase of the lattice are drawn for each window: a fixed offset could
    be learned by a convolution.

    Args:
        crop: What cuts, the window or the small view; it decides how much of the photograph that is, and its scale.
        probability: Share of the windows that are filled with one small view.
        smallest: Smallest side of the view, as a share of the window's.
        largest: Largest side, likewise; height and width are drawn one by one.
        skew: Largest shift of one row of views against the row above, as a share of the view's width.

    Raises:
        ValueError: If probability or skew lie outside [0, 1], or the sides are not 0 < smallest <= largest <= 1.
    """

    crop: Crop
    probability: float = 0.5
    smallest: float = 0.2
    largest: float = 0.5
    skew: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must lie in [0, 1], got {self.probability}; try 0.5")
        if not 0 <= self.skew <= 1:
            raise ValueError(f"skew must lie in [0, 1], got {self.skew}; try 1")
        if not 0 < self.smallest <= self.largest <= 1:
            raise ValueError(
                "smallest and largest must be shares of the window, 0 < smallest <= largest <= 1, "
                f"got {self.smallest} and {self.largest}; try 0.2 and 0.5"
            )

    def __call__(self, image: Image.Image, height: int, width: int, generator: torch.Generator) -> Image.Image:
        """Return the window, height x width."""
        if torch.rand((), generator=generator).item() >= self.probability:
            return self.crop(image, height, width, generator)
        shares = self.smallest + (self.largest - self.smallest) * torch.rand(2, generator=generator)
        rows, columns = (max(1, round(side)) for side in (shares.double() * torch.tensor([height, width])).tolist())
        part = np.asarray(self.crop(image, rows, columns, generator))
        top, left = _draw(rows - 1, generator), _draw(columns - 1, generator)
        shift = _draw(round(self.skew * (columns - 1)), generator)
        return Image.fromarray(part[lattice_places(height, width, (rows, columns), (top, left), shift)])


def lattice_places(
    height: int, width: int, period: tuple[int, int], phase: tuple[int, int], shift: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the row and the column of a repeated view that each pixel of a window shows, int64 (height, width) each.

    Args:
        height: Height of the window in pixels.
        width: Width of the window in pixels.
        period: Height and width of the view.
        phase: Row and column of the view that the window's first pixel shows, before the shift.
        shift: Columns by which a row of views is shifted against the row above.
    """
    y, x = np.arange(height)[:, None] + phase[0], np.arange(width)[None] + phase[1]
    rows, columns = np.broadcast_arrays(y % period[0], (x + y // period[0] * shift) % period[1])
    return rows, columns


@dataclass
class CenterCropResize:
    """Cut the largest centred window of the result's shape and resize it; nothing is random.

    The crop for CelebA and for validation. Smaller images are enlarged.

    Args:
        shrink: Keep the image's own scale where it is larger than the window (False), or take as much of the image
            as fits (True).
    """

    shrink: bool = True

    def __call__(self, image: Image.Image, height: int, width: int, generator: torch.Generator) -> Image.Image:
        """Return the window, height x width; the generator is not used."""
        scale = min(image.height / height, image.width / width, math.inf if self.shrink else 1.0)
        top, left = (image.height - scale * height) / 2, (image.width - scale * width) / 2
        if scale == 1:
            return image.crop((int(left), int(top), int(left) + width, int(top) + height))
        return _resize(image, height, width, (left, top, left + scale * width, top + scale * height))


class ColorJitter:
    """Change the colours of a whole image at random: grey, exchanged channels, contrast, brightness, negative.

    A completion has to take its colours from the known pixels. A network that sees few photographs learns their
    palette instead; one that sees every palette cannot. The released code does without: its datasets are large.

    Args:
        grey: Probability that the image loses its colour.
        shuffle: Probability that the three channels change places.
        contrast: Largest share of the contrast that is taken away, at least 0 and below 1; what is free of the range
            afterwards moves the brightness of each channel.
        negative: Probability that light and dark change places.

    Raises:
        ValueError: If a probability or share is out of range.
    """

    def __init__(self, grey: float = 0.3, shuffle: float = 0.5, contrast: float = 0.5, negative: float = 0.25) -> None:
        for name, value in (("grey", grey), ("shuffle", shuffle), ("negative", negative)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be a probability in 0..1, got {value}; 0 switches it off")
        if not 0 <= contrast < 1:
            raise ValueError(f"contrast must be a share of at least 0 and below 1, got {contrast}; 0 switches it off")
        self.grey = grey
        self.shuffle = shuffle
        self.contrast = contrast
        self.negative = negative

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Return the image (3, H, W) in [-1, 1] with other colours, in the same range."""
        grey, shuffle, contrast, negative = torch.rand(4, generator=generator).tolist()
        order = torch.randperm(3, generator=generator)
        centre = torch.rand(3, 1, 1, generator=generator) * 2 - 1
        if grey < self.grey:
            image = (rgb_to_grayscale(image, image.new_ones(3)) / 3).expand_as(image)  # the mean of the channels
        if shuffle < self.shuffle:
            image = image[order]
        kept = 1 - self.contrast * contrast
        image = add_weighted(image, kept, centre.expand_as(image), 1 - kept, 0.0)
        return invert(image, image.new_zeros(())) if negative < self.negative else image


def _cover(image: Image.Image, height: int, width: int, enlarge: bool) -> Image.Image:
    if image.height >= height and image.width >= width:
        return image
    if not enlarge:
        raise ImageError(
            f"the image is {image.height}x{image.width}, smaller than the crop of {height}x{width}; "
            "leave such images out, use a smaller image_size, or set enlarge=true"
        )
    scale = max(height / image.height, width / image.width)
    return image.resize((max(width, round(scale * image.width)), max(height, round(scale * image.height))), _RESAMPLE)


def _resize(image: Image.Image, height: int, width: int, box: tuple[float, float, float, float]) -> Image.Image:
    left, top, right, bottom = box
    inside = (max(left, 0.0), max(top, 0.0), min(right, image.width), min(bottom, image.height))  # guards rounding
    return image.resize((width, height), _RESAMPLE, box=inside, reducing_gap=3.0)


def _draw(last: int, generator: torch.Generator) -> int:
    return int(torch.randint(last + 1, (), generator=generator))
