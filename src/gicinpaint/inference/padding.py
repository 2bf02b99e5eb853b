"""One pass of the networks over an image of any size: padded by mirroring, cropped back."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gicinpaint.models.compositing import composite, mask_out
from gicinpaint.models.generator import SIZE_MULTIPLE, Completion, Generator


@torch.no_grad()
def complete(generator: nn.Module, image: Tensor, hole: Tensor, return_offset: bool = False) -> Completion:
    """Return both stages' outputs, of the image's size; the offset's grid is that of the padded image.

    Args:
        generator: Maps (masked, mask) to a `Completion`.
        image: Images; what lies in the hole does not matter.
        hole: Hole mask; 1 = hole.
        return_offset: Whether the offset is wanted.

    Shape:
        - image: (B, 3, H, W), [-1, 1]
        - hole: (B, 1, H, W), {0, 1}
    """
    h, w = image.shape[-2:]
    mask = mirrored(hole)
    completion = generator(mask_out(mirrored(image), mask), mask, return_offset=return_offset)
    refined = None if completion.refined is None else completion.refined[..., :h, :w]
    return Completion(completion.coarse[..., :h, :w], refined, completion.offset)


@torch.no_grad()
def refine(generator: Generator, image: Tensor, coarse: Tensor, hole: Tensor) -> Tensor:
    """Return the second stage's output for a coarse image that came from elsewhere; shapes as for `complete`."""
    h, w = image.shape[-2:]
    mask = mirrored(hole)
    refined, _ = generator.refinement_network(composite(mirrored(image), mirrored(coarse), mask), mask)
    return refined[..., :h, :w]


def mirrored(image: Tensor) -> Tensor:
    """Return images (..., H, W) continued by mirroring at the bottom and right up to the next multiple of 8."""
    h, w = image.shape[-2:]
    rows, columns = (_mirror_index(size, image.device) for size in (h, w))
    return image if len(rows) == h and len(columns) == w else image[..., rows[:, None], columns]


def attends(generator: nn.Module) -> bool:
    """Tell whether a generator has an attention layer, whose offsets can be asked for."""
    return any(getattr(network, "attention", None) is not None for network in generator.children())


def padded_size(height: int, width: int) -> tuple[int, int]:
    """Return the next multiples of 8."""
    return -(-height // SIZE_MULTIPLE) * SIZE_MULTIPLE, -(-width // SIZE_MULTIPLE) * SIZE_MULTIPLE


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Return images (B, C, H, W) resampled to another size, without aliasing."""
    smaller = height < image.shape[-2]
    return F.interpolate(image, size=(height, width), mode="bilinear", antialias=smaller, align_corners=False)


def _mirror_index(size: int, device: torch.device) -> Tensor:
    index = torch.arange(-(-size // SIZE_MULTIPLE) * SIZE_MULTIPLE, device=device) % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)  # 0 1 2 2 1 0 0 1 2 ...: the edge pixel repeats
