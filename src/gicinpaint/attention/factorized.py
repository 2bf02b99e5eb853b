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
        dtype, (h, w), key_grid = foreground.dtype, foreground.shape[-2:], background.shape[-2:]
        before, after = rate // 2, rate - rate // 2  # TensorFlow 'SAME': the smaller half first
        with without_autocast(foreground):
            queries, keys, values = widened(foreground, background, full_background)
            length = propagation_size if propagate else 1
            attention = self.attend(queries, keys, valid, patch_size, length, softmax_scale)
            grids = attention.unflatten(2, key_grid).unflatten(1, (h, w))  # (B, h, w, hb, wb)
            overlapped = self.paste(grids, F.pad(values, (before, after, before, after)), rate)
            output = (overlapped[..., before : before + rate * h, before : before + rate * w] / OVERLAP).to(dtype)
        return (output, best_offset(attention, w, key_grid[1])) if return_offset else output

    def attend(
        self, queries: Tensor, keys: Tensor, valid: Tensor, patch_size: int, propagation_size: int, softmax_scale: float
    ) -> Tensor:
        """Return the attention of every query to every key, (B, h * w, hb * wb)."""
        scores = self.match(queries, keys, patch_size) / key_norm(keys, patch_size)[:, None, None]
        scores = propagated(scores, propagation_size)
        return masked_softmax(scores.flatten(3, 4).flatten(1, 2), valid.flatten(1), softmax_scale)

    def match(self, queries: Tensor, keys: Tensor, patch_size: int) -> Tensor:
        """Return the product of every query patch with every key patch, (B, h, w, hb, wb)."""
        gram = (queries.flatten(2).mT @ keys.flatten(2)).unflatten(2, keys.shape[-2:]).unflatten(1, queries.shape[-2:])
        shifts = range(-(patch_size // 2), patch_size // 2 + 1)
        return diagonal_sum(diagonal_sum(gram, 2, 4, shifts), 1, 3, shifts)

    def paste(self, attention: Tensor, values: Tensor, rate: int) -> Tensor:
        """Return the overlapped patches of padded values, (B, C, rate * (h + 1), rate * (w + 1)).

        All cells around a corner of the query grid are covered by the patches of the same four queries, so they share
        a sum of attention.
        """
        h, w = attention.shape[1:3]
        squares = F.pixel_unshuffle(values, rate).flatten(2)
        corners = F.pad(attention, (0, 1, 0, 1, 0, 1, 0, 1))  # (B, h + 1, w + 1, hb + 1, wb + 1)
        weights = diagonal_sum(diagonal_sum(corners, 2, 4, (0, -1)), 1, 3, (0, -1))
        sums = squares @ weights.flatten(3, 4).flatten(1, 2).mT  # (B, C * rate^2, corners)
        return F.pixel_shuffle(sums.unflatten(2, (h + 1, w + 1)), rate)


class UnfoldAttention(FactorizedAttention):
    """Attend with two batched matrix products: query patches by key patches, attention by value patches.

    The same arithmetic as the literal form, for a whole batch at once. It holds the patches (9C and 16C numbers per
    grid cell) and several matrices of queries x keys per image.

    Source:
        Yu et al. 2018, section 4.1; semantics of the released code, with a mask per image.
    """

    def match(self, queries: Tensor, keys: Tensor, patch_size: int) -> Tensor:
        """Return the product of every query patch with every key patch, (B, h, w, hb, wb)."""
        left, right = (F.unfold(x, patch_size, padding=patch_size // 2) for x in (queries, keys))
        return (left.mT @ right).unflatten(2, keys.shape[-2:]).unflatten(1, queries.shape[-2:])

    def paste(self, attention: Tensor, values: Tensor, rate: int) -> Tensor:
        """Return the overlapped patches of padded values, (B, C, rate * (h + 1), rate * (w + 1))."""
        h, w = attention.shape[1:3]
        patches = F.unfold(values, 2 * rate, stride=rate) @ attention.flatten(3, 4).flatten(1, 2).mT
        return F.fold(patches, (rate * (h + 1), rate * (w + 1)), 2 * rate, stride=rate)


def diagonal_sum(x: Tensor, query_axis: int, key_axis: int, shifts: Sequence[int], stride: int = 1) -> Tensor:
    """Return the sum over shifts d of x at (query + stride * d, key + d) along two axes, which is 0 outside."""
    before, after = max(0, -min(shifts)), max(0, *shifts)
    if before == after == 0:
        return x
    amounts = [0, 0] * x.ndim  # from the last axis to the first
    for axis, step in ((query_axis, stride), (key_axis, 1)):
        last = 2 * (x.ndim - 1 - axis)
        amounts[last : last + 2] = step * before, step * after
    padded, sizes, at = F.pad(x, amounts), x.shape, [before + d for d in shifts]
    terms = [padded.narrow(query_axis, stride * d, sizes[query_axis]).narrow(key_axis, d, sizes[key_axis]) for d in at]
    return sum(terms[1:], terms[0])


def propagated(scores: Tensor, size: int, stride: int = 1) -> Tensor:
    """Sum along the diagonal of row-major indices, then of column-major ones; both wrap to the next line."""
    shifts = range(-(size // 2), size // 2 + 1)
    for _ in ("rows", "columns"):
        grids = scores.shape[1:3], scores.shape[3:5]
        matrix = diagonal_sum(scores.flatten(3, 4).flatten(1, 2), 1, 2, shifts, stride)
        scores = matrix.unflatten(2, grids[1]).unflatten(1, grids[0]).permute(0, 2, 1, 4, 3)  # the other major
    return scores
