"""Contextual attention in bounded memory: blocks of query rows, recomputed for the gradient. The default backend."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gicinpaint.attention.corners import corner_grid, corner_stride, from_corners
from gicinpaint.attention.diagonals import multiply, workspace
from gicinpaint.attention.image_blocks import (
    NEGLIGIBLE,
    ImageBlocks,
    Kept,
    Tiles,
    image_groups,
    norm_gradient,
    valid_of,
)
from gicinpaint.attention.matching_gradient import MatchingGradient, StripGradient
from gicinpaint.attention.scores import OVERLAP, best_offset, widened, without_autocast


@dataclass(frozen=True)
class TiledAttention:
    """Attend block by block of query rows: the algebra of `FactorizedAttention` in bounded memory.

    A block holds the scores of a few rows of queries, or of parts of rows, with all keys; so memory is linear in the
    pixels. The gradient recomputes the blocks, so only the inputs are kept for it (a batch whose scores take no more
    than 64 MB keeps them); a second gradient is refused.
    Scores, softmax and sums are in float32 (float64 for float64 inputs) whatever the inputs' type, also under
    autocast. Compilers see one operator.

    Args:
        block_rows: Rows of queries per block; None chooses them from the sizes so that a block fits the cache.
        block_columns: Columns of queries per block; None takes all of them, or strips of a grid that is wider than 128.
        fuse: Whether the sums of a block are compiled into one kernel per step (torch.compile): for accelerators,
            where they are bound by memory; the first call of each kind compiles for some seconds.

    Raises:
        ValueError: If block_rows or block_columns is less than 1.

    Source:
        Yu et al. 2018, section 4.1; semantics of the released code, with a mask per image.
    """

    block_rows: int | None = None
    block_columns: int | None = None
    fuse: bool = False

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
        output, offset, *_ = _attend(
            foreground,
            background,
            valid,
            full_background,
            rate,
            patch_size,
            propagation_size if propagate else 1,
            softmax_scale,
            self.block_rows,
            self.block_columns,
            self.fuse,
            return_offset,
            wanted,
        )
        return (output, offset) if return_offset else output


@torch.library.custom_op("gicinpaint::tiled_attention", mutates_args=())
def _attend(
    foreground: Tensor,
    background: Tensor,
    valid: Tensor,
    full_background: Tensor,
    rate: int,
    patch_size: int,
    propagation_size: int,
    softmax_scale: float,
    block_rows: int | None,
    block_columns: int | None,
    fuse: bool,
    return_offset: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, c, h, w = foreground.shape
    output = foreground.new_empty(batch, c, rate * h, rate * w)
    offset = foreground.new_empty((batch, 2, h, w) if return_offset else (0,), dtype=torch.int64)
    kept = Kept.like(foreground, background, Tiles.of(foreground, background, block_rows, block_columns), keep)
    with without_autocast(foreground), workspace(widened(foreground[:0])[0], fuse) as space:
        for part in image_groups(foreground, background, block_rows):
            f, b, values = widened(foreground[part], background[part], full_background[part])
            images = ImageBlocks(f, b, valid_of(valid, part), patch_size, propagation_size, softmax_scale, space)
            values = images.values(values, rate)
            sums = space.take("sums", len(f), values.shape[1], corner_stride((h, w))).zero_()
            recalled = kept.of(part)
            for strip in images.strips(Tiles.of(f, b, block_rows, block_columns, len(f)), recalled):
                corners = strip.corners(sums)
                for rows in strip.blocks():
                    attention = strip.attention(rows, recalled)
                    if return_offset:
                        best = best_offset(attention * images.keep[:, None], strip.columns.size, b.shape[-1])
                        offset[part, :, slice(*rows), slice(*strip.columns)] = best
                    F.threshold(attention, NEGLIGIBLE, 0.0, inplace=True)
                    strip.paster.place(attention, images.keep, rows)
                    completed, weights = strip.paster.summed(rows)
                    multiply(values, weights.mT, corners[..., completed])
                if not strip.whole:
                    strip.corner_columns(sums).add_(corner_grid(corners, strip.grid))
            from_corners(sums, rate, output[part], 1 / OVERLAP)
    return output, offset, *kept


@_attend.register_fake
def _(
    foreground: Tensor,
    background: Tensor,
    valid: Tensor,
    full_background: Tensor,
    rate: int,
    patch_size: int,
    propagation_size: int,
    softmax_scale: float,
    block_rows: int | None,
    block_columns: int | None,
    fuse: bool,
    return_offset: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    b, c, h, w = foreground.shape
    return (
        foreground.new_empty(b, c, rate * h, rate * w),
        foreground.new_empty((b, 2, h, w) if return_offset else (0,), dtype=torch.int64),
        *Kept.like(foreground, background, Tiles.of(foreground, background, block_rows, block_columns), keep),
    )


@torch.library.custom_op("gicinpaint::tiled_attention_gradient", mutates_args=())
def _attend_gradient(
    grad: Tensor,
    foreground: Tensor,
    background: Tensor,
    valid: Tensor,
    full_background: Tensor,
    kept_attention: Tensor,
    kept_matched: Tensor,
    rate: int,
    patch_size: int,
    propagation_size: int,
    softmax_scale: float,
    block_rows: int | None,
    block_columns: int | None,
    fuse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    results = [
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (foreground, background, full_background)
    ]
    with without_autocast(foreground), workspace(widened(foreground[:0])[0], fuse) as space:
        for part in image_groups(foreground, background, block_rows):
            f, b, values, g = widened(foreground[part], background[part], full_background[part], grad[part])
            images = ImageBlocks(f, b, valid_of(valid, part), patch_size, propagation_size, softmax_scale, space)
            values = images.values(values, rate)
            sums = images.corners("sums", g, rate, 1 / OVERLAP)
            grad_values = space.take("grad values", *values.shape).zero_()
            matched = MatchingGradient(images.matching)
            recalled = Kept(kept_attention, kept_matched).of(part)
            for strip in images.strips(Tiles.of(f, b, block_rows, block_columns, len(f)), recalled):
                gradient = StripGradient(strip.matcher, matched, strip.block_rows)
                corners = strip.corners(sums, copy=True)
                for rows in strip.blocks():
                    attention = strip.recall(rows, recalled)
                    attention = strip.paster.place(attention, images.keep, rows)
                    completed, weights = strip.paster.summed(rows)
                    multiply(corners[..., completed], weights, grad_values, accumulate=True)
                    grad_attention = strip.paster.attention_gradient(corners, values, rows, "gradient")
                    gradient.add(rows, strip.softmax_gradient(attention, grad_attention))
            grad_f, grad_b, grad_log_norm = matched.results()
            grad_corners = images.used.expand(grad_values, "first")
            results[0][part] = grad_f
            results[1][part] = grad_b + norm_gradient(b, images.norm, grad_log_norm, patch_size)
            from_corners(grad_corners, rate, results[2][part])
    return results[0], results[1], results[2]


@_attend_gradient.register_fake
def _(
    grad: Tensor, foreground: Tensor, background: Tensor, valid: Tensor, full_background: Tensor, *settings: object
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = foreground.shape, background.shape, full_background.shape
    return tuple(foreground.new_empty(shape) for shape in shapes)  # type: ignore[return-value]


def _keep_inputs(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs[:4], *output[2:])
    ctx.settings = inputs[4:-2]
    ctx.set_materialize_grads(False)  # no zeros for what was kept


def _backward(ctx, grad, *_):  # type: ignore[no-untyped-def]
    if grad is None:
        return (None,) * 13
    grads = _attend_gradient(grad, *ctx.saved_tensors, *ctx.settings)
    return grads[0], grads[1], None, grads[2], *[None] * 9


def _refuse(ctx, *grads):  # type: ignore[no-untyped-def]
    raise RuntimeError(
        "TiledAttention has no second gradient, got a backward pass through its gradient; "
        "use FactorizedAttention where a penalty is put on gradients through the attention"
    )


_attend.register_autograd(_backward, setup_context=_keep_inputs)
_attend_gradient.register_autograd(_refuse)
