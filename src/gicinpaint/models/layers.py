"""The pieces the paper's networks repeat: padded convolutions and the nearest resize of the released code."""

from collections.abc import Sequence

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

    def take_back(self, gradient: Tensor, size: Sequence[int]) -> Tensor:
        """Take a gradient to the convolution's result, before its activation, back to its input.

        Args:
            gradient: Gradient to the result.
            size: Height and width of the input.

        Shape:
            - gradient: (B, out_channels, ceil(H / stride), ceil(W / stride))
            - returned: (B, in_channels, H, W)

        Raises:
            ValueError: If the padding is "mirror", or the stride is larger than what the kernel spans.

        Source:
            Ours: the gradient of a convolution is a transposed convolution with the same weights.
        """
        if self.mirror:
            raise ValueError("take_back needs a convolution padded with 'zeros', got 'mirror'; use autograd there")
        if self.stride[0] > (self.kernel_size[0] - 1) * self.dilation[0] + 1:
            raise ValueError(
                f"take_back needs a stride within the kernel's span, got {self.stride[0]}; use autograd there"
            )
        (top, _), (left, _) = self._amounts(size[0]), self._amounts(size[1])
        padded = F.conv_transpose2d(gradient, self.weight, stride=self.stride, dilation=self.dilation)
        return padded[..., top : top + size[0], left : left + size[1]]

    def _same_padded(self, x: Tensor) -> Tensor:
        return F.pad(x, (*self._amounts(x.shape[-1]), *self._amounts(x.shape[-2])))

    def _amounts(self, size: int) -> tuple[int, int]:
        """Return the zeros before and after an axis."""
        kernel, stride, dilation = self.kernel_size[0], self.stride[0], self.dilation[0]
        last = size % stride or stride  # cells of the last step; a plain number where the size is a known multiple
        total = max((kernel - 1) * dilation + 1 - last, 0)
        return total // 2, total - total // 2

    def _mirrored(self, x: Tensor) -> Tensor:
        amount = self.dilation[0] * (self.kernel_size[0] - 1) // 2
        return mirror_pad(x, (amount, amount, amount, amount))


class Upsample(nn.Module):
    """Repeat every pixel twice along both axes, then convolve.

    Both are one transposed convolution: a pixel and its copies meet neighbouring weights of the kernel, whose sums
    are the weights of a 4x4 kernel with stride 2. That is four ninths of the products and no enlarged input.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        padding: "zeros" or "mirror", as for `Convolution`.
        activation: Module applied to the output, if any.

    Shape:
        - x: (B, in_channels, H, W)
        - returned: (B, out_channels, 2 * H, 2 * W)

    Source:
        Released code, `gen_deconv`. Differs from the released code: the order of the sums, up to rounding.
    """

    def __init__(
        self, in_channels: int, out_channels: int, padding: str = "zeros", activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.convolution = Convolution(in_channels, out_channels, padding=padding, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x at twice its size."""
        weight, bias, activation = self.convolution.weight, self.convolution.bias, self.convolution.activation
        weight = _summed_for_copies(_summed_for_copies(weight, 2), 3).transpose(0, 1)
        outside = 1  # cells of the output that belong to neighbours outside the image
        if self.convolution.mirror:
            x, outside = mirror_pad(x, (1, 1, 1, 1)), 3
        x = F.conv_transpose2d(x, weight, bias, stride=2, padding=outside)
        return x if activation is None else activation(x)


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


def _summed_for_copies(weight: Tensor, dim: int) -> Tensor:
    """Return the kernel of a transposed convolution along an axis: 3 weights on copies become 4 on originals."""
    first, middle, last = weight.unbind(dim)
    return torch.stack([last, middle + last, first + middle, first], dim)


def _mirror_index(size: int, before: int, after: int, device: torch.device) -> Tensor:
    period, position = 2 * size, torch.arange(-before, size + after, device=device)
    position = position - position // period * period  # no remainder: ONNX has none by a size known later
    return torch.where(position < size, position, 2 * size - 1 - position)
