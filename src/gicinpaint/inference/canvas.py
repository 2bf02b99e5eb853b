"""Images and masks of every kind: planes of numbers that are painted in the hole only, and the way back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor
from scipy.spatial import cKDTree
from torch import Tensor

from gicinpaint.masks.files import hole_of_image, hole_of_levels
from gicinpaint.models.windows import Rectangle

HoleColour = str | int | Sequence[int]
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow weighs colours
_ARRAY_MODES = ("L", "LA", "RGB", "RGBA", "I;16", "I;16B", "I", "F")
_CONVERTED_MODES = ("1", "P", "CMYK", "YCbCr", "HSV")
_RANGE_SLACK = 1e-3  # resampling and half precision overshoot the range by less than this, as in checks.py
_CHANNELS = "1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA)"


@dataclass
class Canvas:
    """An image as planes of its own numbers, of which only the hole is ever written."""

    planes: Tensor  # (C, H, W): grey or RGB, then alpha, if any
    low: float  # value of black
    high: float  # value of white
    rebuild: Callable[[Tensor, Tensor], Any]  # an image of the kind that was read, from planes and painted hole (H, W)

    def __post_init__(self) -> None:
        self.painted = torch.zeros(self.planes.shape[-2:], dtype=torch.bool)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.planes.shape[-2], self.planes.shape[-1]

    def colours(self, box: Rectangle) -> Tensor:
        """Return a part of the image as the networks see it: (1, 3, h, w) in [-1, 1], over white where transparent."""
        part = (self.planes[:, *box.slices].to(torch.float32) - self.low) * (2 / (self.high - self.low)) - 1
        part = torch.nan_to_num(part).clamp_(-1, 1)  # only a hole can hold such numbers
        if len(part) in (2, 4):
            part = 1 + (part[:-1] - 1) * ((part[-1:] + 1) / 2)
        return part.expand(3, -1, -1)[None]

    def paint(self, box: Rectangle, colours: Tensor, hole: Tensor) -> None:
        """Write colours, (3, h, w) in [-1, 1], where `hole`, bool (h, w), is true; there the image becomes opaque."""
        part = self.planes[:, *box.slices]
        if len(part) < 3:
            colours = torch.tensordot(colours.new_tensor(_LUMA), colours, 1)[None]
        if len(part) in (2, 4):
            colours = torch.cat([colours, torch.ones_like(colours[:1])])
        values = (colours.double().clamp(-1, 1) + 1) * ((self.high - self.low) / 2) + self.low
        if not part.is_floating_point():
            values = values.round()
        part[:, hole] = values[:, hole].to(part.dtype)
        self.painted[box.slices] |= hole

    def finish(self) -> Any:
        """Return the painted image, of the kind that was read."""
        return self.rebuild(self.planes, self.painted)

    def check_known(self, known: Tensor) -> None:
        """Raise unless the known pixels, bool (H, W), are finite and in the range of this kind of image."""
        if not self.planes.is_floating_point():
            return
        slack = _RANGE_SLACK * (self.high - self.low)
        low, high = (value.item() for value in torch.aminmax(self.planes[:, known].to(torch.float32)))
        if not (low >= self.low - slack and high <= self.high + slack):
            raise ValueError(
                f"known pixels of floating-point images must be finite and in [{self.low:g}, {self.high:g}], got "
                f"values from {low:.4g} to {high:.4g}; tensors lie in [-1, 1], NumPy arrays in [0, 1], "
                "8-bit values are integers of type uint8"
            )


def read_canvas(image: Any) -> Canvas:
    """Return the canvas of an image; the image itself is never written to.

    Args:
        image: A Pillow image of mode 1, L, LA, P, RGB, RGBA, CMYK, YCbCr, HSV, I;16, I;16B, I or F; a NumPy array
            (H, W) or (H, W, C), uint8, uint16 or floats in [0, 1]; or a tensor (C, H, W), uint8 or floats in [-1, 1].
            C is 1, 2, 3 or 4; the last of 2 or 4 is alpha.

    Raises:
        TypeError: If it is of another kind, mode or type.
        ValueError: If its shape is another, or it has no pixel.
    """
    readers: dict[type, Callable[[Any], Canvas]] = {Image.Image: _of_pillow, np.ndarray: _of_array, Tensor: _of_tensor}
    for kind, read in readers.items():
        if isinstance(image, kind):
            return read(image)
    raise TypeError(
        f"image must be a Pillow image, a NumPy array or a tensor, got {type(image).__name__}; open files with PIL"
    )


def read_mask(mask: Any, size: tuple[int, int], name: str = "mask") -> Tensor:
    """Return the hole of a mask, bool (H, W).

    Args:
        mask: A Pillow image, read by `gicinpaint.masks.hole_of_image`; a NumPy array (H, W), (H, W, C) or (1, 1, H, W)
            or a tensor (H, W), (1, H, W) or (1, 1, H, W): bool, 0 to 1, or 0 to 255 with the brighter of two values, or
            what is above the middle, as the hole. Of several channels the first counts.
        size: Height and width that it must have.
        name: What to call it in messages.

    Raises:
        TypeError: If it is of another kind.
        ValueError: If its shape, size or range is another, or it looks like a photo.
    """
    if isinstance(mask, Image.Image):
        hole = hole_of_image(mask)
    elif isinstance(mask, np.ndarray | Tensor):
        hole = _of_numbers(mask, size, name)
    else:
        raise TypeError(f"{name} must be a Pillow image, a NumPy array or a tensor, got {type(mask).__name__}")
    if hole.shape != size:
        raise ValueError(
            f"{name} must have the image's height and width {size[0]}x{size[1]}, got {hole.shape[0]}x{hole.shape[1]}; "
            "resize it with the nearest pixel"
        )
    return torch.from_numpy(np.ascontiguousarray(hole))


def find_colour(canvas: Canvas, colour: HoleColour, tolerance: int = 0) -> Tensor:
    """Return where an image, its alpha apart, has a colour, bool (H, W).

    Args:
        canvas: The image.
        colour: A name or code that Pillow knows ("white", "#ff00ff"), a grey level or red, green, blue, 0..255.
        tolerance: Largest difference in any channel, in 8-bit levels; JPEG files need some.

    Raises:
        ValueError: If the colour cannot be read or the tolerance is out of range.
    """
    red_green_blue = read_colour(colour)
    if not 0 <= tolerance <= 255:
        raise ValueError(f"hole_tolerance must lie in 0..255, got {tolerance}; 0 takes the exact colour only")
    channels = 3 if len(canvas.planes) >= 3 else 1
    if channels == 1 and len(set(red_green_blue)) > 1:
        raise ValueError(f"hole_colour of a grey image must be grey, got {red_green_blue}; name one level, 0..255")
    level = (canvas.high - canvas.low) / 255
    wanted = torch.tensor(red_green_blue[:channels])[:, None, None] * level + canvas.low
    return ((canvas.planes[:channels].float() - wanted).abs() <= (tolerance + 1e-3) * level).all(0)


def read_colour(colour: HoleColour) -> tuple[int, int, int]:
    """Return red, green and blue, 0..255, of a colour in any form; raise a `ValueError` if it cannot be read."""
    try:
        levels = ImageColor.getrgb(colour)[:3] if isinstance(colour, str) else colour
        red, green, blue = map(index, [levels] * 3 if isinstance(levels, int) else levels)
        if not all(0 <= level <= 255 for level in (red, green, blue)):
            raise ValueError
    except (ValueError, TypeError):
        raise ValueError(
            f"hole_colour must be a colour, got {colour!r}; name one as 'white' or '#ff00ff', a grey level, or red, "
            "green, blue, each 0..255"
        ) from None
    return red, green, blue


def _of_pillow(image: Image.Image) -> Canvas:
    if not (image.width and image.height):
        raise ValueError(f"image must have at least one pixel, got {image.width}x{image.height}; leave it out")
    if image.mode in _ARRAY_MODES:
        array = np.array(image)  # a copy
        low, high = _levels(array)
        planes = _planes(array.astype(np.int32) if array.dtype.kind == "u" and array.itemsize == 2 else array)

        def rebuild(planes: Tensor, _: Tensor) -> Image.Image:
            result = Image.fromarray(_interleaved(planes, array.ndim).astype(array.dtype))
            result.info = dict(image.info)
            return result

        return Canvas(planes, low, high, rebuild)
    if image.mode not in _CONVERTED_MODES:
        raise TypeError(f"image must have a mode such as L, RGB or RGBA, got {image.mode}; save it as RGB first")

    def repaint(planes: Tensor, painted: Tensor) -> Image.Image:
        colours, result = _interleaved(planes, 3), image.copy()
        if image.mode == "P":
            filling = _nearest_in_palette(image, colours, painted.numpy())
        else:
            filling = Image.fromarray(colours).convert(image.mode, dither=Image.Dither.NONE)
        result.paste(filling, mask=Image.fromarray(painted.numpy()))
        return result

    return Canvas(_planes(np.array(image.convert("RGB"))), 0, 255, repaint)


def _of_array(image: np.ndarray) -> Canvas:
    if image.ndim not in (2, 3) or (image.ndim == 3 and not 1 <= image.shape[2] <= 4) or image.size == 0:
        raise ValueError(f"image must be (H, W) or (H, W, C) with C {_CHANNELS}, got {image.shape}; put channels last")
    own = image.dtype.newbyteorder("=")  # the machine's
    if own not in (np.uint8, np.uint16) and own.kind != "f":
        raise TypeError(f"image must be uint8, uint16 or floating point in [0, 1], got {image.dtype}; convert it")
    native = image.astype(np.int32 if own == np.uint16 else np.float64 if own.itemsize > 8 else own)  # a copy

    def rebuild(planes: Tensor, painted: Tensor) -> np.ndarray:
        result, hole = image.copy(), painted.numpy()
        result[hole] = _interleaved(planes, image.ndim)[hole].astype(image.dtype)
        return result

    return Canvas(_planes(native), 0.0, 1.0 if own.kind == "f" else float(np.iinfo(own).max), rebuild)


def _of_tensor(image: Tensor) -> Canvas:
    if image.ndim != 3 or not 1 <= image.shape[0] <= 4 or image.numel() == 0:
        raise ValueError(f"image must be (C, H, W) with C {_CHANNELS}, got {tuple(image.shape)}; put channels first")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise TypeError(f"image must be uint8 or floating point in [-1, 1], got {image.dtype}; convert it")
    low, high = (-1.0, 1.0) if image.is_floating_point() else (0.0, 255.0)
    return Canvas(image.detach().to("cpu", copy=True), low, high, lambda planes, _: planes.to(image.device))


def _levels(array: np.ndarray) -> tuple[float, float]:
    """Return black and white of a Pillow image: by its type, and by its values where the type does not tell."""
    if array.dtype == np.uint8:
        return 0.0, 255.0
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low >= 0:
        for ceiling in (1.0, 255.0) if array.dtype.kind == "f" else (65535.0,):
            if high <= ceiling:
                return 0.0, ceiling
    return low, high if high > low else low + 1


def _planes(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1)))


def _interleaved(planes: Tensor, dimensions: int) -> np.ndarray:
    array = planes.numpy()
    return array[0] if dimensions == 2 else np.ascontiguousarray(array.transpose(1, 2, 0))


def _nearest_in_palette(image: Image.Image, colours: np.ndarray, painted: np.ndarray) -> Image.Image:
    """Return the painted pixels in the nearest opaque colours of an image's palette."""
    palette = np.reshape(image.getpalette("RGB") or [], (-1, 3))
    transparent = image.info.get("transparency", b"")  # an index, or the alpha of the first colours
    alpha = np.full(len(palette), 255)
    if isinstance(transparent, int):
        alpha[transparent : transparent + 1] = 0
    else:
        alpha[: len(transparent)] = list(transparent[: len(palette)])
    usable = np.flatnonzero(alpha == alpha.max())
    indices = np.zeros(painted.shape, np.uint8)
    indices[painted] = usable[cKDTree(palette[usable]).query(colours[painted])[1]]
    return Image.frombytes("P", image.size, indices.tobytes())


def _of_numbers(mask: np.ndarray | Tensor, size: tuple[int, int], name: str) -> np.ndarray:
    values: np.ndarray = mask  # type: ignore[assignment]
    if isinstance(mask, Tensor):
        values = (mask.float() if mask.is_floating_point() else mask).detach().cpu().numpy()
    while values.ndim > 2 and values.shape[0] == 1 and values.shape[:2] != size:
        values = values[0]
    if isinstance(mask, np.ndarray) and values.ndim == 3:
        values = values[..., 0]
    if values.ndim != 2:
        raise ValueError(f"{name} must have one value per pixel, got shape {tuple(mask.shape)}; pass one channel")
    if values.dtype.kind not in "buif":
        raise TypeError(f"{name} must hold numbers, got {values.dtype}; convert it to bool")
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 255):
        raise ValueError(
            f"{name} must hold 0 (known) and 1 or 255 (hole), got values from {low:.4g} to {high:.4g}; "
            f"pass e.g. {name} > 0"
        )
    return values if values.dtype == bool else hole_of_levels(values.astype(np.float64) / (1 if high <= 1 else 255))
