"""Images of every kind as planes of numbers that are painted in the hole only, and the way back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.spatial import cKDTree
from torch import Tensor

from gicinpaint.inference.box import Box

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow weighs colours
_ARRAY_MODES = ("L", "LA", "RGB", "RGBA", "I;16", "I;16B", "I", "F")
_CONVERTED_MODES = ("1", "P", "CMYK", "YCbCr", "HSV")
_RANGE_SLACK = 1e-3  # resampling and half precision overshoot the range by less than this, as in checks.py
_CHANNELS = "1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA)"


@dataclass
class Canvas:
    """An image as planes; only what `paint` is told to is ever written, everything else stays as it is.

    Attributes:
        planes: The image's own numbers, (C, H, W): grey or RGB, then alpha, if any.
        low: Value of black.
        high: Value of white.
        rebuild: Makes an image of the kind that was read from planes and the painted hole, (H, W).
    """

    planes: Tensor
    low: float
    high: float
    rebuild: Callable[[Tensor, Tensor], Any]

    def __post_init__(self) -> None:
        self.painted = torch.zeros(self.planes.shape[-2:], dtype=torch.bool)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.planes.shape[-2], self.planes.shape[-1]

    def colours(self, box: Box) -> Tensor:
        """Return a part of the image as the networks see it: (1, 3, h, w) in [-1, 1], over white where transparent."""
        part = self.planes[:, box.top : box.bottom, box.left : box.right].to(torch.float32)
        part = (part - self.low) * (2 / (self.high - self.low)) - 1
        part = torch.nan_to_num(part).clamp_(-1, 1)  # only a hole can hold such numbers
        count = self.planes.shape[0]
        colour = part[: count - (count in (2, 4))]
        if count in (2, 4):
            colour = 1 + (colour - 1) * ((part[-1:] + 1) / 2)
        return colour.expand(3, -1, -1)[None]

    def paint(self, box: Box, colours: Tensor, hole: Tensor) -> None:
        """Write colours, (3, h, w) in [-1, 1], where `hole`, bool (h, w), is true; there the image becomes opaque."""
        part = self.planes[:, box.top : box.bottom, box.left : box.right]
        count = part.shape[0]
        if count < 3:
            colours = torch.tensordot(colours.new_tensor(_LUMA), colours, 1)[None]
        if count in (2, 4):
            colours = torch.cat([colours, torch.ones_like(colours[:1])])
        values = (colours.double().clamp(-1, 1) + 1) * ((self.high - self.low) / 2) + self.low
        if not part.is_floating_point():
            values = values.round()
        part[:, hole] = values[:, hole].to(part.dtype)
        self.painted[box.top : box.bottom, box.left : box.right] |= hole

    def finish(self) -> Any:
        """Return the painted image, of the kind that was read."""
        return self.rebuild(self.planes, self.painted)

    def check_known(self, known: Tensor) -> None:
        """Raise unless the known pixels, bool (H, W), are finite and in the range of this kind of image."""
        if not self.planes.is_floating_point():
            return
        values = self.planes[:, known].to(torch.float32)
        slack = _RANGE_SLACK * (self.high - self.low)
        low, high = (value.item() for value in torch.aminmax(values))
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
            (H, W) or (H, W, C), uint8, uint16 or floating point in [0, 1]; or a tensor (C, H, W), uint8 or floating
            point in [-1, 1]. C is 1, 2, 3 or 4; the last of 2 or 4 is alpha.

    Raises:
        TypeError: If it is of another kind, mode or type.
        ValueError: If its shape is another, or it has no pixel.
    """
    if isinstance(image, Image.Image):
        return _of_picture(image)
    if isinstance(image, np.ndarray):
        return _of_array(image)
    if isinstance(image, Tensor):
        return _of_tensor(image)
    raise TypeError(
        f"image must be a Pillow image, a NumPy array or a tensor, got {type(image).__name__}; open files with PIL"
    )


def _of_picture(image: Image.Image) -> Canvas:
    if not (image.width and image.height):
        raise ValueError(f"image must have at least one pixel, got {image.width}x{image.height}; leave it out")
    if image.mode in _ARRAY_MODES:
        array = np.array(image)  # a copy
        low, high = _levels(array)
        planes = _planes(array.astype(np.int32) if array.dtype.kind == "u" and array.itemsize == 2 else array)

        def rebuild(planes: Tensor, _: Tensor) -> Image.Image:
            return _with_info(Image.fromarray(_unplaned(planes, array.ndim).astype(array.dtype)), image)

        return Canvas(planes, low, high, rebuild)
    if image.mode not in _CONVERTED_MODES:
        raise TypeError(f"image must have a mode such as L, RGB or RGBA, got {image.mode}; call image.convert('RGB')")

    def repaint(planes: Tensor, painted: Tensor) -> Image.Image:
        colours = _unplaned(planes, 3)
        if image.mode == "P":
            filling = _nearest_in_palette(image, colours, painted.numpy())
        else:
            filling = Image.fromarray(colours).convert(image.mode, dither=Image.Dither.NONE)
        result = image.copy()
        result.paste(filling, mask=Image.fromarray(painted.numpy()))
        return result

    return Canvas(_planes(np.array(image.convert("RGB"))), 0, 255, repaint)


def _of_array(image: np.ndarray) -> Canvas:
    if image.ndim not in (2, 3) or (image.ndim == 3 and not 1 <= image.shape[2] <= 4) or image.size == 0:
        raise ValueError(f"image must be (H, W) or (H, W, C) with C {_CHANNELS}, got {image.shape}; put channels last")
    own = image.dtype.newbyteorder("=")
    if own not in (np.uint8, np.uint16) and own.kind != "f":
        raise TypeError(f"image must be uint8, uint16 or floating point in [0, 1], got {image.dtype}; convert it")
    native = image.astype(np.int32 if own == np.uint16 else own)  # a copy
    if native.dtype.itemsize > 8:
        native = native.astype(np.float64)
    low, high = (0.0, 1.0) if own.kind == "f" else (0.0, float(np.iinfo(own).max))

    def rebuild(planes: Tensor, painted: Tensor) -> np.ndarray:
        result = image.copy()
        hole = painted.numpy()
        result[hole] = _unplaned(planes, image.ndim)[hole].astype(image.dtype)
        return result

    return Canvas(_planes(native), low, high, rebuild)


def _of_tensor(image: Tensor) -> Canvas:
    if image.ndim != 3 or not 1 <= image.shape[0] <= 4 or image.numel() == 0:
        raise ValueError(f"image must be (C, H, W) with C {_CHANNELS}, got {tuple(image.shape)}; put channels first")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise TypeError(f"image must be uint8 or floating point in [-1, 1], got {image.dtype}; convert it")
    low, high = (-1.0, 1.0) if image.is_floating_point() else (0.0, 255.0)
    planes = image.detach().to("cpu", copy=True)
    return Canvas(planes, low, high, lambda planes, _: planes.to(image.device))


def _levels(array: np.ndarray) -> tuple[float, float]:
    """Return black and white of a Pillow image: by its type, and by its values where the type does not tell."""
    if array.dtype == np.uint8:
        return 0.0, 255.0
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    ceilings = {"u": (65535.0,), "i": (65535.0,), "f": (1.0, 255.0)}[array.dtype.kind]
    for ceiling in ceilings:
        if low >= 0 and high <= ceiling:
            return 0.0, ceiling
    return low, high if high > low else low + 1


def _planes(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1)))


def _unplaned(planes: Tensor, dimensions: int) -> np.ndarray:
    array = planes.numpy()
    return array[0] if dimensions == 2 else np.ascontiguousarray(array.transpose(1, 2, 0))


def _nearest_in_palette(image: Image.Image, colours: np.ndarray, painted: np.ndarray) -> Image.Image:
    """Return the painted pixels in the nearest opaque colours of an image's palette."""
    palette = np.reshape(image.getpalette("RGB") or [], (-1, 3))
    transparent = image.info.get("transparency")
    alpha = np.full(len(palette), 255)
    if isinstance(transparent, int) and transparent < len(palette):
        alpha[transparent] = 0
    elif isinstance(transparent, bytes):
        alpha[: len(transparent)] = list(transparent[: len(palette)])
    usable = np.flatnonzero(alpha == alpha.max())
    indices = np.zeros(painted.shape, np.uint8)
    indices[painted] = usable[cKDTree(palette[usable]).query(colours[painted])[1]]
    return Image.frombytes("P", image.size, indices.tobytes())


def _with_info(result: Image.Image, image: Image.Image) -> Image.Image:
    result.info = dict(image.info)
    return result
