"""The two-stage generator: a coarse network, then a refinement network with contextual attention."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gicinpaint.attention import ContextualAttention
from gicinpaint.attention.layer import resize_nearest
from gicinpaint.checks import check_image, check_mask
from gicinpaint.models.compositing import composite
from gicinpaint.models.harmonic_fill import fill_harmonically
from gicinpaint.models.layers import Convolution, Decoder, DilatedConvolutions, Encoder, elu
from gicinpaint.models.stored import StoredNetwork

SIZE_MULTIPLE = 8  # two stride-2 convolutions, and the attention halves the feature grid once more


class Completion(NamedTuple):
    """What a generator returns: the raw outputs of its stages, (B, 3, H, W), [-1, 1], and where it copied from.

    There is no `refined` without a second stage. The `offset` of each patch is its source's absolute (row, column),
    int64 (B, 2, H/8, W/8); None unless asked for.
    """

    coarse: Tensor
    refined: Tensor | None
    offset: Tensor | None

    @property
    def prediction(self) -> Tensor:
        """The last stage's raw output."""
        return self.coarse if self.refined is None else self.refined


class Family(NamedTuple):
    """The kinds of layers that distinguish the first paper's networks from the second's."""

    convolution: type[Convolution]  # all but each stage's last
    bound: type[nn.Module]  # the activation that keeps each stage's image in [-1, 1]


PLAIN = Family(Convolution, nn.Hardtanh)


class CoarseNetwork(nn.Module):
    """The first stage: a rough guess of the hole.

    Args:
        width: Channels at full size, even.
        padding: "zeros", or "mirror" for the released option SYMMETRIC.
        residual: Whether it adds to a harmonic filling of the hole instead of making an image from a hole of 0; before
            training it nearly returns that filling.
        extra_planes: Number of further input planes, such as a sketch.
        family: The kinds of layers; the default is the first paper's.

    Shape:
        - masked: (B, 3, H, W), [-1, 1], the hole set to 0; H and W multiples of 8
        - mask: (B or 1, 1, H, W), {0, 1}
        - returned: (B, 3, H, W), [-1, 1]

    Raises:
        ValueError: If the width is odd, or shapes, types or values differ from that.

    Source:
        Yu et al. 2018, section 3.1 and table 2. Follows the released code where they part: no mirrored padding.
        `residual` is ours.
    """

    def __init__(
        self,
        width: int = 32,
        padding: str = "zeros",
        residual: bool = False,
        extra_planes: int = 0,
        family: Family = PLAIN,
    ) -> None:
        super().__init__()
        _check_width(width)
        self.residual = residual
        widths = [width, 2 * width, 2 * width, 4 * width, 4 * width, 4 * width]
        self.encoder = Encoder(5 + extra_planes, widths, padding, convolution=family.convolution)
        self.dilated = DilatedConvolutions(4 * width, padding, family.convolution)
        bound = None if residual else family.bound()
        self.decoder = Decoder(4 * width, width, padding, bound, family.convolution)

    def forward(self, masked: Tensor, mask: Tensor, *planes: Tensor) -> Tensor:
        """Return the coarse image; further planes are (B, 1, H, W)."""
        _check_input(masked, mask, self.encoder.stem.weight.dtype)
        image = fill_harmonically(masked, mask) if self.residual else masked
        output = self.decoder(self.dilated(self.encoder(self.planes(image, mask, *planes))))
        return F.hardtanh(image + output) if self.residual else output

    def planes(self, image: Tensor, mask: Tensor, *planes: Tensor) -> Tensor:
        """Return what the first convolution sees, (B, 5 + planes, H, W)."""
        return _join(image, mask, *planes)


class RefinementNetwork(nn.Module):
    """The second stage: a dilated branch and an attention branch, merged by one decoder.

    Args:
        width: As for `CoarseNetwork`, like `padding` and `family`.
        attention: Contextual attention, or None to leave the attention branch out (the paper's baseline).
        padding: "zeros" or "mirror".
        residual: Whether it adds to the image it gets, little at first, instead of making a new one.
        sees_mask: Whether its input has the mask's planes beside the image.
        family: The kinds of layers.

    Shape:
        - image: (B, 3, H, W), [-1, 1], the hole filled with the coarse guess; H and W multiples of 8
        - mask: (B or 1, 1, H, W), {0, 1}
        - source: (B or 1, 1, H, W), {0, 1}, 1 = attention may copy from there; what touches another pixel is no key
        - returned: (B, 3, H, W), [-1, 1], and the offset as in `Completion`

    Raises:
        ValueError: As for `CoarseNetwork`, or if an offset or a source is given without attention.

    Source:
        Yu et al. 2018, section 4.2 and figure 4. Follows the released code where they part. `residual` is ours.
    """

    def __init__(
        self,
        width: int = 32,
        attention: ContextualAttention | None = None,
        padding: str = "zeros",
        residual: bool = False,
        sees_mask: bool = True,
        family: Family = PLAIN,
    ) -> None:
        super().__init__()
        _check_width(width)
        self.residual, self.sees_mask = residual, sees_mask
        convolution, in_channels, channels = family.convolution, 5 if sees_mask else 3, 4 * width
        widths = [width, width, 2 * width, 2 * width, 4 * width, 4 * width]
        self.dilated_encoder = Encoder(in_channels, widths, padding, convolution=convolution)
        self.dilated = DilatedConvolutions(channels, padding, convolution)
        self.attention = attention
        if attention is not None:
            widths = [width, width, 2 * width, 4 * width, 4 * width, 4 * width]
            self.attention_encoder = Encoder(in_channels, widths, padding, nn.ReLU(inplace=True), convolution)
            self.attended = nn.Sequential(
                *(convolution(channels, channels, padding=padding, activation=elu()) for _ in range(2))
            )
        bound = None if residual else family.bound()
        self.decoder = Decoder(channels if attention is None else 2 * channels, width, padding, bound, convolution)

    def forward(
        self, image: Tensor, mask: Tensor, return_offset: bool = False, source: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the refined image and, if asked for, the offset."""
        _check_input(image, mask, self.dilated_encoder.stem.weight.dtype)
        planes = self.planes(image, mask)
        features, offset = self.dilated(self.dilated_encoder(planes)), None
        if self.attention is not None:
            barred = mask if source is None else closed(mask, source, image)
            attended = self.attention_encoder(planes)
            barred = resize_nearest(barred.to(attended.dtype), (attended.shape[-2], attended.shape[-1]))
            attended = self.attention(attended, mask=barred, return_offset=return_offset)
            attended, offset = attended if return_offset else (attended, None)
            features = torch.cat([features, self.attended(attended)], dim=1)
        else:
            _refuse(return_offset, source, "attention=None; build one with attention")
        output = self.decoder(features)
        return F.hardtanh(image + output) if self.residual else output, offset

    def planes(self, image: Tensor, mask: Tensor) -> Tensor:
        """Return what both branches' first convolutions see, (B, 5 or 3, H, W)."""
        return _join(image, mask if self.sees_mask else None)


class Generator(StoredNetwork):
    """The paper's two-stage network, from a masked image to its completion.

    Args:
        width: Channels at full size, even; the paper's is 32.
        attention: Contextual attention of the second stage; None is the paper's baseline without attention.
        padding: "zeros", or "mirror" for the released option SYMMETRIC.
        residual: Whether each stage adds to the image it gets, the first one to a harmonic filling of the hole, instead
            of making an image; easier to learn from few images. "coarse": the first stage alone adds.

    Shape:
        - masked: (B, 3, H, W), [-1, 1], the hole set to 0; H and W multiples of 8
        - mask: (B or 1, 1, H, W), {0, 1}
        - source: (B or 1, 1, H, W), {0, 1}: as for `RefinementNetwork`
        - returned: `Completion`

    Raises:
        ValueError: If residual, shapes, types or values differ from that, or an offset or a source is given without
            attention.

    Source:
        Yu et al. 2018, figures 2 and 4. Follows the released code where they part: zero padding, and the gradient
        of the second stage reaches the first. Differs from the released code: one mask per image, not per batch;
        `residual` is ours.

    Example:
        >>> import torch
        >>> completion = Generator(width=4)(torch.zeros(1, 3, 16, 16), torch.ones(1, 1, 16, 16))
        >>> completion.refined.shape
        torch.Size([1, 3, 16, 16])
    """

    def __init__(
        self,
        width: int = 32,
        attention: ContextualAttention | None = ContextualAttention(),  # noqa: B008  (no weights: safe to share)
        padding: str = "zeros",
        residual: bool | Literal["coarse"] = False,
    ) -> None:
        super().__init__(width=width, attention=attention, padding=padding, residual=residual)
        if residual not in (True, False, "coarse"):
            raise ValueError(f"residual must be true, false or 'coarse', got {residual!r}; 'coarse' is the first stage")
        self.coarse_network = CoarseNetwork(width, padding, bool(residual))
        self.refinement_network = RefinementNetwork(width, attention, padding, residual is True)

    def forward(
        self, masked: Tensor, mask: Tensor, return_offset: bool = False, source: Tensor | None = None
    ) -> Completion:
        """Return both stages' outputs and, if asked for, the offset."""
        coarse = self.coarse_network(masked, mask)
        refined, offset = self.refinement_network(composite(masked, coarse, mask), mask, return_offset, source)
        return Completion(coarse, refined, offset)


class CoarseGenerator(StoredNetwork):
    """The coarse network alone, called as a generator; returns a `Completion` without refined image and offset.

    Arguments, shapes and errors are those of `CoarseNetwork`; it also refuses an offset and a source (ValueError).

    Source:
        Released code, option PRETRAIN_COARSE_NETWORK.
    """

    def __init__(self, width: int = 32, padding: str = "zeros", residual: bool = False) -> None:
        super().__init__(width=width, padding=padding, residual=residual)
        self.coarse_network = CoarseNetwork(width, padding, residual)

    def forward(
        self, masked: Tensor, mask: Tensor, return_offset: bool = False, source: Tensor | None = None
    ) -> Completion:
        """Return the coarse image as a completion."""
        _refuse(return_offset, source, "a coarse network; build a Generator")
        return Completion(self.coarse_network(masked, mask), None, None)


def closed(mask: Tensor, source: Tensor, image: Tensor) -> Tensor:
    """Return where attention may not copy from: the hole, and what is no source."""
    check_mask(source, image, "source")
    return torch.maximum(mask, 1 - source.to(mask.dtype))


def _refuse(return_offset: bool, source: Tensor | None, got: str) -> None:
    if return_offset or source is not None:
        raise ValueError(f"{'return_offset' if return_offset else 'source'} needs an attention layer, got {got}")


def _join(image: Tensor, mask: Tensor | None, *planes: Tensor) -> Tensor:
    if mask is not None:
        ones = image.new_ones(image.shape[0], 1, *image.shape[-2:])
        planes = (*planes, ones, ones * mask.to(image.dtype))
    joined = torch.cat((image, *planes), dim=1)
    if joined.device.type != "cpu":  # accelerators: the user's choice, with generator.to(memory_format=...)
        return joined
    return joined.contiguous(memory_format=torch.channels_last)  # convolutions keep the layout and are faster in it


def _check_input(image: Tensor, mask: Tensor, dtype: torch.dtype) -> None:
    check_image(image, "masked image", multiple=SIZE_MULTIPLE, dtype=dtype)
    check_mask(mask, image)


def _check_width(width: int) -> None:
    if width < 2 or width % 2:
        raise ValueError(f"width must be a positive even number of channels, got {width}; the paper's is 32")
