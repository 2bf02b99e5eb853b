"""The parts of both stages: an encoder to a quarter of the size, dilated convolutions, a decoder back to an image."""

from collections.abc import Sequence

from torch import nn

from gicinpaint.models.layers import Convolution, Upsample


class Encoder(nn.Sequential):
    """Six convolutions that take five input planes to a quarter of the image's size.

    Args:
        widths: Output channels of the six convolutions; the second and the fourth halve the size.
        padding: "zeros" or "mirror".
        last_activation: Activation of the last convolution.

    Shape:
        - planes: (B, 5, H, W)
        - returned: (B, widths[5], H/4, W/4)

    Source:
        Released code, `conv1` to `conv6`, `xconv1` to `xconv6` and `pmconv1` to `pmconv6`.
    """

    def __init__(self, widths: Sequence[int], padding: str, last_activation: nn.Module | None = None) -> None:
        stem, half_in, half, quarter_in, quarter, last = widths
        super().__init__()
        self.stem = Convolution(5, stem, kernel_size=5, padding=padding, activation=elu())
        self.downsample_half = Convolution(stem, half_in, stride=2, padding=padding, activation=elu())
        self.half_size = Convolution(half_in, half, padding=padding, activation=elu())
        self.downsample_quarter = Convolution(half, quarter_in, stride=2, padding=padding, activation=elu())
        self.quarter_size = Convolution(quarter_in, quarter, padding=padding, activation=elu())
        self.features = Convolution(quarter, last, padding=padding, activation=last_activation or elu())


class DilatedConvolutions(nn.Sequential):
    """Four convolutions with dilations 2, 4, 8 and 16 that widen the receptive field.

    Args:
        channels: Channels of the input and of the output.
        padding: "zeros" or "mirror".

    Shape:
        - x: (B, channels, H, W)
        - returned: (B, channels, H, W)

    Source:
        Released code, `conv7_atrous` to `conv10_atrous`.
    """

    def __init__(self, channels: int, padding: str) -> None:
        super().__init__(
            *(Convolution(channels, channels, dilation=d, padding=padding, activation=elu()) for d in (2, 4, 8, 16))
        )


class Decoder(nn.Sequential):
    """Two convolutions, two upsamplings and the projection to an image in [-1, 1], or to a difference.

    Args:
        in_channels: Channels of the input.
        width: Channels at full size.
        padding: "zeros" or "mirror".
        residual: Whether the result is a difference, small at first and without bounds, instead of clipped to [-1, 1].

    Shape:
        - x: (B, in_channels, H, W)
        - returned: (B, 3, 4 * H, 4 * W), [-1, 1], or without bounds where it is a difference

    Source:
        Released code, `conv11` to `conv17` and `allconv11` to `allconv17`.
    """

    def __init__(self, in_channels: int, width: int, padding: str, residual: bool = False) -> None:
        super().__init__()
        self.merge = Convolution(in_channels, 4 * width, padding=padding, activation=elu())
        self.quarter_size = Convolution(4 * width, 4 * width, padding=padding, activation=elu())
        self.upsample_half = Upsample(4 * width, 2 * width, padding=padding, activation=elu())
        self.half_size = Convolution(2 * width, 2 * width, padding=padding, activation=elu())
        self.upsample_full = Upsample(2 * width, width, padding=padding, activation=elu())
        self.full_size = Convolution(width, width // 2, padding=padding, activation=elu())
        self.image = Convolution(width // 2, 3, padding=padding, activation=None if residual else nn.Hardtanh())
        if residual:
            # Near 0, so that the start is near the input; at 0 the layers below learn from noise and die.
            nn.init.xavier_uniform_(self.image.weight, gain=0.1)


def elu() -> nn.ELU:
    """Return the activation of the paper's generator."""
    return nn.ELU(inplace=True)  # the convolution before does not need its output, and fresh memory costs time
