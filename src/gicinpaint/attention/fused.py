"""The sums of a score block as compiled functions: one kernel each, so a block is read and written once.

Meant for accelerators, where the passes of the eager sums are bound by memory. Every function computes what the eager
code of `matching` and `pasting` computes, in the same order, and writes to memory it is given.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F


def diagonal(source: Tensor, reach: int, query_step: int, key_step: int) -> Tensor:
    """Return the sum over d = -reach..reach of source at (query + d * query_step, key + d * key_step); 0 outside.

    Shape:
        - source, returned: (B, queries, keys)
    """
    total = source
    for d in range(1, reach + 1):
        q, k = d * query_step, d * key_step
        if q < source.shape[1] and k < source.shape[2]:
            total = total + ahead(source, q, k) + F.pad(source[:, :-q, :-k], (k, 0, q, 0))
    return total


def ahead(source: Tensor, queries: int, keys: int) -> Tensor:
    """Return source at (query + queries, key + keys); 0 outside."""
    return F.pad(source[:, queries:, keys:], (0, keys, 0, queries))


def match(gram: Tensor, factor: Tensor, out: Tensor, reach: int, pitch: int, skipped: int, left: int) -> None:
    """Write matched scores: the Gram matrix summed along both axes of the grids, times the keys' factor.

    Args:
        gram: Products of all cells of padded grids.
        factor: Factor of every key.
        out: Where to write.
        reach: Cells that a patch reaches to each side.
        pitch: Query cells of gram per row.
        skipped: Query cells of gram above the rows of out.
        left: Columns of gram before those of out.

    Shape:
        - gram: (B, rows * pitch, hb * (wb + reach))
        - factor: (B, 1, 1, hb, wb)
        - out: (B, wanted rows, w, hb, wb)
    """
    rows, w, hb, wb = out.shape[1:]
    summed = diagonal(diagonal(gram, reach, 1, 1), reach, pitch, wb + reach)[:, skipped : skipped + rows * pitch]
    grids = summed.unflatten(2, (hb, wb + reach)).unflatten(1, (-1, pitch))
    out.copy_(grids[:, :, left : left + w, :, :wb] * factor)


def corners(window: Tensor, out: Tensor, query_step: int, key_step: int) -> None:
    """Write the sums of attention at corners: each with its three neighbours before it.

    Shape:
        - window: (B, query_step + corners, key corners), with the row of queries before those of out
        - out: (B, corners, key corners)
    """
    along = window + F.pad(window[:, :-1, :-1], (1, 0, 1, 0))
    out.copy_(along[:, query_step:] + F.pad(along[:, :-query_step, :-key_step], (key_step, 0, 0, 0)))


def corner_gradient(corners: Tensor, out: Tensor, query_step: int, key_step: int) -> None:
    """Write the gradient of attention from that of its sums at corners: the way back of `corners`.

    Shape:
        - corners: (B, query_step + queries, key corners)
        - out: (B, queries, key corners)
    """
    along = corners + ahead(corners, 1, 1)
    out.copy_(along[:, :-query_step] + F.pad(along[:, query_step:, key_step:], (0, key_step)))


@cache
def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Return the function compiled for all sizes; compiled on its first call."""
    return torch.compile(function, dynamic=True)
