"""Contextual attention on whole score matrices: without patches, by sums along diagonals, or with unfolded patches."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from gicinpaint.attention.reference import OVERLAP, best_offset, key_norm, masked_softmax, widened, without_autocast


class FactorizedAttention:
    """Attend with the product of every pair of cells, computed once and summed along diagonals.

    A product of two patches is a sum of products of cells at equal shifts, and a cell of the output meets patches
    at equal shifts too. Matching is then a product of C instead of 9C numbers per pair, and pasting one of 4C instead
    of 16C. All steps are plain tensor operations on the whole score matrix, so this backend exports and compiles.

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
        dtype, query_grid, key_grid = foreground.dtype, foreground.shape[-2:], background.shape[-2:]
        with without_autocast(foreground):
            queries, keys, values = widened(foreground, background, full_background)
            gram = queries.flatten(2).mT @ keys.flatten(2)  # (B, h * w, hb * wb)
            scores = _match(gram.unflatten(2, key_grid).unflatten(1, query_grid), patch_size)
            scores = scores / key_norm(keys, patch_size)[:, None, None]
            if propagate:
                scores = _propagate(scores, propagation_size)
            attention = masked_softmax(scores.flatten(3, 4).flatten(1, 2), valid.flatten(1), softmax_scale)
            grids = attention.unflatten(2, key_grid).unflatten(1, query_grid)  # (B, h, w, hb, wb)
            output = _paste(grids, values, rate).to(dtype)
        return (output, best_offset(attention, query_grid[1], key_grid[1])) if return_offset else output


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
            output = _fold_patches(attention, values, rate, (h, w)).to(dtype)
        return (output, best_offset(attention, w, wb)) if return_offset else output


def diagonal_sum(x: Tensor, query_axis: int, key_axis: int, shifts: Sequence[int]) -> Tensor:
    """Return the sum over shifts d of x at (query + d, key + d), which is 0 outside.

    Args:
        x: Numbers of query and key positions.
        query_axis: Axis of query positions.
        key_axis: Axis of key positions.
        shifts: Cells to move along both axes.
    """
    before, after = max(0, -min(shifts)), max(0, *shifts)
    if before == after == 0:
        return x
    amounts = [0, 0] * x.ndim  # from the last axis to the first
    for axis in (query_axis, key_axis):
        last = 2 * (x.ndim - 1 - axis % x.ndim)
        amounts[last : last + 2] = before, after
    padded = F.pad(x, amounts)
    sizes = x.shape[query_axis], x.shape[key_axis]
    terms = [padded.narrow(query_axis, before + d, sizes[0]).narrow(key_axis, before + d, sizes[1]) for d in shifts]
    return sum(terms[1:], terms[0])


def _match(gram: Tensor, patch_size: int) -> Tensor:
    shifts = range(-(patch_size // 2), patch_size // 2 + 1)
    return diagonal_sum(diagonal_sum(gram, 2, 4, shifts), 1, 3, shifts)


def _propagate(scores: Tensor, size: int) -> Tensor:
    """Sum along the diagonal of row-major indices, then of column-major ones; both wrap to the next line."""
    shifts = range(-(size // 2), size // 2 + 1)
    for _ in ("rows", "columns"):
        grids = scores.shape[1:3], scores.shape[3:5]
        matrix = diagonal_sum(scores.flatten(3, 4).flatten(1, 2), 1, 2, shifts)
        scores = matrix.unflatten(2, grids[1]).unflatten(1, grids[0]).permute(0, 2, 1, 4, 3)  # the other major
    return scores


def _paste(attention: Tensor, full_background: Tensor, rate: int) -> Tensor:
    """Return the sums of values around every corner of the query grid, put back in their places.

    All cells around a corner are covered by the patches of the same four queries, so they share a sum of attention.
    """
    h, w = attention.shape[1:3]
    before, after = rate // 2, rate - rate // 2  # TensorFlow 'SAME': the smaller half first
    values = F.pixel_unshuffle(F.pad(full_background, (before, after, before, after)), rate)
    corners = F.pad(attention, (0, 1, 0, 1, 0, 1, 0, 1))  # (B, h + 1, w + 1, hb + 1, wb + 1)
    weights = diagonal_sum(diagonal_sum(corners, 2, 4, (0, -1)), 1, 3, (0, -1))
    sums = values.flatten(2) @ weights.flatten(3, 4).flatten(1, 2).mT  # (B, C * rate^2, corners)
    squares = F.pixel_shuffle(sums.unflatten(2, (h + 1, w + 1)), rate)
    return squares[..., before : before + rate * h, before : before + rate * w] / OVERLAP


def _spread(scores: Tensor, size: int) -> Tensor:
    queries, keys = scores.shape[-2:]
    reach = size // 2
    padded = F.pad(scores, (reach, reach, reach, reach))
    return sum((padded[:, i : i + queries, i : i + keys] for i in range(1, size)), padded[:, :queries, :keys])


def _transposed_grids(scores: Tensor, query_grid: tuple[int, int], key_grid: tuple[int, int]) -> Tensor:
    return scores.unflatten(2, key_grid).unflatten(1, query_grid).permute(0, 2, 1, 4, 3).flatten(3, 4).flatten(1, 2)


def _fold_patches(attention: Tensor, full_background: Tensor, rate: int, query_grid: tuple[int, int]) -> Tensor:
    h, w = query_grid
    size, before, after = 2 * rate, rate // 2, rate - rate // 2  # TensorFlow 'SAME': the smaller half first
    padded = F.pad(full_background, (before, after, before, after))
    values = F.unfold(padded, size, stride=rate)  # (B, C * size^2, hb * wb)
    patches = values @ attention.mT  # (B, C * size^2, h * w)
    overlapped = F.fold(patches, (rate * (h + 1), rate * (w + 1)), size, stride=rate)
    return overlapped[:, :, before : before + rate * h, before : before + rate * w] / OVERLAP
