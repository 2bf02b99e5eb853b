"""Contextual attention as batched products of patch matrices."""

from torch import Tensor
from torch.nn import functional as F

from gicinpaint.attention.reference import OVERLAP, best_offset, key_norm, masked_softmax, widened, without_autocast


class UnfoldAttention:
    """Attend with two batched matrix products: query patches by key patches, attention by value patches.

    The same arithmetic as the literal form, for a whole batch at once. It holds the patches (9C and 16C numbers per
    grid cell) and several matrices of queries x keys per image.

    Source:
        Yu et al. 2018, section 4.1; semantics of the released code, with a mask per image.
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
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the filled features and, on request, the offsets; see `AttentionBackend`."""
        dtype, (h, w) = foreground.dtype, foreground.shape[-2:]
        hb, wb = background.shape[-2:]
        with without_autocast(foreground):
            queries, keys, values = widened(foreground, background, full_background)
            query_patches = F.unfold(queries, patch_size, padding=patch_size // 2)  # (B, C * patch_size^2, h * w)
            key_patches = F.unfold(keys, patch_size, padding=patch_size // 2)  # (B, C * patch_size^2, hb * wb)
            scores = query_patches.mT @ (key_patches / key_norm(keys, patch_size).flatten(1)[:, None])
            if propagate:
                scores = _spread(scores, propagation_size)
                scores = _spread(_transposed_grids(scores, (h, w), (hb, wb)), propagation_size)
                scores = _transposed_grids(scores, (w, h), (wb, hb))
            attention = masked_softmax(scores, valid.flatten(1), softmax_scale)  # (B, h * w, hb * wb)
            output = _paste(attention, values, rate, (h, w)).to(dtype)
        return (output, best_offset(attention, w, wb)) if return_offset else output


def _spread(scores: Tensor, size: int) -> Tensor:
    queries, keys = scores.shape[-2:]
    reach = size // 2
    padded = F.pad(scores, (reach, reach, reach, reach))
    return sum((padded[:, i : i + queries, i : i + keys] for i in range(1, size)), padded[:, :queries, :keys])


def _transposed_grids(scores: Tensor, query_grid: tuple[int, int], key_grid: tuple[int, int]) -> Tensor:
    return scores.unflatten(2, key_grid).unflatten(1, query_grid).permute(0, 2, 1, 4, 3).flatten(3, 4).flatten(1, 2)


def _paste(attention: Tensor, full_background: Tensor, rate: int, query_grid: tuple[int, int]) -> Tensor:
    h, w = query_grid
    size, before, after = 2 * rate, rate // 2, rate - rate // 2  # TensorFlow 'SAME': the smaller half first
    padded = F.pad(full_background, (before, after, before, after))
    values = F.unfold(padded, size, stride=rate)  # (B, C * size^2, hb * wb)
    patches = values @ attention.mT  # (B, C * size^2, h * w)
    overlapped = F.fold(patches, (rate * (h + 1), rate * (w + 1)), size, stride=rate)
    return overlapped[:, :, before : before + rate * h, before : before + rate * w] / OVERLAP
