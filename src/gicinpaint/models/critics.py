"""The critics (discriminators): one scores the whole image, one the box around the hole, one every patch.

Training calls all of them alike: `critic(critic.view(image, box), critic.view(mask, box))`.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gicinpaint.attention.reference import without_autocast
from gicinpaint.checks import check_image, check_mask
from gicinpaint.models.compositing import Box, crop_box
from gicinpaint.models.layers import Convolution

_STRIDE = 16  # of four convolutions that halve the size
_SLOPE = 0.2  # of the activations below zero


class Critic(nn.Module):
    """Four convolutions that halve the size, then one score per image.

    Args:
        widths: Output channels of the four convolutions.
        image_size: Height and width of the images it scores, or one number for both; the linear layer fixes them.

    Shape:
        - image: (B, 3, *image_size), [-1, 1]
        - returned: (B, 1), unbounded: a score, not a probability

    Raises:
        ValueError: If a width or a size is less than 1, or an image differs from that in shape, type or range.

    Source:
        Yu et al. 2018, section 3.2; layers as in the released code.
    """

    def __init__(self, widths: Sequence[int], image_size: int | Sequence[int]) -> None:
        super().__init__()
        _check_widths(widths)
        self.image_size = _height_and_width(image_size)
        layers = [Convolution(*pair, 5, 2, activation=nn.LeakyReLU(_SLOPE)) for pair in pairwise([3, *widths])]
        self.features = nn.Sequential(*layers)
        h, w = (-(-size // _STRIDE) for size in self.image_size)
        self.score = nn.Linear(widths[-1] * h * w, 1)
        nn.init.xavier_uniform_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the score of every image; the mask has no effect."""
        self._check(image)
        return self.score(self.features(image).flatten(1))

    def view(self, image: Tensor, box: Box) -> Tensor:
        """Return the part of images or masks, (B, C, H, W), that this critic scores: all of it."""
        return image

    def input_gradient(self, image: Tensor) -> Tensor:
        """Return the gradient of each image's score to that image, (B, 3, *image_size), for the gradient penalty.

        The layers are piecewise linear, so the gradient is the linear layer's weights taken back through transposed
        convolutions and the activations' slopes. Its own derivative to the weights then takes four passes of every
        convolution; where autograd differentiates twice it takes six, two of them over zeros. The result carries no
        derivative to the image or to the biases: almost everywhere those are zero.

        A subclass with other layers must override this too, or set it to None: then autograd is used.
        """
        self._check(image)
        layers = cast(list[Convolution], list(self.features))
        inputs = [image]
        with torch.no_grad():
            for layer in layers:
                inputs.append(layer(inputs[-1]))
        gradient = self.score.weight.reshape(1, *inputs[-1].shape[1:])
        for layer, x, activated in zip(layers[::-1], inputs[-2::-1], inputs[:0:-1], strict=True):
            slope = torch.full_like(activated, _SLOPE).masked_fill_(activated > 0, 1)
            gradient = layer.input_gradient(gradient * slope, x.shape[-2:])
        return gradient

    def _check(self, image: Tensor) -> None:
        check_image(image, "critic input", dtype=self.score.weight.dtype)
        if tuple(image.shape[-2:]) != self.image_size:
            h, w = self.image_size
            raise ValueError(
                f"critic input must be (B, 3, {h}, {w}), got {tuple(image.shape)}; "
                "build the critic with the image_size (global) or the mask's box (local) that it will see"
            )


class GlobalCritic(Critic):
    """The critic that scores the whole completed image; shapes, errors and source as for `Critic`.

    Args:
        width: Channels of the first convolution; the following have 2, 4 and 4 times as many.
        image_size: Height and width of the images, or one number for both.
    """

    def __init__(self, width: int = 64, image_size: int | Sequence[int] = (256, 256)) -> None:
        super().__init__([width, 2 * width, 4 * width, 4 * width], image_size)
        self.width = width


class LocalCritic(Critic):
    """The critic that scores the box around the hole; shapes, errors and source as for `Critic`.

    Args:
        width: Channels of the first convolution; the following have 2, 4 and 8 times as many.
        image_size: Height and width of the boxes, or one number for both.
    """

    def __init__(self, width: int = 64, image_size: int | Sequence[int] = (128, 128)) -> None:
        super().__init__([width, 2 * width, 4 * width, 8 * width], image_size)
        self.width = width

    def view(self, image: Tensor, box: Box) -> Tensor:
        """Return each image's box, (B, C, box.height, box.width)."""
        return crop_box(image, box)


class PatchCritic(nn.Module):
    """The critic that scores every patch of an image, given the hole: any size, any number and shape of holes.

    Spectrally normalised 5x5 convolutions that halve the size, each with a leaky ReLU of slope 0.2, the last too.

    Args:
        width: Channels of the first convolution; the second has twice as many, all others four times.
        in_channels: Channels of image and mask together; 3 leaves the mask out.
        depth: Number of convolutions; each halves the size, so fewer suit small images.
        detach: Whether gradients stop at the singular vectors, the usual form; the released code lets them pass.
        linear: Whether a 3x3 convolution without activation turns the C scores into one. Learns faster: the last
            leaky ReLU of the released code lets a completed image's score fall at a fifth of the slope only.

    Shape:
        - image: (B, 3, H, W), [-1, 1]
        - mask: (B or 1, 1, H, W), {0, 1}, 1 = hole
        - returned: (B, C, ceil(H / 2^depth), ceil(W / 2^depth)), unbounded scores; C is 4 * width from depth 3 on, or
          1 with linear

    Raises:
        ValueError: If a setting is out of range, the mask is missing, or shapes, types or values differ from that.

    Source:
        Yu et al. 2019, section 3.3, SN-PatchGAN; layers, depth and width as in the released code.
    """

    def __init__(
        self, width: int = 64, in_channels: int = 4, depth: int = 6, detach: bool = False, linear: bool = False
    ) -> None:
        super().__init__()
        _check_widths([width])
        if in_channels not in (3, 4) or depth < 1:
            raise ValueError(
                f"a patch critic needs 3 or 4 in_channels and a depth of at least 1, got {in_channels} and {depth}; "
                "the released values are 4 and 6"
            )
        self.width, self.in_channels, self.depth, self.detach, self.linear = width, in_channels, depth, detach, linear
        channels = [in_channels, *(width * min(2**layer, 4) for layer in range(depth))]
        self.features = nn.Sequential(*(_SpectralConvolution(*pair, detach) for pair in pairwise(channels)))
        if linear:
            self.features.append(_SpectralConvolution(channels[-1], 1, detach, linear=True))

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the scores of all patches; each call updates the estimates of the singular vectors."""
        check_image(image, "critic input", dtype=next(self.parameters()).dtype)
        if self.in_channels == 3:
            return self.features(image)
        if mask is None:
            raise ValueError(
                "a patch critic with 4 in_channels needs the mask, got None; pass it, or use in_channels=3"
            )
        check_mask(mask, image)
        return self.features(torch.cat([image, mask.to(image.dtype).expand(len(image), -1, -1, -1)], dim=1))

    def view(self, image: Tensor, box: Box) -> Tensor:
        """Return the part of images or masks, (B, C, H, W), that this critic scores: all of it."""
        return image


class _SpectralConvolution(Convolution):
    """A convolution whose kernel is divided by an estimate of its largest singular value.

    Every call, also in evaluation, takes one step of the power iteration and keeps the left vector `u` as state.
    """

    u: Tensor

    def __init__(self, in_channels: int, out_channels: int, detach: bool, linear: bool = False) -> None:
        kernel_size, stride = (3, 1) if linear else (5, 2)
        activation = None if linear else nn.LeakyReLU(_SLOPE, inplace=True)
        super().__init__(in_channels, out_channels, kernel_size, stride, activation=activation)
        self.detach = detach
        self.register_buffer("u", nn.init.trunc_normal_(torch.empty(out_channels)))

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            matrix = self.weight.flatten(1)  # (out_channels, rest)
            v = _normalized(self.u.clone() @ matrix)  # a copy: the buffer changes before the backward pass
            u = _normalized(matrix @ v)
            if self.detach:
                u, v = u.detach(), v.detach()
            weight = self.weight / (u @ matrix @ v)
            with torch.no_grad():
                self.u.copy_(u)
        return self.activate(F.conv2d(self.pad(x), weight, self.bias, self.stride))


def _normalized(vector: Tensor) -> Tensor:
    return vector / (torch.linalg.vector_norm(vector) + 1e-12)


def _check_widths(widths: Sequence[int]) -> None:
    if min(widths) < 1:
        raise ValueError(f"a critic's width must be at least 1 channel, got {widths[0]}; the paper's is 64")


def _height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    sizes = (size, size) if isinstance(size, int) else tuple(size)
    if len(sizes) != 2 or min(sizes) < 1:
        hint = f"or one number for both, got {size}; pass e.g. (256, 256)"
        raise ValueError(f"image_size must be a height and a width in pixels, {hint}")
    return sizes
