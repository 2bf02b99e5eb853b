"""Contextual attention in bounded memory: blocks of query rows, recomputed for the gradient. The default backend."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gicinpaint.attention.diagonals import Workspace, multiply, workspace
from gicinpaint.attention.matching import BlockMatcher, Rows
from gicinpaint.attention.pasting import BlockPaster, around_corners, corner_stride, from_corners
from gicinpaint.attention.scores import OVERLAP, SMALLEST_NORM, best_offset, key_norm, widened, without_autocast

BLOCK_NUMBERS = 2**21  # scores per block: 8 MB in float32, so that the few blocks in use stay in the cache
FEWEST_ROWS = 4  # the rows above and below that a block also matches would outweigh fewer
KEPT_NUMBERS = 2**24  # 64 MB in float32: up to there a batch keeps its blocks for the gradient
NEGLIGIBLE = 2.0**-80  # attention below this is set to 0: products of smaller numbers are denormal and slow


@dataclass(frozen=True)
class TiledAttention:
    """Attend block by block of query rows: the algebra of `FactorizedAttention` in bounded memory.

    A block holds the scores of a few rows of queries with all keys. The gradient recomputes the blocks, so only the
    inputs are kept for it; a second gradient is refused. Scores, softmax and sums are in float32 (float64 for float64
    inputs) whatever the inputs' type, also under autocast. Compilers see one operator.

    Args:
        block_rows: Rows of queries per block; None chooses them from the sizes so that a block fits the cache.
        fuse: Whether the sums of a block are compiled into one kernel per step (torch.compile): for accelerators,
            where they are bound by memory; the first call of each kind compiles for some seconds.

    Raises:
        ValueError: If block_rows is less than 1.

    Source:
        Yu et al. 2018, section 4.1; semantics of the released code, with a mask per image.
    """

    block_rows: int | None = None
    fuse: bool = False

    def __post_init__(self) -> None:
        if self.block_rows is not None and self.block_rows < 1:
            raise ValueError(f"block_rows must be at least 1, got {self.block_rows}; None chooses it from the sizes")

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
        output, offset, _ = _attend(
            foreground,
            background,
            valid,
            full_background,
            rate,
            patch_size,
            propagation_size if propagate else 1,
            softmax_scale,
            self.block_rows,
            self.fuse,
            return_offset,
            wanted,
        )
        return (output, offset) if return_offset else output


class _Images:
    """The blocks of a few images: what the two directions share."""

    def __init__(
        self,
        foreground: Tensor,
        background: Tensor,
        valid: Tensor,
        patch_size: int,
        propagation_size: int,
        softmax_scale: float,
        space: Workspace,
    ) -> None:
        self.norm = key_norm(background, patch_size)
        self.space = space
        self.matcher = BlockMatcher(
            foreground, background, softmax_scale / self.norm, patch_size, propagation_size, space
        )
        self.paster = BlockPaster(foreground.shape[-2:], background.shape[-2:], len(foreground), space)
        self.keep = valid.flatten(1).to(foreground.dtype)  # (B or 1, keys)

    def blocks(self, block_rows: int | None) -> Iterator[Rows]:
        """Yield the blocks of rows, from the first to the last."""
        matcher = self.matcher
        count = _rows_per_block(matcher.batch, matcher.height, matcher.width * matcher.key_count, block_rows)
        self.paster.start(count)
        for start in range(0, matcher.height, count):
            yield Rows(start, min(matcher.height, start + count))

    def attention(self, rows: Rows, kept: Tensor | None, matched_name: str) -> tuple[Tensor, Tensor]:
        """Return the attention of some rows before placing, and the matched scores it came from.

        Args:
            rows: Rows of queries.
            kept: Where to put both, or None for the workspace.
            matched_name: Piece of memory for matched scores; "second" if they need not outlive the softmax.
        """
        if kept is not None:
            matched_name = "kept"
            self.space.pieces["kept"] = kept[1].view(-1)
        scores, matched = self.matcher.scores(rows, matched_name)
        self.space.pieces.pop("kept", None)  # it is not the workspace's
        logits = torch.mul(scores, self.keep[:, None], out=self.space.take("second", *scores.shape))
        out = self.space.take("first", *scores.shape) if kept is None else kept[0]
        return torch.softmax(logits, dim=-1, out=out), matched

    def corners(self, name: str, features: Tensor, rate: int, factor: float = 1.0) -> Tensor:
        """Return `around_corners` of full-size features in the named piece of memory."""
        batch, c, h, w = features.shape
        out = self.space.take(name, batch, c * rate**2, corner_stride((h // rate, w // rate)))
        return around_corners(features, rate, out, factor)

    def softmax_gradient(self, attention: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of scaled scores, (B, rows * w, keys), from that of the attention, both as placed."""
        weighted = torch.mul(attention, grad, out=self.space.take("third", *grad.shape))
        total = weighted.sum(dim=-1).unflatten(1, (-1, self.paster.corner_width))[:, :, :-1, None, None]
        attention, weighted = self.paster.bare(attention), self.paster.bare(weighted)
        out = self.space.take("gradient", *weighted.shape)
        torch.addcmul(weighted, attention, total, value=-1, out=out)
        return out.flatten(3).flatten(1, 2)


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
    fuse: bool,
    return_offset: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, c, h, w = foreground.shape
    output = foreground.new_empty(batch, c, rate * h, rate * w)
    offset = foreground.new_empty((batch, 2, h, w) if return_offset else (0,), dtype=torch.int64)
    kept = widened(foreground[:0])[0].new_empty(_kept_shape(foreground, background, block_rows, keep))
    with without_autocast(foreground), workspace(widened(foreground[:0])[0], fuse) as space:
        for part in _image_groups(foreground, background, block_rows):
            f, b, values = widened(foreground[part], background[part], full_background[part])
            images = _Images(f, b, _of(valid, part), patch_size, propagation_size, softmax_scale, space)
            corners = images.corners("values", values, rate)
            sums = space.take("sums", len(f), corners.shape[1], corner_stride(f.shape[-2:]))
            for rows in images.blocks(block_rows):
                attention, _ = images.attention(rows, _of_kept(kept, part), "second")
                if return_offset:
                    offset[part, :, slice(*rows)] = best_offset(attention * images.keep[:, None], w, b.shape[-1])
                F.threshold(attention, NEGLIGIBLE, 0.0, inplace=True)
                images.paster.place(attention, images.keep, rows)
                completed, weights = images.paster.summed(rows)
                multiply(corners, weights.mT, sums[..., completed])
            from_corners(sums, rate, output[part], 1 / OVERLAP)
    return output, offset, kept


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
    fuse: bool,
    return_offset: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    b, c, h, w = foreground.shape
    kept_type = torch.promote_types(foreground.dtype, torch.float32)
    return (
        foreground.new_empty(b, c, rate * h, rate * w),
        foreground.new_empty((b, 2, h, w) if return_offset else (0,), dtype=torch.int64),
        foreground.new_empty(_kept_shape(foreground, background, block_rows, keep), dtype=kept_type),
    )


@torch.library.custom_op("gicinpaint::tiled_attention_gradient", mutates_args=())
def _attend_gradient(
    grad: Tensor,
    foreground: Tensor,
    background: Tensor,
    valid: Tensor,
    full_background: Tensor,
    kept: Tensor,
    rate: int,
    patch_size: int,
    propagation_size: int,
    softmax_scale: float,
    block_rows: int | None,
    fuse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    results = [
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (foreground, background, full_background)
    ]
    with without_autocast(foreground), workspace(widened(foreground[:0])[0], fuse) as space:
        for part in _image_groups(foreground, background, block_rows):
            f, b, values, g = widened(foreground[part], background[part], full_background[part], grad[part])
            images = _Images(f, b, _of(valid, part), patch_size, propagation_size, softmax_scale, space)
            matcher, paster = images.matcher, images.paster
            corners = images.corners("values", values, rate)
            sums = images.corners("sums", g, rate, 1 / OVERLAP)
            grad_corners = space.take("corners", *corners.shape).zero_()
            matcher.start_gradient()
            for rows in images.blocks(block_rows):
                recalled = _of_kept(kept, part)
                if recalled is None:
                    attention, matched = images.attention(rows, None, "matched")
                    F.threshold(attention, NEGLIGIBLE, 0.0, inplace=True)
                else:
                    attention, matched = recalled.unbind(0)
                attention = paster.place(attention, images.keep, rows)
                completed, weights = paster.summed(rows)
                multiply(sums[..., completed], weights, grad_corners, accumulate=True)
                grad_attention = paster.attention_gradient(sums, corners, rows, "gradient")
                matcher.add_gradient(rows, images.softmax_gradient(attention, grad_attention), matched, "matched")
            grad_f, grad_b, grad_log_norm = matcher.gradients()
            results[0][part] = grad_f
            results[1][part] = grad_b + _norm_gradient(b, images.norm, grad_log_norm, patch_size)
            from_corners(grad_corners, rate, results[2][part])
    return results[0], results[1], results[2]


@_attend_gradient.register_fake
def _(
    grad: Tensor, foreground: Tensor, background: Tensor, valid: Tensor, full_background: Tensor, *settings: object
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = foreground.shape, background.shape, full_background.shape
    return tuple(foreground.new_empty(shape) for shape in shapes)  # type: ignore[return-value]


def _keep_inputs(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs[:4], output[2])
    ctx.settings = inputs[4:-2]
    ctx.set_materialize_grads(False)  # no zeros for what was kept


def _backward(ctx, grad, *_):  # type: ignore[no-untyped-def]
    if grad is None:
        return (None,) * 12
    grads = _attend_gradient(grad, *ctx.saved_tensors, *ctx.settings)
    return grads[0], grads[1], None, grads[2], *[None] * 8


def _refuse(ctx, *grads):  # type: ignore[no-untyped-def]
    raise RuntimeError(
        "TiledAttention has no second gradient, got a backward pass through its gradient; "
        "use FactorizedAttention where a penalty is put on gradients through the attention"
    )


_attend.register_autograd(_backward, setup_context=_keep_inputs)
_attend_gradient.register_autograd(_refuse)


def _norm_gradient(background: Tensor, norm: Tensor, grad_log_norm: Tensor, patch_size: int) -> Tensor:
    """Return the background's gradient through the norms; a norm at its floor is constant."""
    grad_energy = torch.where(norm > SMALLEST_NORM, grad_log_norm / norm.square(), 0)[:, None]  # twice, as is its cell
    spread = F.avg_pool2d(grad_energy, patch_size, stride=1, padding=patch_size // 2) * patch_size**2
    return background * spread


def _rows_per_block(batch: int, height: int, row_numbers: int, block_rows: int | None) -> int:
    """Return the rows of queries per block; row_numbers is the count of scores of one row."""
    return min(height, block_rows or max(FEWEST_ROWS, BLOCK_NUMBERS // (batch * row_numbers)))


def _image_groups(foreground: Tensor, background: Tensor, block_rows: int | None) -> list[slice]:
    """Return which images are walked together: one on a CPU, as many as fill a large block on an accelerator."""
    (batch, _, h, w), keys = foreground.shape, background.shape[-2] * background.shape[-1]
    group = 1
    if foreground.device.type != "cpu":
        group = max(1, BLOCK_NUMBERS // (w * keys * min(h, block_rows or h)))
    return [slice(i, min(batch, i + group)) for i in range(0, batch, group)]


def _kept_shape(foreground: Tensor, background: Tensor, block_rows: int | None, keep: bool) -> tuple[int, ...]:
    """Return the shape of what the forward pass keeps: attention and matched scores, if they are small."""
    (batch, _, h, w), keys = foreground.shape, background.shape[-2] * background.shape[-1]
    small = 2 * batch * h * w * keys <= KEPT_NUMBERS and _rows_per_block(1, h, w * keys, block_rows) == h
    return (2, batch, h * w, keys) if keep and small else (0,)


def _of_kept(kept: Tensor, part: slice) -> Tensor | None:
    return kept[:, part] if kept.numel() else None


def _of(valid: Tensor, part: slice) -> Tensor:
    return valid if len(valid) == 1 else valid[part]
