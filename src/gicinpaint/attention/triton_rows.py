"""Contextual attention on whole score matrices with Triton kernels: for GPUs, and slowly by Triton's interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from gicinpaint.attention.factorized import FactorizedAttention
from gicinpaint.attention.reference import key_norm

try:  # here, because kernels look for triton.language among the names of their module
    import triton
    import triton.language as tl
except ImportError:
    triton = tl = None

QUERIES, KEYS = 8, 256  # of a tile of scores
_jit: Any = triton.jit if triton else lambda kernel: kernel


class TritonAttention(FactorizedAttention):
    """Attend with the algebra of `FactorizedAttention` in kernels that read and write each score matrix once.

    One kernel sums along diagonals; another one does so with the scores of some queries, masks them and takes their
    softmax online, while it walks along the keys. Memory is that of three matrices of queries x keys, and as many for
    the gradient; a second gradient is refused. Compilers see one operator.

    Raises:
        ImportError: If Triton is not installed.
        ValueError: When called with features on the CPU, unless TRITON_INTERPRET=1 was set from the start.

    Source:
        Yu et al. 2018, section 4.1; semantics of the released code, with a mask per image.
    """

    def __init__(self) -> None:
        if triton is None:
            raise ImportError("TritonAttention needs the package triton; pip install 'gicinpaint[triton]'")

    def attend(
        self, queries: Tensor, keys: Tensor, valid: Tensor, patch_size: int, propagation_size: int, softmax_scale: float
    ) -> Tensor:
        """Return the attention of every query to every key, (B, h * w, hb * wb)."""
        keep = valid.flatten(1).to(queries.dtype).expand(len(queries), -1).contiguous()
        norm = key_norm(keys, patch_size).flatten(1)
        sizes = [*queries.shape[-2:], *keys.shape[-2:], patch_size // 2, propagation_size // 2]
        return _attend(queries.flatten(2), keys.flatten(2), norm, keep, sizes, softmax_scale)[0]


def patch_cells(grid: Sequence[int], reach: int, device: torch.device) -> Tensor:
    """Return the flat positions of the cells in the patch around every cell of a grid, -1 outside; (cells, h * w)."""
    height, width = grid
    y, x = (torch.arange(size, device=device) for size in grid)
    found = []
    for i, j in product(range(-reach, reach + 1), repeat=2):
        inside = ((y + i >= 0) & (y + i < height))[:, None] & ((x + j >= 0) & (x + j < width))
        found.append(torch.where(inside, (y + i)[:, None] * width + x + j, -1).flatten())
    return torch.stack(found).int()


def wrapped_cells(grid: Sequence[int], reach: int, device: torch.device, columns_first: bool = True) -> Tensor:
    """Return what propagation reaches from every cell, first along columns and then along rows; as `patch_cells`."""
    height, width = grid
    count = height * width
    cells = torch.arange(count, device=device)
    found = []
    for first, second in product(range(-reach, reach + 1), repeat=2):
        place, inside = cells, torch.ones_like(cells, dtype=torch.bool)
        for step, along_columns in ((first, columns_first), (second, not columns_first)):
            place = place % width * height + place // width if along_columns else place
            place = place + step
            inside &= (place >= 0) & (place < count)
            place = place.clamp(0, count - 1)
            place = place % height * width + place // height if along_columns else place
        found.append(torch.where(inside, place, -1))
    return torch.stack(found).int()


@_jit
def _diagonal_sum(scores, query, key, query_cells, key_cells, rows, count, steps: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the sums of scores over the pairs of cells that tables name for a tile's queries and keys."""
    total = tl.zeros((query + key).shape, scores.dtype.element_ty)
    for step in range(steps):
        far = tl.load(query_cells + step * rows + query, mask=query < rows, other=-1).to(tl.int64)
        far_key = tl.load(key_cells + step * count + key, mask=key < count, other=-1)
        total += tl.load(scores + far * count + far_key, mask=(far >= 0) & (far_key >= 0), other=0.0)
    return total


@_jit
def _sum_kernel(  # type: ignore[no-untyped-def]
    scores, sums, query_cells, key_cells, rows, count, steps: tl.constexpr, queries: tl.constexpr, keys: tl.constexpr
):
    """Write the sums of scores along diagonals, for each program a tile of queries x keys."""
    image = tl.program_id(2).to(tl.int64) * rows * count
    query = (tl.program_id(0) * queries + tl.arange(0, queries))[:, None]
    key = (tl.program_id(1) * keys + tl.arange(0, keys))[None, :]
    total = _diagonal_sum(scores + image, query, key, query_cells, key_cells, rows, count, steps)
    tl.store(sums + image + query.to(tl.int64) * count + key, total, mask=(query < rows) & (key < count))


@_jit
def _attend_kernel(  # type: ignore[no-untyped-def]
    matched,
    keep,
    scale,
    attention,
    query_cells,
    key_cells,
    rows,
    count,
    steps: tl.constexpr,
    queries: tl.constexpr,
    keys: tl.constexpr,
):
    """Propagate and mask the scores of some queries and take their softmax, online, in a walk along the keys."""
    image = tl.program_id(1).to(tl.int64)
    query = (tl.program_id(0) * queries + tl.arange(0, queries))[:, None]
    matched += image * rows * count
    row = attention + image * rows * count + query.to(tl.int64) * count
    highest = tl.full((queries, 1), float("-inf"), matched.dtype.element_ty)
    total = tl.zeros((queries, 1), matched.dtype.element_ty)
    for start in range(0, count, keys):
        key = (start + tl.arange(0, keys))[None, :]
        scores = _diagonal_sum(matched, query, key, query_cells, key_cells, rows, count, steps)
        scores *= tl.load(scale + image * count + key, mask=key < count, other=0.0)
        tl.store(row + key, scores, mask=(query < rows) & (key < count))
        scores = tl.where(key < count, scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, axis=1, keep_dims=True))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(scores - higher), axis=1, keep_dims=True)
        highest = higher
    tl.debug_barrier()  # below, a thread may read what another one has stored
    for start in range(0, count, keys):
        key = (start + tl.arange(0, keys))[None, :]
        inside = (query < rows) & (key < count)
        kept = tl.load(keep + image * count + key, mask=key < count, other=0.0)
        tl.store(row + key, tl.exp(tl.load(row + key, mask=inside, other=0.0) - highest) / total * kept, mask=inside)


@torch.library.custom_op("gicinpaint::triton_attention", mutates_args=())
def _attend(
    queries: Tensor, keys: Tensor, norm: Tensor, keep: Tensor, sizes: Sequence[int], softmax_scale: float
) -> tuple[Tensor, Tensor]:
    if queries.device.type == "cpu" and not triton.knobs.runtime.interpret:
        raise ValueError(
            "TritonAttention needs features on a GPU, got cpu; use attention=tiled, or set TRITON_INTERPRET=1"
        )
    *grids, patch_reach, reach = sizes
    matched = _summed(queries.mT @ keys, [patch_cells(grid, patch_reach, keys.device) for grid in _pairs(grids)])
    matched /= norm[:, None]
    tables = [wrapped_cells(grid, reach, keys.device) for grid in _pairs(grids)]
    attention, (batch, rows, count) = torch.empty_like(matched), matched.shape
    tile = len(tables[0]), QUERIES, KEYS
    # The factor is a tensor, because Triton takes plain numbers in float32.
    inputs = matched, keep, keep * softmax_scale, attention
    _attend_kernel[-(-rows // QUERIES), batch](*inputs, *tables, rows, count, *tile)
    return attention, matched


@_attend.register_fake
def _(queries, keys, norm, keep, sizes, softmax_scale):  # type: ignore[no-untyped-def]
    shape = queries.shape[0], queries.shape[2], keys.shape[2]
    return queries.new_empty(shape), queries.new_empty(shape)


@torch.library.custom_op("gicinpaint::triton_attention_gradient", mutates_args=())
def _attend_gradient(
    grad: Tensor,
    queries: Tensor,
    keys: Tensor,
    norm: Tensor,
    attention: Tensor,
    matched: Tensor,
    sizes: Sequence[int],
    softmax_scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    *grids, patch_reach, reach = sizes
    weighted = attention * grad
    scores = torch.addcmul(weighted, attention, weighted.sum(dim=-1, keepdim=True), value=-1).mul_(softmax_scale)
    # Sums along diagonals are their own transposes; only the order of the two propagations is the other one.
    scores = _summed(scores, [wrapped_cells(grid, reach, keys.device, columns_first=False) for grid in _pairs(grids)])
    scores /= norm[:, None]
    grad_norm = -(scores * matched).sum(dim=1)
    products = _summed(scores, [patch_cells(grid, patch_reach, keys.device) for grid in _pairs(grids)])
    return keys @ products.mT, queries @ products, grad_norm


@_attend_gradient.register_fake
def _(grad, queries, keys, norm, *rest):  # type: ignore[no-untyped-def]
    return tuple(x.new_empty(x.shape) for x in (queries, keys, norm))


def _pairs(grids: list[int]) -> list[list[int]]:
    return [grids[:2], grids[2:]]


def _summed(scores: Tensor, tables: list[Tensor]) -> Tensor:
    """Return the sums of score matrices, (B, queries, keys), over the pairs of cells that the tables name."""
    batch, rows, count = scores.shape
    sums, grid = scores.new_empty(scores.shape), (-(-rows // QUERIES), -(-count // KEYS), batch)
    _sum_kernel[grid](scores.contiguous(), sums, *tables, rows, count, len(tables[0]), QUERIES, KEYS)
    return sums


def _keep_inputs(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs[:3], *output)
    ctx.settings = inputs[4:]
    ctx.set_materialize_grads(False)


def _backward(ctx, grad, _):  # type: ignore[no-untyped-def]
    grads = (None,) * 3 if grad is None else _attend_gradient(grad, *ctx.saved_tensors, *ctx.settings)
    return *grads, None, None, None


def _refuse(ctx, *grads):  # type: ignore[no-untyped-def]
    raise RuntimeError(
        "TritonAttention has no second gradient, got a backward pass through its gradient; "
        "use FactorizedAttention where a penalty is put on gradients through the attention"
    )


_attend.register_autograd(_backward, setup_context=_keep_inputs)
_attend_gradient.register_autograd(_refuse)
