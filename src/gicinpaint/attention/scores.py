"""The small steps that every backend shares: key norms, the masked softmax, the offset of the best key."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST_NORM = 1e-4  # floor of a key patch's norm, from the released code
OVERLAP = 4  # pasted patches that cover a pixel, by which the released code divides everywhere


def key_norm(background: Tensor, patch_size: int) -> Tensor:
    """Return the L2 norm of every key patch, at least 1e-4.

    The squared norm of a patch is the box sum of the pixels' squared norms, so no patch is built. The floor is
    applied to the square: the root of a clamped square has a finite gradient where a patch is zero.

    Args:
        background: Shrunk background features.
        patch_size: Height and width of a key patch, odd.

    Shape:
        - background: (B, C, h, w)
        - returned: (B, h, w)

    Source:
        Released code, `contextual_attention`.
    """
    energy = background.square().sum(dim=1, keepdim=True)
    patch_energy = F.avg_pool2d(energy, patch_size, stride=1, padding=patch_size // 2) * patch_size**2
    return patch_energy.clamp(min=SMALLEST_NORM**2).sqrt()[:, 0]


def masked_softmax(scores: Tensor, valid: Tensor, softmax_scale: float) -> Tensor:
    """Return the attention of queries to keys, exactly 0 for invalid keys.

    An invalid key has score 0, so it takes exp(0) of the denominator: attention sums to at most 1 and is not
    renormalised.

    Args:
        scores: Scores of queries (second to last axis) and keys (last axis).
        valid: Which keys may be copied from.
        softmax_scale: Factor on the scores.

    Shape:
        - scores, returned: (B, queries, keys)
        - valid: bool (B or 1, keys)

    Source:
        Yu et al. 2018, section 4.1; the masking is the released code's.
    """
    keep = valid[:, None].to(scores.dtype)
    return torch.softmax(scores * (keep * softmax_scale), dim=-1) * keep


def best_offset(attention: Tensor, query_width: int, key_width: int) -> Tensor:
    """Return the position of the key with the most attention, the first one on exact ties.

    Args:
        attention: Attention of every query, row-major, to every key, row-major.
        query_width: Columns of the query grid.
        key_width: Columns of the key grid.

    Shape:
        - attention: (B, queries, keys)
        - returned: int64 (B, 2, queries / query_width, query_width), (row, column)
    """
    index = attention.detach().argmax(dim=-1).unflatten(-1, (-1, query_width))
    row = index // key_width
    return torch.stack((row, index - row * key_width), dim=1)  # no remainder: ONNX has none by a size known later


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context in which no product is lowered to half precision: scores need float32."""
    device_type = tensor.device.type
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def widened(*tensors: Tensor) -> list[Tensor]:
    """Return the tensors in float32, or in float64 if they are in float64."""
    return [tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors]
