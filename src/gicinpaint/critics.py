"""The two critics: one scores the whole image, one the box around the hole."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from gicinpaint.blocks import Convolution
from gicinpaint.checks import check_image

_STRIDE = 16  # of four convolutions that halve the size
_SLOPE = 0.2  # of the activations below zero


class Critic(nn.Module):
    """Four convolutions that halve the size and one score per image.

    Args:
        widths: Output channels of the four convolutions.
        image_size: Height and width of the images it scores; the dense unit fixes them. One number means both.

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
        channels = [3, *widths]
        self.features = nn.Sequential(
            *(
                Convolution(c_in, c_out, kernel_size=5, stride=2, activation=nn.LeakyReLU(_SLOPE))
                for c_in, c_out in pairwise(channels)
            )
        )
        h, w = (-(-size // _STRIDE) for size in self.image_size)
        self.score = nn.Linear(widths[-1] * h * w, 1)
        nn.init.xavier_uniform_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Return the score of every image."""
        self._check(image)
        return self.score(self.features(image).flatten(1))

    def input_gradient(self, image: Tensor) -> Tensor:
        """Return the gradient of each image's score to that image, for the gradient penalty.

        The layers are piecewise linear, so the gradient is the dense unit's weights taken back through transposed
        convolutions and the activations' slopes. Written so, its own derivative to the weights takes four passes of
        every convolution; where autograd differentiates twice it takes six, two of them over zeros. The result carries
        no derivative to the image or to the biases: almost everywhere those are zero.

        A subclass with other layers must override this too, or set it to None: then autograd is used.

        Shape:
            - image: (B, 3, *image_size), [-1, 1]
            - returned: as the image

        Raises:
            ValueError: As for a score.

        Source:
            Ours.
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
            gradient = layer.take_back(gradient * slope, x.shape[-2:])
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
    """The critic that scores the whole completed image.

    Args:
        width: Channels of the first convolution; the following have 2, 4 and 4 times as many.
        image_size: Height and width of the images it scores, or one number for both.

    Shape:
        - image: (B, 3, *image_size), [-1, 1]
        - returned: (B, 1)

    Raises:
        ValueError: If a width or a size is less than 1, or an image differs from that in shape, type or range.

    Source:
        Yu et al. 2018, section 3.2; layers as in the released code.
    """

    def __init__(self, width: int = 64, image_size: int | Sequence[int] = (256, 256)) -> None:
        super().__init__([width, 2 * width, 4 * width, 4 * width], image_size)


class LocalCritic(Critic):
    """The critic that scores the box around the hole.

    Args:
        width: Channels of the first convolution; the following have 2, 4 and 8 times as many.
        image_size: Height and width of the boxes it scores, or one number for both.

    Shape:
        - image: (B, 3, *image_size), [-1, 1]
        - returned: (B, 1)

    Raises:
        ValueError: If a width or a size is less than 1, or an image differs from that in shape, type or range.

    Source:
        Yu et al. 2018, section 3.2; layers as in the released code.
    """

    def __init__(self, width: int = 64, image_size: int | Sequence[int] = (128, 128)) -> None:
        super().__init__([width, 2 * width, 4 * width, 8 * width], image_size)


def _check_widths(widths: Sequence[int]) -> None:
    if min(widths) < 1:
        raise ValueError(f"a critic's width must be at least 1 channel, got {widths[0]}; the paper's is 64")


def _height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    sizes = (size, size) if isinstance(size, int) else tuple(size)
    if len(sizes) != 2 or min(sizes) < 1:
        raise ValueError(
            f"image_size must be a height and a width in pixels, or one number for both, got {size}; "
            "pass e.g. (256, 256)"
        )
    return sizes
