"""The layers of the paper's networks: padded and dilated convolutions, upsampling, each stage's encoder and decoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Convolution(nn.Conv2d):
    """A convolution with bias and activation, padded as TensorFlow does it.

    With "zeros" the padding is TensorFlow's 'SAME': where it is odd, the smaller half goes to the top and left. With
    "mirror" the edge pixel is repeated and all four sides get the same padding whatever the stride, so that a stride
    of 2 samples a grid shifted by one against 'SAME'; with "centered" they get as many zeros, as PyTorch users write
    it. Weights start Glorot uniform, biases at zero. A subclass may have several kernels for each output channel.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Height and width of the kernel, odd.
        stride: Stride of the kernel.
        dilation: Dilation of the kernel.
        padding: "zeros", "mirror" for the released option SYMMETRIC, or "centered".
        activation: Module applied to the output, if any.

    Shape:
        - x: (B, in_channels, H, W)
        - returned: (B, out_channels, ceil(H / stride), ceil(W / stride))

    Raises:
        ValueError: If the padding is none of the three.

    Source:
        Released code, `gen_conv` and `dis_conv`.
    """

    kernels_per_channel = 1

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
        if padding not in ("zeros", "mirror", "centered"):
            raise ValueError(f"padding must be 'zeros', 'mirror' or 'centered', got {padding!r}; 'mirror' is SYMMETRIC")
        symmetric = padding == "centered" or (padding == "zeros" and stride == 1)
        amount = dilation * (kernel_size - 1) // 2 if symmetric else 0
        kernels = self.kernels_per_channel * out_channels
        super().__init__(in_channels, kernels, kernel_size, stride, padding=amount, dilation=dilation)
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
        return self.activate(super().forward(x if self.pads_itself else self.pad(x)))

    def activate(self, x: Tensor) -> Tensor:
        """Return the activation of the convolution's result."""
        return x if self.activation is None else self.activation(x)

    def pad(self, x: Tensor) -> Tensor:
        """Return x with the padding that the kernel needs."""
        amounts = (*self.amounts(x.shape[-1]), *self.amounts(x.shape[-2]))
        return mirror_pad(x, amounts) if self.mirror else F.pad(x, amounts)

    def input_gradient(self, gradient: Tensor, size: Sequence[int]) -> Tensor:
        """Return the gradient to the input from that to the result before its activation: a transposed convolution.

        Shape:
            - gradient: (B, out_channels, ceil(H / stride), ceil(W / stride))
            - size: (H, W)
            - returned: (B, in_channels, H, W)

        Raises:
            ValueError: If the padding is "mirror", or the stride is larger than the dilated kernel.
        """
        if self.mirror or (self.pads_itself and self.stride[0] > 1):
            raise ValueError("input_gradient needs a convolution padded with 'zeros', got another; use autograd there")
        if self.stride[0] > (self.kernel_size[0] - 1) * self.dilation[0] + 1:
            raise ValueError(
                f"input_gradient needs a stride within the kernel's span, got {self.stride[0]}; use autograd there"
            )
        (top, _), (left, _) = self.amounts(size[0]), self.amounts(size[1])
        padded = F.conv_transpose2d(gradient, self.weight, stride=self.stride, dilation=self.dilation)
        return padded[..., top : top + size[0], left : left + size[1]]

    def amounts(self, size: int) -> tuple[int, int]:
        """Return the cells of padding before and after an axis of a size."""
        span, stride = self.dilation[0] * (self.kernel_size[0] - 1), self.stride[0]
        if self.mirror or self.pads_itself:
            return span // 2, span // 2
        last = size % stride or stride  # cells of the last step; a plain number where the size is a known multiple
        total = max(span + 1 - last, 0)
        return total // 2, total - total // 2


class Upsample(nn.Module):
    """Repeat every pixel twice along both axes, then convolve.

    Both are one transposed convolution: a pixel and its copies meet neighbouring weights of the kernel, whose sums
    are the weights of a 4x4 kernel with stride 2. That is four ninths of the products and no enlarged input.

    Args:
        in_channels: As for `Convolution`, like the others; the padding is not "centered".
        out_channels: Channels of the output.
        padding: "zeros" or "mirror".
        activation: Module applied to the output, if any.
        convolution: Class of the convolution.

    Shape:
        - x: (B, in_channels, H, W)
        - returned: (B, out_channels, 2 * H, 2 * W)

    Source:
        Released code, `gen_deconv`. Differs from the released code: the order of the sums, up to rounding.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        padding: str = "zeros",
        activation: nn.Module | None = None,
        convolution: type[Convolution] = Convolution,
    ) -> None:
        super().__init__()
        self.convolution = convolution(in_channels, out_channels, padding=padding, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x at twice its size."""
        weight = _summed_for_copies(_summed_for_copies(self.convolution.weight, 2), 3).transpose(0, 1)
        outside = 1  # cells of the output that belong to neighbours outside the image
        if self.convolution.mirror:
            x, outside = mirror_pad(x, (1, 1, 1, 1)), 3
        x = F.conv_transpose2d(x, weight, self.convolution.bias, stride=2, padding=outside)
        return self.convolution.activate(x)


class Encoder(nn.Sequential):
    """Six convolutions that reduce the input planes to a quarter of the image's size.

    Args:
        in_channels: Number of input planes.
        widths: Output channels of the six convolutions; the second and the fourth halve the size.
        padding: As for `Convolution`.
        last_activation: Activation of the last convolution; None is that of the others.
        convolution: Class of the convolutions.

    Shape:
        - planes: (B, in_channels, H, W)
        - returned: (B, widths[5], H/4, W/4)

    Source:
        Released code, `conv1` to `conv6`, `xconv1` to `xconv6` and `pmconv1` to `pmconv6`.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        padding: str,
        last_activation: nn.Module | None = None,
        convolution: type[Convolution] = Convolution,
    ) -> None:
        stem, half_in, half, quarter_in, quarter, last = widths
        super().__init__()
        self.stem = convolution(in_channels, stem, kernel_size=5, padding=padding, activation=elu())
        self.downsample_half = convolution(stem, half_in, stride=2, padding=padding, activation=elu())
        self.half_size = convolution(half_in, half, padding=padding, activation=elu())
        self.downsample_quarter = convolution(half, quarter_in, stride=2, padding=padding, activation=elu())
        self.quarter_size = convolution(quarter_in, quarter, padding=padding, activation=elu())
        self.features = convolution(quarter, last, padding=padding, activation=last_activation or elu())


class DilatedConvolutions(nn.Sequential):
    """Four convolutions with dilations 2, 4, 8 and 16 that widen the receptive field; (B, channels, H, W) to the same.

    Source:
        Released code, `conv7_atrous` to `conv10_atrous`.
    """

    def __init__(self, channels: int, padding: str, convolution: type[Convolution] = Convolution) -> None:
        super().__init__(
            *(convolution(channels, channels, dilation=d, padding=padding, activation=elu()) for d in (2, 4, 8, 16))
        )


class Decoder(nn.Sequential):
    """Two convolutions, two upsamplings and a projection to an image.

    Args:
        in_channels: Channels of the input.
        width: Channels at full size.
        padding: As for `Convolution`.
        bound: Activation that keeps the image in [-1, 1]; None: the result is a residual, small at first and unbounded.
        convolution: Class of all convolutions but the projection, which is a `Convolution`.

    Shape:
        - x: (B, in_channels, H, W)
        - returned: (B, 3, 4 * H, 4 * W), [-1, 1], or unbounded for a residual

    Source:
        Released code, `conv11` to `conv17` and `allconv11` to `allconv17`.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        padding: str,
        bound: nn.Module | None,
        convolution: type[Convolution] = Convolution,
    ) -> None:
        super().__init__()
        self.merge = convolution(in_channels, 4 * width, padding=padding, activation=elu())
        self.quarter_size = convolution(4 * width, 4 * width, padding=padding, activation=elu())
        self.upsample_half = Upsample(4 * width, 2 * width, padding, elu(), convolution)
        self.half_size = convolution(2 * width, 2 * width, padding=padding, activation=elu())
        self.upsample_full = Upsample(2 * width, width, padding, elu(), convolution)
        self.full_size = convolution(width, width // 2, padding=padding, activation=elu())
        self.image = Convolution(width // 2, 3, padding=padding, activation=bound)
        if bound is None:
            # Near 0, so that the start is near the input; at 0 the layers below learn from noise and die.
            nn.init.xavier_uniform_(self.image.weight, gain=0.1)


def elu() -> nn.ELU:
    """Return the activation of the paper's generator."""
    return nn.ELU(inplace=True)  # the convolution before does not need its output, and fresh memory costs time


def mirror_pad(x: Tensor, amounts: Sequence[int]) -> Tensor:
    """Pad (B, C, H, W) at the left, right, top and bottom by mirroring, the edge pixel included, by any amount.

    Source:
        Released code, padding SYMMETRIC. PyTorch's "reflect" leaves the edge pixel out.
    """
    left, right, top, bottom = amounts
    rows = _mirror_index(x.shape[-2], top, bottom, x.device)
    columns = _mirror_index(x.shape[-1], left, right, x.device)
    return x.index_select(-2, rows).index_select(-1, columns)


def _summed_for_copies(weight: Tensor, dim: int) -> Tensor:
    """Return 4 weights on originals along an axis from 3 weights on copies."""
    first, middle, last = weight.unbind(dim)
    return torch.stack([last, middle + last, first + middle, first], dim)


def _mirror_index(size: int, before: int, after: int, device: torch.device) -> Tensor:
    period, position = 2 * size, torch.arange(-before, size + after, device=device)
    position = position - position // period * period  # no remainder: ONNX has none by a size known later
    return torch.where(position < size, position, 2 * size - 1 - position)
