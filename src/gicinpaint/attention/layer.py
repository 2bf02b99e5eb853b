"""The contextual attention layer: shrink, find the valid keys, call the backend with the softmax's temperature."""

import inspect
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gicinpaint.attention.reference import cut_window
from gicinpaint.checks import check_mask, check_multiple


class AttentionBackend(Protocol):
    """What a backend is: a callable on feature maps that holds no weights.

    With h x w the shrunk query grid and hb x wb the shrunk key grid:

    Shape:
        - foreground: (B, C, h, w), shrunk features to fill
        - background: (B, C, hb, wb), shrunk features to copy from
        - valid: bool (B or 1, hb, wb), keys that may be copied from
        - full_background: (B, C, rate * hb, rate * wb), the values
        - returned: (B, C, rate * h, rate * w); with return_offset also int64 (B, 2, h, w), (row, column) of the key
          with the most attention on the key grid, the first one on ties
    """

    def __call__(
        self,
        foreground: Tensor,
        background: Tensor,
        valid: Tensor,
        *,
        full_background: Tensor,
        rate: int,
        patch_size: int,
        propagation_size: int,
        softmax_scale: float,
        propagate: bool,
        return_offset: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the filled features and, on request, the offsets."""
        ...


class ContextualAttention(nn.Module):
    """Fill features with background patches, weighted by how well they match.

    It has no weights. Every image of a batch gives the result of its own batch of one.

    Args:
        patch_size: Height and width of the patches that are matched, in cells of the shrunk grid, odd.
        rate: Factor by which features and mask are shrunk before matching.
        propagation_size: Length of the diagonal over which scores are propagated, in cells, odd.
        softmax_scale: Factor on the scores before the softmax.
        propagate: Whether scores are propagated.
        backend: How the numbers are computed; None means the package's default, `TiledAttention`, or with a stride
            `ReferenceAttention`.
        stride: Every how many cells a patch of the background is taken, along each axis; with 2 there are a quarter of
            the keys. The paper's option to save memory.

    Shape:
        - foreground: (B, C, H, W), multiples of rate
        - background: (B, C, H', W'), multiples of rate
        - mask: (B or 1, 1, H', W'), {0, 1}, 1 = hole: cells of the background that may not be copied from
        - returned: (B, C, H, W); with return_offset also int64 (B, 2, H / rate, W / rate), the absolute
          (row, column) of the best key on the shrunk background grid, the first one where all keys are invalid

    Raises:
        ValueError: If a setting, a shape, a type or a mask value differs from that.

    Source:
        Yu et al. 2018, section 4.1. Follows the released code: keys are normalised and queries are not, scores are
        propagated before masking, a masked key takes exp(0) of the softmax, pasted patches are divided by 4. Differs
        from the released code: one mask per image instead of one per batch, and backgrounds of another size. Strided
        patches are the released code's, but each is pasted with the features around its own middle, and propagation
        goes the same way on both grids; the released code stops there, because it counts a key for every cell.

    Example:
        >>> import torch
        >>> attention = ContextualAttention()
        >>> features = torch.rand(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> output, offset = attention(features, return_offset=True)
        >>> output.shape, offset.shape
        (torch.Size([2, 8, 16, 16]), torch.Size([2, 2, 8, 8]))
    """

    def __init__(
        self,
        patch_size: int = 3,
        rate: int = 2,
        propagation_size: int = 3,
        softmax_scale: float = 10.0,
        propagate: bool = True,
        backend: AttentionBackend | None = None,
        stride: int = 1,
    ) -> None:
        super().__init__()
        _check_odd(patch_size, "patch_size")
        _check_odd(propagation_size, "propagation_size")
        if rate < 1:
            raise ValueError(f"rate must be at least 1, got {rate}; the released code uses 2, and 1 shrinks nothing")
        if stride < 1:
            raise ValueError(f"stride must be at least 1, got {stride}; 1 takes every patch of the background")
        if backend is None:
            # Imported here so that this file depends on no backend; it names the defaults and nothing else does.
            from gicinpaint.attention.reference import ReferenceAttention
            from gicinpaint.attention.tiled import TiledAttention

            backend = TiledAttention() if stride == 1 else ReferenceAttention()
        if stride > 1 and "stride" not in inspect.signature(backend).parameters:
            raise ValueError(
                f"stride={stride} needs the backend ReferenceAttention, got {type(backend).__name__}, "
                "which takes every patch; choose attention=reference"
            )
        self.patch_size = patch_size
        self.rate = rate
        self.propagation_size = propagation_size
        self.softmax_scale = softmax_scale
        self.propagate = propagate
        self.backend = backend
        self.stride = stride

    def forward(
        self,
        foreground: Tensor,
        background: Tensor | None = None,
        mask: Tensor | None = None,
        return_offset: bool = False,
        window: tuple[range, range] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the filled features and, on request, where each patch was copied from; see the class.

        A window, rows and columns of the shrunk foreground, asks for a part of the result, which is computed alone.
        """
        queries, keys, valid = self.prepare(foreground, background, mask)
        if window is not None:
            spread = self.propagation_size // 2 * self.stride if self.propagate else 0
            # One more cell, because the neighbours' pasted patches reach into the window.
            queries, top, left = cut_window(queries, *window, self.patch_size, spread, more=1)
        result = self.backend(
            queries,
            keys,
            valid,
            full_background=foreground if background is None else background,
            rate=self.rate,
            patch_size=self.patch_size,
            propagation_size=self.propagation_size,
            softmax_scale=self.softmax_scale,
            propagate=self.propagate,
            return_offset=return_offset,
            **({"stride": self.stride} if self.stride > 1 else {}),
        )
        if window is None:
            return result
        bottom, right = top + len(window[0]), left + len(window[1])

        def cut(x: Tensor, rate: int) -> Tensor:
            return x[..., rate * top : rate * bottom, rate * left : rate * right]

        return (cut(result[0], self.rate), cut(result[1], 1)) if isinstance(result, tuple) else cut(result, self.rate)

    def prepare(
        self, foreground: Tensor, background: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return shrunk foreground, shrunk background and valid keys, as backends take them; see `AttentionBackend`."""
        values = foreground if background is None else background
        self._check(foreground, values, mask)
        queries = self._shrink(foreground)
        keys = queries if background is None else self._shrink(values)
        if mask is None:
            return queries, keys, torch.ones((1, *keys.shape[-2:]), dtype=torch.bool, device=keys.device)
        hole = self._shrink(mask).to(torch.float32)
        touched = F.max_pool2d(hole, self.patch_size, stride=1, padding=self.patch_size // 2)  # borders are no holes
        return queries, keys, touched[:, 0] == 0

    def extra_repr(self) -> str:
        """Return the settings for the printed module."""
        names = "patch_size", "rate", "propagation_size", "softmax_scale", "propagate", "stride", "backend"
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def _check(self, foreground: Tensor, background: Tensor, mask: Tensor | None) -> None:
        for name, features in (("foreground", foreground), ("background", background)):
            if features.ndim != 4 or not features.is_floating_point() or features.numel() == 0:
                raise ValueError(
                    f"{name} must be floating point features (B, C, H, W) with at least one cell, "
                    f"got {features.dtype} {tuple(features.shape)}; add the batch dimension with unsqueeze(0)"
                )
            check_multiple(features.shape[-2], features.shape[-1], self.rate, name)
        if foreground.shape[:2] != background.shape[:2]:
            raise ValueError(
                f"background must have the foreground's batch and channels {tuple(foreground.shape[:2])}, "
                f"got {tuple(background.shape[:2])}; take both from the same layer"
            )
        if foreground.dtype != background.dtype:
            raise ValueError(
                f"background must have the foreground's type {foreground.dtype}, got {background.dtype}; "
                "convert it with background.to(foreground.dtype)"
            )
        if mask is not None:
            check_mask(mask, background)

    def _shrink(self, x: Tensor) -> Tensor:
        return resize_nearest(x, (x.shape[-2] // self.rate, x.shape[-1] // self.rate))


def resize_nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images, masks or features, (B, C, H, W), to the nearest pixel with the corners of both grids aligned.

    Source:
        Released code, `resize` with `align_corners=True`. No mode of `torch.nn.functional.interpolate` does the same.

    Example:
        >>> import torch
        >>> resize_nearest(torch.arange(8.0).reshape(1, 1, 1, 8), (1, 4))
        tensor([[[[0., 2., 5., 7.]]]])
    """
    for axis, wanted in zip((-2, -1), size, strict=True):
        if wanted != x.shape[axis]:
            x = x.index_select(axis, _nearest_positions(x.shape[axis], wanted, x.device))
    return x


def nearest_index(size_in: int, size_out: int) -> list[int]:
    """Return the source index of every output index of the aligned nearest resize.

    Positions are rounded in float32, halves away from zero, because the released code does so and a few
    sizes come out differently in float64.

    Source:
        Released code, `tf.image.resize_nearest_neighbor(align_corners=True)`.

    Example:
        >>> nearest_index(18, 9)
        [0, 2, 4, 6, 9, 11, 13, 15, 17]
    """
    scale = np.float32(size_in - 1) / np.float32(max(1, size_out - 1))  # of one cell the position is 0 in any case
    position = np.arange(size_out, dtype=np.float32) * scale
    whole = np.floor(position)
    index = (whole + (position - whole >= 0.5)).astype(np.int64)  # exact, unlike floor(position + 0.5) in float32
    return np.minimum(index, size_in - 1).tolist()


def _check_odd(size: int, name: str) -> None:
    if size < 1 or size % 2 == 0:
        raise ValueError(f"{name} must be odd so that it has a centre, got {size}; use {max(size, 0) + 1}")


def _nearest_positions(size_in: int, size_out: int, device: torch.device) -> Tensor:
    if not torch.compiler.is_exporting():
        return torch.tensor(nearest_index(size_in, size_out), device=device)
    # An exported graph computes the index from sizes that are unknown now: the same steps as tensor operations. Eager
    # code does without them, because a compiler may fuse the product into the difference and round once instead of
    # twice. With one output cell the position is 0 whatever the scale.
    steps = torch.full((), size_out - 1, dtype=torch.float32, device=device).clamp(min=1)
    scale = torch.full((), size_in - 1, dtype=torch.float32, device=device) / steps
    position = torch.arange(size_out, dtype=torch.float32, device=device) * scale
    whole = position.floor()
    return (whole + (position - whole >= 0.5)).long().clamp(max=size_in - 1)
