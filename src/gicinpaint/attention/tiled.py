"""Contextual attention in bounded memory: blocks of query rows, recomputed for the gradient. The default backend."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gicinpaint.attention.overlap_add import Images, OverlapAdd, corner_count, corner_grid, from_corners
from gicinpaint.attention.reference import OVERLAP, best_offset, widened, with_halo, without_autocast
from gicinpaint.attention.tiled_blocks import (
    FeatureGradients,
    Kept,
    Settings,
    Tiles,
    Walk,
    image_groups,
    lend_arena,
    multiply,
    scratch_for,
    shaped,
)
from gicinpaint.attention.tiled_scores import BlockScores, ScoresGradient

NEGLIGIBLE = 2.0**-80  # attention below this is set to 0: products of smaller numbers are denormal and slow


@dataclass(frozen=True)
class TiledAttention:
    """Attend block by block of query rows: the algebra of `FactorizedAttention` in bounded memory.

    A block holds the scores of a few rows of queries, or of parts of rows, with all keys; so memory is linear in the
    pixels. The gradient recomputes the blocks, so only the inputs are kept for it (a batch whose scores take no more
    than 64 MB keeps them); a second gradient is refused. Scores, softmax and sums are in float32 (float64 for float64
    inputs) whatever the inputs' type, also under autocast. Compilers see one operator.

    Args:
        block_rows: Rows of queries per block; None chooses them from the sizes so that a block fits the cache.
        block_columns: Columns of queries per block; None takes all of them, or strips of a grid that is wider than 128.
        compile: Whether the sums of a block are compiled into one kernel per step (torch.compile): for accelerators,
            where they are bound by memory; the first call of each kind compiles for some seconds.

    Raises:
        ValueError: If block_rows or block_columns is less than 1.

    Source:
        Yu et al. 2018, section 4.1; semantics of the released code, with a mask per image.
    """

    block_rows: int | None = None
    block_columns: int | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        for name, count in (("block_rows", self.block_rows), ("block_columns", self.block_columns)):
            if count is not None and count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}; None chooses it from the sizes")

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
        wanted = torch.is_grad_enabled() and any(x.requires_grad for x in (foreground, background, full_background))
        blocks = self.block_rows or 0, self.block_columns or 0, int(self.compile)
        sizes = Settings(rate, patch_size, propagation_size if propagate else 1, *blocks)
        inputs = foreground, background, valid, full_background
        output, offset, *_ = _attend(*inputs, sizes, softmax_scale, return_offset, wanted)
        return (output, offset) if return_offset else output


class Strip:
    """Some columns of the queries, walked in blocks of rows: what the two directions share."""

    def __init__(self, images: Images, tiles: Tiles, columns: range, kept: Kept | None, backward: bool = False) -> None:
        foreground, keys, arena = images.foreground, images.keys, images.arena
        batch, _, h, self.full_width = foreground.shape
        self.columns, self.arena, self.kept, self.rows = columns, arena, kept, tiles.rows
        self.grid, self.whole = (h, len(columns)), len(columns) == self.full_width
        # Scores need the columns around, which patches and propagation reach.
        self.sources = with_halo(columns, keys.reach + keys.spread + -(-keys.spread // h), self.full_width)
        inner = slice(None)
        if not self.whole:
            first = self.sources.index(columns.start)
            foreground, inner = foreground[..., self.sources], slice(first, first + len(columns))
        self.scratch = scratch_for(arena, foreground, len(columns), keys, tiles.rows, images.used.every, backward)
        walk = Walk(keys, arena, self.scratch, tiles.rows, images.compile)
        self.adder = OverlapAdd(batch, self.grid, walk, images.used)
        self.scores = BlockScores(foreground, walk, inner, kept.matched if kept else None)

    def blocks(self) -> Iterator[range]:
        """Yield the blocks of rows, from the first to the last."""
        for start in range(0, self.grid[0], self.rows):
            yield range(start, min(self.grid[0], start + self.rows))

    def attention(self, rows: range) -> Tensor:
        """Return the attention of some rows before it is placed, where it is kept or in the buffer `first`."""
        scores = self.scores.scores(rows)
        out = shaped(self.scratch.first, *scores.shape) if self.kept is None else self.kept.attention
        return torch.softmax(scores, dim=-1, out=out)

    def recall(self, rows: range) -> Tensor:
        """Return the attention of some rows, negligible numbers as 0: what is kept, or computed again."""
        if self.kept is not None:
            self.scores.matched.advance(rows)  # it lies there since the forward pass
            return self.kept.attention
        return F.threshold(self.attention(rows), NEGLIGIBLE, 0.0, inplace=True)

    def corner_columns(self, corners: Tensor) -> Tensor:
        """Return the view of this strip's corners in those of the whole grid: (B, numbers, h + 1, columns + 1)."""
        grid = corner_grid(corners, (self.grid[0], self.full_width))
        return grid[..., self.columns.start : self.columns.stop + 1]

    def corners(self, full: Tensor, copy: bool = False) -> Tensor:
        """Return memory for this strip's corners, with its numbers on request; that of all if it has all columns."""
        if self.whole:
            return full
        corners = self.arena.take(*full.shape[:2], corner_count(self.grid))
        if copy:
            corner_grid(corners, self.grid).copy_(self.corner_columns(full))
        return corners


@torch.library.custom_op("gicinpaint::tiled_attention", mutates_args=())
def _attend(
    foreground: Tensor,
    background: Tensor,
    valid: Tensor,
    full_background: Tensor,
    sizes: Sequence[int],
    softmax_scale: float,
    return_offset: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    results = _empty_results(foreground, background, sizes, return_offset, keep)
    (output, offset), kept, settings = results[:2], Kept(*results[2:]), Settings(*sizes)
    with without_autocast(foreground), lend_arena(widened(foreground[:0])[0]) as arena:
        for part in image_groups(foreground, background, settings):
            f, b, values = widened(foreground[part], background[part], full_background[part])
            images = Images(f, b, valid if len(valid) == 1 else valid[part], values, settings, softmax_scale, arena)
            sums = arena.take(*images.values.shape[:2], corner_count(f.shape[-2:])).zero_()
            mark, recalled, keys = arena.used, kept.of(part), images.keys
            tiles = Tiles.of(f, b, settings, len(f))
            for columns in tiles.columns:
                arena.used = mark
                strip = Strip(images, tiles, columns, recalled)
                corners = strip.corners(sums)
                for rows in strip.blocks():
                    attention = strip.attention(rows)
                    if return_offset:
                        best = best_offset(attention * keys.keep[:, None], len(columns), keys.width)
                        offset[part, :, rows.start : rows.stop, columns.start : columns.stop] = best
                    F.threshold(attention, NEGLIGIBLE, 0.0, inplace=True)
                    strip.adder.place(attention, rows)
                    completed, weights = strip.adder.summed(rows)
                    multiply(images.values, weights.mT, corners[..., completed])
                if not strip.whole:
                    strip.corner_columns(sums).add_(corner_grid(corners, strip.grid))
                del strip, corners, attention, weights  # before the next strip takes as much memory
            from_corners(sums, settings.rate, output[part], 1 / OVERLAP)
    return results


def _empty_results(
    foreground: Tensor, background: Tensor, sizes: Sequence[int], return_offset: bool, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (b, c, h, w), settings = foreground.shape, Settings(*sizes)
    kept = Kept.like(foreground, background, Tiles.of(foreground, background, settings), keep)
    offset = foreground.new_empty((b, 2, h, w) if return_offset else (0,), dtype=torch.int64)
    return foreground.new_empty(b, c, settings.rate * h, settings.rate * w), offset, *kept


@_attend.register_fake
def _(foreground, background, valid, full_background, sizes, softmax_scale, return_offset, keep):  # type: ignore[no-untyped-def]
    return _empty_results(foreground, background, sizes, return_offset, keep)


@torch.library.custom_op("gicinpaint::tiled_attention_gradient", mutates_args=())
def _attend_gradient(
    grad: Tensor,
    foreground: Tensor,
    background: Tensor,
    valid: Tensor,
    full_background: Tensor,
    kept_attention: Tensor,
    kept_matched: Tensor,
    sizes: Sequence[int],
    softmax_scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_f, grad_b, grad_values = (
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (foreground, background, full_background)
    )
    settings, kept = Settings(*sizes), Kept(kept_attention, kept_matched)
    with without_autocast(foreground), lend_arena(widened(foreground[:0])[0]) as arena:
        for part in image_groups(foreground, background, settings):
            f, b, values, g = widened(foreground[part], background[part], full_background[part], grad[part])
            images = Images(f, b, valid if len(valid) == 1 else valid[part], values, settings, softmax_scale, arena)
            sums, value_sums = images.squares(g, 1 / OVERLAP), arena.take(*images.values.shape).zero_()
            totals = FeatureGradients(
                *(torch.zeros_like(x) for x in (f, images.keys.features, images.keys.norm.flatten(1)))
            )
            mark, recalled = arena.used, kept.of(part)
            tiles = Tiles.of(f, b, settings, len(f))
            for columns in tiles.columns:
                arena.used = mark
                strip = Strip(images, tiles, columns, recalled, backward=True)
                corners = strip.corners(sums, copy=True)
                queries = totals.queries if strip.whole else torch.zeros_like(strip.scores.foreground)
                gradient = ScoresGradient(strip.scores, totals._replace(queries=queries))
                for rows in strip.blocks():
                    attention = strip.adder.place(strip.recall(rows), rows)
                    completed, weights = strip.adder.summed(rows)
                    multiply(corners[..., completed], weights, value_sums, accumulate=True)
                    grad_attention = strip.adder.attention_gradient(corners, images.values, rows)
                    gradient.add(rows, strip.adder.softmax_gradient(attention, grad_attention))
                gradient.finish()
                if not strip.whole:
                    totals.queries[..., strip.sources] += queries
                del strip, corners, queries, gradient, attention, weights, grad_attention
            arena.used = mark
            squares = arena.take(value_sums.shape[0] * value_sums.shape[1] * images.used.every)
            grad_f[part], grad_b[part] = totals.queries, images.keys.feature_gradient(b, totals)
            from_corners(images.used.expand(value_sums, squares), settings.rate, grad_values[part])
    return grad_f, grad_b, grad_values


@_attend_gradient.register_fake
def _(grad, foreground, background, valid, full_background, *settings):  # type: ignore[no-untyped-def]
    return tuple(x.new_empty(x.shape) for x in (foreground, background, full_background))


def _keep_inputs(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs[:4], *output[2:])
    ctx.settings = inputs[4:6]
    ctx.set_materialize_grads(False)  # no zeros for what was kept


def _backward(ctx, grad, *_):  # type: ignore[no-untyped-def]
    if grad is None:
        return (None,) * 8
    grads = _attend_gradient(grad, *ctx.saved_tensors, *ctx.settings)
    return grads[0], grads[1], None, grads[2], *[None] * 4


def _refuse(ctx, *grads):  # type: ignore[no-untyped-def]
    raise RuntimeError(
        "TiledAttention has no second gradient, got a backward pass through its gradient; "
        "use FactorizedAttention where a penalty is put on gradients through the attention"
    )


_attend.register_autograd(_backward, setup_context=_keep_inputs)
_attend_gradient.register_autograd(_refuse)
