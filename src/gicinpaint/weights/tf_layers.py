"""The table of names: which convolution of the authors' code is which of ours, and the shape of its kernel."""

from itertools import pairwise
from typing import NamedTuple


class Layer(NamedTuple):
    """A convolution of the authors' code.

    Attributes:
        scope: Its TensorFlow variable scope.
        name: Its name in our network.
        kernel_size: Height and width of its kernel.
        in_channels: Channels of its input.
        out_channels: Channels of its output.
    """

    scope: str
    name: str
    kernel_size: int
    in_channels: int
    out_channels: int


def generator_layers(c: int) -> list[Layer]:
    """Return the generator's convolutions.

    Args:
        c: Channels at full size.

    Source:
        Released code, `build_inpaint_net`.
    """
    rows: list[tuple[str, str, int, int, int]] = [
        ("conv1", "coarse_network.encoder.stem", 5, 5, c),
        ("conv2_downsample", "coarse_network.encoder.downsample_half", 3, c, 2 * c),
        ("conv3", "coarse_network.encoder.half_size", 3, 2 * c, 2 * c),
        ("conv4_downsample", "coarse_network.encoder.downsample_quarter", 3, 2 * c, 4 * c),
        ("conv5", "coarse_network.encoder.quarter_size", 3, 4 * c, 4 * c),
        ("conv6", "coarse_network.encoder.features", 3, 4 * c, 4 * c),
        ("conv7_atrous", "coarse_network.dilated.0", 3, 4 * c, 4 * c),
        ("conv8_atrous", "coarse_network.dilated.1", 3, 4 * c, 4 * c),
        ("conv9_atrous", "coarse_network.dilated.2", 3, 4 * c, 4 * c),
        ("conv10_atrous", "coarse_network.dilated.3", 3, 4 * c, 4 * c),
        ("conv11", "coarse_network.decoder.merge", 3, 4 * c, 4 * c),
        ("conv12", "coarse_network.decoder.quarter_size", 3, 4 * c, 4 * c),
        ("conv13_upsample/conv13_upsample_conv", "coarse_network.decoder.upsample_half.convolution", 3, 4 * c, 2 * c),
        ("conv14", "coarse_network.decoder.half_size", 3, 2 * c, 2 * c),
        ("conv15_upsample/conv15_upsample_conv", "coarse_network.decoder.upsample_full.convolution", 3, 2 * c, c),
        ("conv16", "coarse_network.decoder.full_size", 3, c, c // 2),
        ("conv17", "coarse_network.decoder.image", 3, c // 2, 3),
        ("xconv1", "refinement_network.dilated_encoder.stem", 5, 5, c),
        ("xconv2_downsample", "refinement_network.dilated_encoder.downsample_half", 3, c, c),
        ("xconv3", "refinement_network.dilated_encoder.half_size", 3, c, 2 * c),
        ("xconv4_downsample", "refinement_network.dilated_encoder.downsample_quarter", 3, 2 * c, 2 * c),
        ("xconv5", "refinement_network.dilated_encoder.quarter_size", 3, 2 * c, 4 * c),
        ("xconv6", "refinement_network.dilated_encoder.features", 3, 4 * c, 4 * c),
        ("xconv7_atrous", "refinement_network.dilated.0", 3, 4 * c, 4 * c),
        ("xconv8_atrous", "refinement_network.dilated.1", 3, 4 * c, 4 * c),
        ("xconv9_atrous", "refinement_network.dilated.2", 3, 4 * c, 4 * c),
        ("xconv10_atrous", "refinement_network.dilated.3", 3, 4 * c, 4 * c),
        ("pmconv1", "refinement_network.attention_encoder.stem", 5, 5, c),
        ("pmconv2_downsample", "refinement_network.attention_encoder.downsample_half", 3, c, c),
        ("pmconv3", "refinement_network.attention_encoder.half_size", 3, c, 2 * c),
        ("pmconv4_downsample", "refinement_network.attention_encoder.downsample_quarter", 3, 2 * c, 4 * c),
        ("pmconv5", "refinement_network.attention_encoder.quarter_size", 3, 4 * c, 4 * c),
        ("pmconv6", "refinement_network.attention_encoder.features", 3, 4 * c, 4 * c),
        ("pmconv9", "refinement_network.attended.0", 3, 4 * c, 4 * c),
        ("pmconv10", "refinement_network.attended.1", 3, 4 * c, 4 * c),
        ("allconv11", "refinement_network.decoder.merge", 3, 8 * c, 4 * c),
        ("allconv12", "refinement_network.decoder.quarter_size", 3, 4 * c, 4 * c),
        (
            "allconv13_upsample/allconv13_upsample_conv",
            "refinement_network.decoder.upsample_half.convolution",
            3,
            4 * c,
            2 * c,
        ),
        ("allconv14", "refinement_network.decoder.half_size", 3, 2 * c, 2 * c),
        (
            "allconv15_upsample/allconv15_upsample_conv",
            "refinement_network.decoder.upsample_full.convolution",
            3,
            2 * c,
            c,
        ),
        ("allconv16", "refinement_network.decoder.full_size", 3, c, c // 2),
        ("allconv17", "refinement_network.decoder.image", 3, c // 2, 3),
    ]
    return [Layer(f"inpaint_net/{scope}", name, *sizes) for scope, name, *sizes in rows]


def global_critic_layers(c: int) -> list[Layer]:
    """Return the global critic's convolutions.

    Args:
        c: Channels of the first.

    Source:
        Released code, `build_wgan_global_discriminator`.
    """
    return _critic_layers("discriminator/discriminator_global", [3, c, 2 * c, 4 * c, 4 * c])


def local_critic_layers(c: int) -> list[Layer]:
    """Return the local critic's convolutions.

    Args:
        c: Channels of the first.

    Source:
        Released code, `build_wgan_local_discriminator`.
    """
    return _critic_layers("discriminator/discriminator_local", [3, c, 2 * c, 4 * c, 8 * c])


def _critic_layers(scope: str, channels: list[int]) -> list[Layer]:
    pairs = pairwise(channels)
    return [Layer(f"{scope}/conv{i + 1}", f"features.{i}", 5, c_in, c_out) for i, (c_in, c_out) in enumerate(pairs)]
