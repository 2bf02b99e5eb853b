"""Contextual attention with propagation (fusion), literal and slow: the judge of all other backends."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST_NORM = 1e-4  # floor of a key patch's norm, from the released code
OVERLAP = 4  # pasted patches that cover a pixel, by which the released code divides everywhere


class ReferenceAttention:
    """Attend image by image with convolutions whose kernels are the image's own patches.

    Every line is a step of the released code, in its order. Its cost per image, with N queries, N keys and C
    channels: 2 * 9C * N^2 operations to match, 2 * 16C * N^2 to paste, and several N x N matrices of memory.

    Source:
        Yu et al. 2018, section 4.1 and the released `contextual_attention`. Differs from the released code: a mask
        per image instead of one per batch.
    """

    def __call__(
        self,
        foreground: Tensor,
        background: Tensor,
        valid: Tensor,
        *,
        full_background: Tensor,
        rate: int,
        patch_size: int,
        propagation_size: int,
        softmax_scale: float,
        propagate: bool,
        return_offset: bool = False,
        stride: int = 1,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the filled features and, on request, the offsets; see `AttentionBackend`."""
        dtype, first = foreground.dtype, first_key(background.shape[-2:], patch_size, stride)
        valid = valid[:, first[0] :: stride, first[1] :: stride]
        outputs, offsets = [], []
        with without_autocast(foreground):
            queries, keys, values = widened(foreground, background, full_background)
            for i, image_valid in enumerate(valid.expand(len(queries), -1, -1)):
                scores = match(queries[i : i + 1], keys[i : i + 1], patch_size, first, stride)
                if propagate:
                    scores = spread(scores, image_valid.shape, propagation_size, stride)
                attention = attend(scores, image_valid, softmax_scale)
                outputs.append(paste(attention, values[i : i + 1], rate, first, stride))
                if return_offset:
                    widths = attention.shape[-1], image_valid.shape[-1]
                    offsets.append(best_offset(attention.flatten(2).mT, *widths, first, stride))
        output = torch.cat(outputs).to(dtype)
        return (output, torch.cat(offsets)) if return_offset else output


def first_key(grid: tuple[int, ...], patch_size: int, stride: int) -> tuple[int, ...]:
    """Return the row and column of the first key patch's middle; the others follow at every stride-th cell.

    Source:
        Released code: `extract_image_patches` with `strides` and 'SAME', the smaller half of the padding first.

    Example:
        >>> first_key((8, 7), 3, 2)
        (1, 0)
    """
    if stride == 1:
        return 0, 0
    return tuple(patch_size // 2 - max(0, patch_size - (size % stride or stride)) // 2 for size in grid)


def match(
    foreground: Tensor, background: Tensor, patch_size: int, first: tuple[int, ...] = (0, 0), stride: int = 1
) -> Tensor:
    """Return the product of every query patch with every normalised key patch, of every stride-th from the first on.

    Shape:
        - foreground: (1, C, h, w), shrunk features to fill
        - background: (1, C, hb, wb), shrunk features to copy from
        - returned: (1, hb * wb, h, w)

    Source:
        Yu et al. 2018, section 4.1, "match and attend". Only the key is normalised, as in the released code.
    """
    channels, half = background.shape[1], patch_size // 2
    padded = F.pad(background, (half - first[1], half, half - first[0], half))
    columns = F.unfold(padded, patch_size, stride=stride)  # (1, C * patch_size^2, keys)
    patches = columns[0].t().reshape(-1, channels, patch_size, patch_size)  # (keys, C, patch_size, patch_size)
    energy = patches.square().sum(dim=(1, 2, 3), keepdim=True)
    norm = energy.clamp(min=SMALLEST_NORM**2).sqrt()  # clamped before the root: finite gradient at zero patches
    return F.conv2d(foreground, patches / norm, padding=patch_size // 2)


def spread(scores: Tensor, key_grid: tuple[int, ...], size: int, stride: int = 1) -> Tensor:
    """Add to every score those of the diagonal neighbours, along rows, then along columns.

    Both grids are flattened for it, so a neighbourhood wraps from the end of a row to the start of the next.
    `size` is the length of the diagonal that is summed, odd; scores are (1, keys, h, w). A step from key to key goes
    with `stride` queries, the same way in the image.

    Source:
        Yu et al. 2018, section 4.1, attention propagation, as identity-kernel convolutions like the released code.
    """
    (hb, wb), (h, w) = key_grid, scores.shape[-2:]
    identity = torch.eye(size, dtype=scores.dtype, device=scores.device)[None, None]
    matrix = scores.reshape(1, 1, hb * wb, h * w)
    padding, dilation = (size // 2, stride * (size // 2)), (1, stride)
    matrix = F.conv2d(matrix, identity, padding=padding, dilation=dilation)
    matrix = matrix.reshape(hb, wb, h, w).permute(1, 0, 3, 2).reshape(1, 1, wb * hb, w * h)  # column-major
    matrix = F.conv2d(matrix, identity, padding=padding, dilation=dilation)
    return matrix.reshape(wb, hb, w, h).permute(1, 0, 3, 2).reshape(1, hb * wb, h, w)


def attend(scores: Tensor, valid: Tensor, softmax_scale: float) -> Tensor:
    """Return the softmax over keys, (1, keys, h, w), with invalid keys scored 0 before it and set to 0 after it."""
    keep = valid.reshape(1, -1, 1, 1).to(scores.dtype)
    return torch.softmax(scores * keep * softmax_scale, dim=1) * keep


def paste(
    attention: Tensor, full_background: Tensor, rate: int, first: tuple[int, ...] = (0, 0), stride: int = 1
) -> Tensor:
    """Return the attention-weighted sum of full-size background patches, each at its query's place.

    Shape:
        - attention: (1, keys, h, w)
        - full_background: (1, C, rate * hb, rate * wb)
        - returned: (1, C, rate * h, rate * w)

    Source:
        Released code: patches of 2 * rate cells, stride rate, divided by 4 everywhere, so the border is fainter.
    """
    channels = full_background.shape[1]
    size, before, after = 2 * rate, rate // 2, rate - rate // 2  # TensorFlow 'SAME': the smaller half first
    padded = F.pad(full_background, (before - rate * first[1], after, before - rate * first[0], after))
    columns = F.unfold(padded, size, stride=rate * stride)  # (1, C * size^2, keys)
    patches = columns[0].t().reshape(-1, channels, size, size)  # (keys, C, size, size)
    overlapped = F.conv_transpose2d(attention, patches, stride=rate)
    h, w = attention.shape[-2:]
    return overlapped[:, :, before : before + rate * h, before : before + rate * w] / OVERLAP


def key_norm(background: Tensor, patch_size: int) -> Tensor:
    """Return the L2 norm, at least 1e-4, of every key patch of (B, C, h, w) features as (B, h, w).

    The squared norm of a patch is the box sum of the pixels' squared norms, so no patch is built. The floor is
    applied to the square: the root of a clamped square has a finite gradient where a patch is zero.
    """
    energy = background.square().sum(dim=1, keepdim=True)
    patch_energy = F.avg_pool2d(energy, patch_size, stride=1, padding=patch_size // 2) * patch_size**2
    return patch_energy.clamp(min=SMALLEST_NORM**2).sqrt()[:, 0]


def masked_softmax(scores: Tensor, valid: Tensor, softmax_scale: float) -> Tensor:
    """Return the attention of queries to keys, exactly 0 for invalid keys.

    An invalid key has score 0, so it takes exp(0) of the denominator: attention sums to at most 1 and is not
    renormalised.

    Shape:
        - scores, returned: (B, queries, keys)
        - valid: bool (B or 1, keys)

    Source:
        Yu et al. 2018, section 4.1; the masking is the released code's.
    """
    keep = valid[:, None].to(scores.dtype)
    return torch.softmax(scores * (keep * softmax_scale), dim=-1) * keep


def best_offset(
    attention: Tensor, query_width: int, key_width: int, first: tuple[int, ...] = (0, 0), stride: int = 1
) -> Tensor:
    """Return the (row, column) of the key with the most attention, the first one on exact ties.

    Attention is (B, queries, keys), row-major on both grids; returned is int64 (B, 2, queries / width, width).
    """
    index = attention.detach().argmax(dim=-1).unflatten(-1, (-1, query_width))
    row = index // key_width
    offset = torch.stack((row, index - row * key_width), dim=1)  # no remainder: ONNX has none by a size known later
    return offset if stride == 1 else stride * offset + offset.new_tensor(first)[:, None, None]


def with_halo(part: range, halo: int, size: int) -> list[int]:
    """Return a part of an axis and some cells around it, in ascending order; beyond an end come those of the other.

    Propagation wraps from the last cell of a row or column to the first of the next one, and does so too on a grid of
    such rows and columns: with a wide enough halo the scores in the part are those of the whole grid.

    Example:
        >>> with_halo(range(1, 3), 2, 9)
        [0, 1, 2, 3, 4, 8]
    """
    return sorted({place % size for place in range(part.start - halo, part.stop + halo)})


def cut_window(
    queries: Tensor, rows: range, columns: range, patch_size: int, spread: int, more: int = 0
) -> tuple[Tensor, int, int]:
    """Return some queries with all those that their scores depend on and some more, and where they begin there.

    `spread` is how many cells propagation reaches: half its diagonal, and 0 for none.
    """
    (h, w), starts = queries.shape[-2:], []
    for axis, part, size, across in ((-2, rows, h, w), (-1, columns, w, h)):
        places = with_halo(part, patch_size // 2 + spread + -(-spread // across) + more, size)
        queries = queries.index_select(axis, torch.tensor(places, device=queries.device))
        starts.append(places.index(part.start))
    return queries, starts[0], starts[1]


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context in which no product is lowered to half precision: scores need float32."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def widened(*tensors: Tensor) -> list[Tensor]:
    """Return the tensors in float32, or in float64 if they are in float64."""
    return [tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors]
