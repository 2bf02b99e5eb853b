"""The two critics: one scores the whole image, one the box around the hole."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from gicinpaint.blocks import Convolution

_STRIDE = 16  # of four convolutions that halve the size


class Critic(nn.Module):
    """Four convolutions that halve the size and one score per image.

    Args:
        widths: Output channels of the four convolutions.
        image_size: Height and width of the images it scores; the dense unit fixes them. One number means both.

    Shape:
        - image: (B, 3, *image_size), [-1, 1]
        - returned: (B, 1), unbounded: a score, not a probability

    Raises:
        ValueError: If an image has another shape or is not floating point.

    Source:
        Yu et al. 2018, section 3.2; layers as in the released code.
    """

    def __init__(self, widths: Sequence[int], image_size: int | Sequence[int]) -> None:
        super().__init__()
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        channels = [3, *widths]
        self.features = nn.Sequential(
            *(
                Convolution(c_in, c_out, kernel_size=5, stride=2, activation=nn.LeakyReLU(0.2))
                for c_in, c_out in pairwise(channels)
            )
        )
        h, w = (-(-size // _STRIDE) for size in self.image_size)
        self.score = nn.Linear(widths[-1] * h * w, 1)
        nn.init.xavier_uniform_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Return the score of every image."""
        if image.ndim != 4 or image.shape[1] != 3 or tuple(image.shape[-2:]) != self.image_size:
            h, w = self.image_size
            raise ValueError(
                f"critic input must be (B, 3, {h}, {w}), got {tuple(image.shape)}; "
                "build the critic with the image_size (global) or the mask's box (local) that it will see"
            )
        if not image.is_floating_point():
            raise ValueError(
                f"critic input must be floating point in [-1, 1], got {image.dtype}; "
                "convert 8-bit values with x / 127.5 - 1"
            )
        return self.score(self.features(image).flatten(1))


class GlobalCritic(Critic):
    """The critic that scores the whole completed image.

    Args:
        width: Channels of the first convolution; the following have 2, 4 and 4 times as many.
        image_size: Height and width of the images it scores, or one number for both.

    Shape:
        - image: (B, 3, *image_size), [-1, 1]
        - returned: (B, 1)

    Raises:
        ValueError: If an image has another shape or is not floating point.

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
        ValueError: If an image has another shape or is not floating point.

    Source:
        Yu et al. 2018, section 3.2; layers as in the released code.
    """

    def __init__(self, width: int = 64, image_size: int | Sequence[int] = (128, 128)) -> None:
        super().__init__([width, 2 * width, 4 * width, 8 * width], image_size)
