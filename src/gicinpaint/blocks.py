"""The pieces the paper's networks repeat: padded convolutions and the nearest resize of the released code."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Convolution(nn.Conv2d):
    """A convolution with bias, padded as TensorFlow pads it, and its activation.

    With zeros the padding is TensorFlow's 'SAME': the output has ceil(size / stride) cells and, where the padding
    is odd, the smaller half goes to the top and left. With mirror the edge pixel is repeated and all four sides
    get the same padding whatever the stride, so that a stride of 2 samples a grid shifted by one against 'SAME'.
    Weights start Glorot uniform, biases at zero.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Height and width of the kernel, odd.
        stride: Step of the kernel.
        dilation: Spacing of the kernel's cells.
        padding: "zeros", or "mirror" for the released option SYMMETRIC.
        activation: Module applied to the output, if any.

    Shape:
        - x: (B, in_channels, H, W)
        - returned: (B, out_channels, ceil(H / stride), ceil(W / stride))

    Raises:
        ValueError: If the padding is neither of the two.

    Source:
        Released code, `gen_conv` and `dis_conv`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        padding: str = "zeros",
        activation: nn.Module | None = None,
    ) -> None:
        if padding not in ("zeros", "mirror"):
            raise ValueError(f"padding must be 'zeros' or 'mirror', got {padding!r}; 'mirror' is SYMMETRIC")
        reach = dilation * (kernel_size - 1)  # cells that the kernel spans beyond its first
        symmetric = padding == "zeros" and stride == 1
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding=reach // 2 if symmetric else 0, dilation=dilation
        )
        self.pads_itself = symmetric
        self.mirror = padding == "mirror"
        self.activation = activation

    def reset_parameters(self) -> None:
        """Draw Glorot uniform weights and set the bias to zero."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated convolution of x."""
        if not self.pads_itself:
            x = self._mirrored(x) if self.mirror else self._same_padded(x)
        x = super().forward(x)
        return x if self.activation is None else self.activation(x)

    def _same_padded(self, x: Tensor) -> Tensor:
        amounts: list[int] = []
        for size in (x.shape[-1], x.shape[-2]):
            kernel, stride, dilation = self.kernel_size[0], self.stride[0], self.dilation[0]
            total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            amounts += [total // 2, total - total // 2]
        return F.pad(x, amounts)

    def _mirrored(self, x: Tensor) -> Tensor:
        amount = self.dilation[0] * (self.kernel_size[0] - 1) // 2
        return mirror_pad(x, (amount, amount, amount, amount))


class Upsample(nn.Module):
    """Repeat every pixel twice along both axes, then convolve.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        padding: "zeros" or "mirror", as for `Convolution`.
        activation: Module applied to the output, if any.

    Shape:
        - x: (B, in_channels, H, W)
        - returned: (B, out_channels, 2 * H, 2 * W)

    Source:
        Released code, `gen_deconv`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, padding: str = "zeros", activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.convolution = Convolution(in_channels, out_channels, padding=padding, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x at twice its size."""
        return self.convolution(F.interpolate(x, scale_factor=2, mode="nearest"))


def mirror_pad(x: Tensor, amounts: Sequence[int]) -> Tensor:
    """Pad by mirroring, the edge pixel included, by any amount.

    Args:
        x: Images or features.
        amounts: Pixels to add at the left, right, top and bottom.

    Shape:
        - x: (B, C, H, W)
        - returned: (B, C, top + H + bottom, left + W + right)

    Source:
        Released code, padding SYMMETRIC. PyTorch's "reflect" leaves the edge pixel out.
    """
    left, right, top, bottom = amounts
    rows = _mirror_index(x.shape[-2], top, bottom, x.device)
    columns = _mirror_index(x.shape[-1], left, right, x.device)
    return x.index_select(-2, rows).index_select(-1, columns)


def resize_nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize to the nearest pixel with the corners of both grids aligned.

    Args:
        x: Images, masks or features.
        size: Height and width to resize to.

    Shape:
        - x: (B, C, H, W)
        - returned: (B, C, *size)

    Source:
        Released code, `resize` with `align_corners=True`. No mode of `torch.nn.functional.interpolate` does the same.

    Example:
        >>> import torch
        >>> resize_nearest(torch.arange(8.0).reshape(1, 1, 1, 8), (1, 4))
        tensor([[[[0., 2., 5., 7.]]]])
    """
    height, width = size
    if height != x.shape[-2]:
        x = x.index_select(-2, _on_device(nearest_index(x.shape[-2], height), x.device))
    if width != x.shape[-1]:
        x = x.index_select(-1, _on_device(nearest_index(x.shape[-1], width), x.device))
    return x


def nearest_index(size_in: int, size_out: int) -> list[int]:
    """Return the source index of every output index of the aligned nearest resize.

    Positions are rounded in float32, halves away from zero, because the released code does so and a few
    sizes come out differently in float64.

    Args:
        size_in: Length of the axis before.
        size_out: Length of the axis after.

    Source:
        Released code, `tf.image.resize_nearest_neighbor(align_corners=True)`.

    Example:
        >>> nearest_index(18, 9)
        [0, 2, 4, 6, 9, 11, 13, 15, 17]
    """
    if size_out > 1:
        scale = np.float32(size_in - 1) / np.float32(size_out - 1)
    else:
        scale = np.float32(size_in) / np.float32(size_out)
    position = np.arange(size_out, dtype=np.float32) * scale
    whole = np.floor(position)
    index = (whole + (position - whole >= 0.5)).astype(np.int64)  # exact, unlike floor(position + 0.5) in float32
    return np.minimum(index, size_in - 1).tolist()


def _mirror_index(size: int, before: int, after: int, device: torch.device) -> Tensor:
    position = torch.arange(-before, size + after, device=device) % (2 * size)
    return torch.where(position < size, position, 2 * size - 1 - position)


def _on_device(index: list[int], device: torch.device) -> Tensor:
    return torch.tensor(index, device=device)
