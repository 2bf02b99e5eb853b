"""Random images of every kind that an inpainter takes, with their pixels as one array, for property tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

PICTURE_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I;16B", "I", "F")
ARRAY_KINDS = [(dtype, c) for dtype in ("u1", "u2", ">u2", "f2", "f4", "f8", ">f4") for c in (None, 1, 2, 3, 4)]
TENSOR_KINDS = [
    (dtype, c)
    for dtype in (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for c in (1, 2, 3, 4)
]
KINDS = [*PICTURE_MODES, *ARRAY_KINDS, *TENSOR_KINDS]


def draw(kind: Any, height: int, width: int, seed: int) -> Any:
    """Return a random image of a kind."""
    random = np.random.default_rng(seed)
    if isinstance(kind, str):
        return picture(kind, height, width, random)
    dtype, channels = kind
    if isinstance(dtype, torch.dtype):
        values = torch.from_numpy(random.random((channels, height, width)))
        return (values * 255).to(dtype) if dtype == torch.uint8 else (values * 2 - 1).to(dtype)
    values = random.random((height, width) if channels is None else (height, width, channels))
    largest = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    return (values * largest).astype(dtype)


def picture(mode: str, height: int, width: int, random: np.random.Generator) -> Image.Image:
    """Return a random Pillow image of a mode."""
    if mode in ("I;16", "I;16B"):
        levels = random.integers(0, 65536, (height, width), dtype=np.uint16)
        return Image.fromarray(levels.astype(">u2" if mode.endswith("B") else "<u2"))
    if mode == "I":
        return Image.fromarray(random.integers(0, 65536, (height, width)).astype(np.int32))
    if mode == "F":
        return Image.fromarray(random.random((height, width)).astype(np.float32))
    if mode in ("L", "LA", "RGB", "RGBA"):
        shape = (height, width, len(mode)) if mode != "L" else (height, width)
        return Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8), mode=mode)
    colours = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return colours.quantize(32) if mode == "P" else colours.convert(mode)


def pixels(image: Any) -> np.ndarray:
    """Return the image's own numbers, rows and columns first."""
    if isinstance(image, torch.Tensor):
        return image.double().numpy().transpose(1, 2, 0)
    return np.array(image)


def same_kind(one: Any, other: Any) -> bool:
    """Tell whether two images have one type, size, mode, type of numbers and palette."""
    if type(one) is not type(other):
        return False
    attributes: dict[type, Callable[[Any], Any]] = {
        Image.Image: lambda x: (x.mode, x.size, x.getpalette()),
        np.ndarray: lambda x: (x.shape, x.dtype),
        torch.Tensor: lambda x: (x.shape, x.dtype, x.device),
    }
    look = next(look for kind, look in attributes.items() if isinstance(one, kind))
    return bool(look(one) == look(other))
