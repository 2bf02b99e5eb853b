"""Where the hole is: from a mask of any kind, or from a colour."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor
from torch import Tensor

from gicinpaint.inference.canvas import Canvas

HoleColour = str | int | Sequence[int]


def read_mask(mask: Any, size: tuple[int, int]) -> Tensor:
    """Return the hole of a mask, bool (H, W).

    Args:
        mask: A Pillow image, brighter than the middle in the hole (transparent parts count as black); or a NumPy array
            (H, W) or (H, W, C) or a tensor (H, W), (1, H, W) or (1, 1, H, W): true, 1, or above 127 where integers
            exceed 1. Of several channels the first counts.
        size: Height and width that it must have.

    Raises:
        TypeError: If it is of another kind.
        ValueError: If its shape or size is another, or it holds numbers that are neither 0 to 1 nor 0 to 255.
    """
    if isinstance(mask, Image.Image):
        values = torch.from_numpy(np.array(_grey(mask)))
    elif isinstance(mask, np.ndarray):
        channels_first = mask[..., 0] if mask.ndim == 3 else mask
        values = torch.from_numpy(np.ascontiguousarray(channels_first).astype(_torch_type(mask.dtype)))
    elif isinstance(mask, Tensor):
        values = mask.detach().cpu()
        while values.ndim > 2 and values.shape[0] == 1:
            values = values[0]
    else:
        raise TypeError(f"mask must be a Pillow image, a NumPy array or a tensor, got {type(mask).__name__}")
    if values.ndim != 2:
        raise ValueError(f"mask must have one value per pixel, got shape {tuple(mask.shape)}; pass one channel")
    if tuple(values.shape) != size:
        raise ValueError(
            f"mask must have the image's height and width {size[0]}x{size[1]}, got "
            f"{values.shape[0]}x{values.shape[1]}; resize it with the nearest pixel"
        )
    return values if values.dtype == torch.bool else _threshold(values)


def find_colour(canvas: Canvas, colour: HoleColour, tolerance: int = 0) -> Tensor:
    """Return where an image has a colour, bool (H, W).

    Args:
        canvas: The image; its alpha does not count.
        colour: A name or code that Pillow knows ("white", "#ff00ff"), a grey level or red, green, blue, 0..255.
        tolerance: Largest difference in any channel, in 8-bit levels; pictures saved as JPEG need some.

    Raises:
        ValueError: If the colour cannot be read or the tolerance is negative.
    """
    red_green_blue = read_colour(colour)
    if not 0 <= tolerance <= 255:
        raise ValueError(f"hole_tolerance must lie in 0..255, got {tolerance}; 0 takes the exact colour only")
    count = canvas.planes.shape[0]
    channels = 3 if count >= 3 else 1
    if channels == 1 and len(set(red_green_blue)) > 1:
        raise ValueError(f"hole_colour of a grey image must be grey, got {red_green_blue}; name one level, 0..255")
    found = torch.ones(canvas.size, dtype=torch.bool)
    for plane, level in zip(canvas.planes[:channels], red_green_blue, strict=False):
        value = canvas.low + level / 255 * (canvas.high - canvas.low)
        within = (tolerance + 1e-3) / 255 * (canvas.high - canvas.low)
        found &= (plane.to(torch.float32) - value).abs() <= within
    return found


def read_colour(colour: HoleColour) -> tuple[int, int, int]:
    """Return red, green and blue, 0..255, of a colour in any form.

    Raises:
        ValueError: If it cannot be read.
    """
    hint = "name one as 'white' or '#ff00ff', a grey level, or red, green, blue, each 0..255"
    if isinstance(colour, str):
        try:
            red, green, blue = ImageColor.getrgb(colour)[:3]
        except ValueError:
            raise ValueError(f"hole_colour must be a colour, got {colour!r}; {hint}") from None
        return red, green, blue
    levels = [colour] * 3 if isinstance(colour, int) else list(colour)
    if len(levels) != 3 or not all(isinstance(level, int | np.integer) and 0 <= level <= 255 for level in levels):
        raise ValueError(f"hole_colour must be a colour, got {colour!r}; {hint}")
    return int(levels[0]), int(levels[1]), int(levels[2])


def _grey(mask: Image.Image) -> Image.Image:
    if mask.mode in ("I;16", "I", "F"):
        array = np.asarray(mask)
        return Image.fromarray((array > array.max() / 2).astype(np.uint8) * 255)
    if "transparency" in mask.info or mask.mode in ("LA", "PA", "RGBA"):
        mask = Image.alpha_composite(Image.new("RGBA", mask.size, "black"), mask.convert("RGBA"))
    return mask.convert("L").point(lambda level: 255 if level > 127 else 0)


def _torch_type(dtype: np.dtype) -> Any:
    if dtype.kind not in "buif":
        raise TypeError(f"mask must hold numbers, got {dtype}; convert it to bool")
    return {"b": bool, "f": np.float32}.get(dtype.kind, np.int64)


def _threshold(values: Tensor) -> Tensor:
    low, high = (value.item() for value in torch.aminmax(values))
    if not (low >= 0 and high <= (1 if values.is_floating_point() and high <= 1 else 255)):
        raise ValueError(
            f"mask must hold 0 (known) and 1 or 255 (hole), got values from {low:.4g} to {high:.4g}; pass e.g. mask > 0"
        )
    return values > (0.5 if high <= 1 else 127.5)
