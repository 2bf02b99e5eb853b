"""Shape, type and range errors, raised at the public edge before any work starts."""

import torch
from torch import Tensor

_RANGE_SLACK = 1e-3  # resampling and half precision overshoot [-1, 1] by less than this


def check_image(
    image: Tensor,
    name: str = "image",
    *,
    channels: int | None = 3,
    multiple: int = 1,
    dtype: torch.dtype | None = None,
) -> None:
    """Raise unless a tensor is a batch of images in [-1, 1].

    Values are read on the CPU only: an accelerator would have to be waited for, a compiler's graph would break.

    Args:
        image: Tensor to check.
        name: What to call it in the message.
        channels: Channel count that is expected, or None for any.
        multiple: Number that height and width must be multiples of.
        dtype: Type of the weights that the image will meet; None, and autocast, allow any.

    Shape:
        - image: (B, channels, H, W), floating point, [-1, 1]

    Raises:
        TypeError: If it is no tensor.
        ValueError: If its dimensions, type, size or values differ from that.
    """
    expected = f"(B, {'C' if channels is None else channels}, H, W)"
    _check_tensor(image, name, expected, "call torch.as_tensor on it first")
    if image.ndim != 4 or (channels is not None and image.shape[1] != channels):
        hint = "add the batch dimension with unsqueeze(0)" if image.ndim == 3 else "put channels second"
        raise ValueError(f"{name} must be {expected}, got {_shape(image)}; {hint}")
    if not image.is_floating_point():
        raise ValueError(
            f"{name} must be floating point in [-1, 1], got {image.dtype}; convert 8-bit values with x / 127.5 - 1"
        )
    if dtype is not None and image.dtype != dtype and not torch.is_autocast_enabled(image.device.type):
        raise ValueError(
            f"{name} must have the type of the weights, {dtype}, got {image.dtype}; convert it with .to({dtype})"
        )
    if image.numel() == 0:
        raise ValueError(f"{name} must hold at least one pixel, got {_shape(image)}; skip empty batches")
    check_multiple(image.shape[-2], image.shape[-1], multiple, name)
    if _values_can_be_read(image):
        low, high = (value.item() for value in torch.aminmax(image.detach()))
        if low < -1 - _RANGE_SLACK or high > 1 + _RANGE_SLACK:  # false for NaN, which the training guard reports
            raise ValueError(
                f"{name} must lie in [-1, 1], got values from {low:.4g} to {high:.4g}; "
                "convert 8-bit values with x / 127.5 - 1"
            )


def check_mask(mask: Tensor, image: Tensor | None = None, name: str = "mask") -> None:
    """Raise unless a tensor is a batch of binary hole masks that fits the batch and size of an image, if one is given.

    Shape:
        - mask: (B or 1, 1, H, W), {0, 1}; 1 = hole
        - image: (B, C, H, W)

    Raises:
        TypeError: If it is no tensor.
        ValueError: If its dimensions, size or values differ from that.
    """
    expected = "(B, 1, H, W) with 1 = hole"
    _check_tensor(mask, name, expected, "call torch.as_tensor on it first")
    if mask.ndim != 4 or mask.shape[1] != 1:
        hint = f"pass one channel, e.g. {name}[:, :1]" if mask.ndim == 4 else "add dimensions with unsqueeze"
        raise ValueError(f"{name} must be {expected}, got {_shape(mask)}; {hint}")
    if mask.is_complex():
        raise ValueError(f"{name} must be real, got {mask.dtype}; convert it with {name}.real.float()")
    if image is not None:
        if mask.shape[-2:] != image.shape[-2:]:
            raise ValueError(
                f"{name} must have the image's height and width {tuple(image.shape[-2:])}, "
                f"got {tuple(mask.shape[-2:])}; resize it with mode='nearest'"
            )
        if mask.shape[0] not in (1, image.shape[0]):
            raise ValueError(
                f"{name} must have batch size {image.shape[0]} or 1, got {mask.shape[0]}; pass one mask per image"
            )
    if _values_can_be_read(mask):
        values = mask.detach()
        if not bool(((values == 0) | (values == 1)).all()):
            low, high = (value.item() for value in torch.aminmax(values))
            raise ValueError(
                f"{name} must hold only 0 (known) and 1 (hole), got values from {low:.4g} to {high:.4g}; "
                f"threshold it, e.g. ({name} > {(low + high) / 2:.4g}).float()"
            )


def check_multiple(height: int, width: int, multiple: int, name: str = "image") -> None:
    """Raise a ValueError, with this name, unless height and width in pixels are multiples of a number."""
    if height % multiple or width % multiple:
        padded = tuple(-(-size // multiple) * multiple for size in (height, width))
        raise ValueError(
            f"height and width of {name} must be multiples of {multiple}, got {height}x{width}; "
            f"pad it to {padded[0]}x{padded[1]} and crop the result"
        )


def check_like(tensor: Tensor, other: Tensor, name: str, other_name: str) -> None:
    """Raise a TypeError unless both are tensors, and a ValueError unless they have the same shape."""
    _check_tensor(tensor, name, "(B, C, H, W)", "call torch.as_tensor on it first")
    _check_tensor(other, other_name, "(B, C, H, W)", "call torch.as_tensor on it first")
    if tensor.shape != other.shape:
        raise ValueError(
            f"{name} must have the shape of {other_name}, {_shape(other)}, got {_shape(tensor)}; "
            "pass two tensors of the same images"
        )


def check_batch(tensor: Tensor, name: str = "image") -> None:
    """Raise a TypeError unless it is a tensor, and a ValueError unless it is (B, C, H, W)."""
    _check_tensor(tensor, name, "(B, C, H, W)", "call torch.as_tensor on it first")
    if tensor.ndim != 4:
        raise ValueError(
            f"{name} must be (B, C, H, W), got {_shape(tensor)}; add the batch dimension with unsqueeze(0)"
        )


def check_positions(position: Tensor, largest: int, name: str) -> None:
    """Raise a ValueError unless positions in pixels lie in 0..largest; read on the CPU only."""
    if _values_can_be_read(position):
        low, high = (value.item() for value in torch.aminmax(position))
        if low < 0 or high > largest:
            raise ValueError(
                f"{name} must lie in 0..{largest} for the box to fit the image, got values from {low} to {high}; "
                "clamp the positions or choose a smaller box"
            )


def _check_tensor(value: object, name: str, expected: str, hint: str) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor {expected}, got {type(value).__name__}; {hint}")


def _values_can_be_read(tensor: Tensor) -> bool:
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]  # not re-exported
    return tensor.device.type == "cpu" and not traced and tensor.numel() > 0


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
