"""How queries are cut into blocks, what the blocks of a call share, and its memory."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gicinpaint.attention.reference import SMALLEST_NORM, key_norm

KEPT_BYTES = 2**27  # 128 MB: the blocks of a 512x512 image with their gradients
BLOCK_NUMBERS = 3 * 2**19  # scores per block: 6 MB in float32, so that the few blocks in use stay in the cache
FEWEST_ROWS = 4  # the rows that a block hands on to the next one would outweigh fewer
WIDEST = 128  # columns: wider grids are walked in strips, so that a block's memory is linear in the keys
NARROWER = 64  # columns of such strips
MOST_NUMBERS = 2**24  # scores per block of the fewest rows, 64 MB in float32: with more keys strips are narrower still
FEWEST_COLUMNS = 16  # the columns around a narrower strip would outweigh its own
KEPT_NUMBERS = 2**24  # 64 MB in float32: up to there a batch keeps its blocks for the gradient
_spare: dict[torch.dtype, Tensor] = {}


class Settings(NamedTuple):
    """What the operators need to know besides tensors, as plain integers: 0 rows or columns are chosen from sizes."""

    rate: int
    patch_size: int
    propagation_size: int
    block_rows: int
    block_columns: int
    compile: int


class Tiles(NamedTuple):
    """How the queries of an image are cut: most rows of a block, and strips of columns that are walked downwards."""

    rows: int
    columns: list[range]

    @classmethod
    def of(cls, foreground: Tensor, background: Tensor, settings: Settings, batch: int = 1) -> "Tiles":
        """Return what was asked for, or what suits the sizes of that many images: few whole rows, or parts of them."""
        (h, w), keys = foreground.shape[-2:], background.shape[-2] * background.shape[-1]
        most = max(FEWEST_COLUMNS, MOST_NUMBERS // (FEWEST_ROWS * batch * keys))
        strips = -(-w // (settings.block_columns or min(w if w <= WIDEST else NARROWER, most)))
        columns = [range(i * w // strips, (i + 1) * w // strips) for i in range(strips)]
        rows = settings.block_rows or max(FEWEST_ROWS, BLOCK_NUMBERS // (batch * len(columns[-1]) * keys))
        return cls(min(h, rows), columns)


class Kept(NamedTuple):
    """What the forward pass of a small batch keeps for the gradient; both empty for a large one.

    Two tensors, because the C library returns a single large one to the system and then pays for fresh pages.
    """

    attention: Tensor  # before it is placed, (B, h * w, keys)
    matched: Tensor  # matched scores, (B, h, w, keys)

    @classmethod
    def like(cls, foreground: Tensor, background: Tensor, tiles: Tiles, keep: bool) -> "Kept":
        """Return memory for a batch, or empty tensors if nothing is to be kept or it is too much."""
        (batch, _, h, w), keys = foreground.shape, background.shape[-2] * background.shape[-1]
        small = 2 * batch * h * w * keys <= KEPT_NUMBERS and tiles.rows == h and len(tiles.columns) == 1
        batch = batch if keep and small else 0
        dtype = torch.promote_types(foreground.dtype, torch.float32)
        shapes = (batch, h * w, keys), (batch, h, w, keys)
        return cls(*(foreground.new_empty(shape, dtype=dtype) for shape in shapes))

    def of(self, part: slice) -> "Kept | None":
        """Return what belongs to some images, or None if nothing was kept."""
        return Kept(self.attention[part], self.matched[part]) if self.attention.numel() else None


def image_groups(foreground: Tensor, background: Tensor, settings: Settings) -> list[slice]:
    """Return which images are walked together: one on a CPU, as many as fill a large block on an accelerator."""
    (batch, _, h, w), keys = foreground.shape, background.shape[-2] * background.shape[-1]
    group = 1
    if foreground.device.type != "cpu":
        group = max(1, BLOCK_NUMBERS // (w * keys * min(h, settings.block_rows or h)))
    return [slice(i, min(batch, i + group)) for i in range(0, batch, group)]


class FeatureGradients(NamedTuple):
    """Where the gradients of what blocks are matched with are collected."""

    queries: Tensor  # of the foreground, (B, C, h, w)
    keys: Tensor  # of the background with its empty columns, (B, C, padded_count)
    log_norm: Tensor  # of the logarithm of the norms, (B, keys)


class Keys:
    """What the queries of a few images are matched with: background (B, C, hb, wb), valid bool (B or 1, hb, wb)."""

    def __init__(
        self, background: Tensor, valid: Tensor, patch_size: int, propagation_size: int, softmax_scale: float
    ) -> None:
        self.height, self.width = background.shape[-2:]
        self.count = self.height * self.width
        self.patch_size, self.reach, self.spread = patch_size, patch_size // 2, propagation_size // 2
        # Empty columns at the right end keep a step along a row from meeting the next row, so sums run over long
        # stretches.
        self.features = F.pad(background, (0, self.reach)).flatten(2)  # (B, C, padded_count)
        self.padded_width = self.width + self.reach
        self.padded_count = self.height * self.padded_width
        self.norm = key_norm(background, patch_size)  # (B, hb, wb)
        self.factor = (softmax_scale / self.norm)[:, None, None]
        self.keep = valid.flatten(1).to(background.dtype)  # (B or 1, keys)
        # Sums along rows have the rows that propagation wraps to above and below the grid.
        self.tall_height = self.height + 2 * self.spread
        self.tall_count = self.tall_height * self.width

    def bare(self, padded: Tensor, columns: int) -> Tensor:
        """Return (B, rows, cells, padded_count) without the empty columns of both grids: (B, rows, columns, hb, wb)."""
        return padded.unflatten(-1, (self.height, self.padded_width))[:, :, :columns, :, : self.width]

    def feature_gradient(self, background: Tensor, totals: FeatureGradients) -> Tensor:
        """Return the background's gradient; a norm at its floor is constant."""
        log_norm, grad = totals.log_norm.unflatten(1, (self.height, self.width)), totals.keys
        energy = torch.where(self.norm > SMALLEST_NORM, log_norm / self.norm.square(), 0)[:, None]  # of its half
        spread = F.avg_pool2d(energy, self.patch_size, stride=1, padding=self.reach) * self.patch_size**2
        return grad.unflatten(2, (-1, self.padded_width))[..., : self.width] + background * spread


class Arena:
    """Memory that is handed out buffer by buffer; setting `used` back frees what was taken since."""

    def __init__(self, like: Tensor, memory: Tensor) -> None:
        self.like, self.memory, self.used, self.wanted = like, memory, 0, 0

    def take(self, *shape: int) -> Tensor:
        """Return memory for one more buffer; its values are arbitrary."""
        start, count = self.used, math.prod(shape)
        self.used += aligned(count)
        self.wanted = max(self.wanted, self.used)
        if self.used > self.memory.numel():
            return self.like.new_empty(shape)
        return self.memory[start : start + count].view(shape)


@contextmanager
def lend_arena(like: Tensor) -> Iterator[Arena]:
    """Lend memory for the buffers of one call, with the device and type of a tensor.

    On a CPU a small one is kept for the next call, because touching fresh pages takes a fifth of the time of a small
    image; accelerators keep freed memory themselves.
    """
    on_cpu = like.device.type == "cpu"
    memory = _spare.pop(like.dtype, None) if on_cpu else None  # taken out: a nested call or a thread makes its own
    arena = Arena(like, like.new_empty(0) if memory is None else memory)
    yield arena
    if on_cpu and arena.wanted * like.itemsize <= KEPT_BYTES:
        memory, short = arena.memory, arena.wanted > arena.memory.numel()
        with torch.inference_mode(False):  # what an inference call leaves must serve a training call
            _spare[like.dtype] = torch.empty(arena.wanted, dtype=like.dtype) if short else memory


def aligned(count: int) -> int:
    """Return a count rounded up: matrix products like rows that start at such multiples."""
    return -(-count // 16) * 16


def shaped(buffer: Tensor, *shape: int) -> Tensor:
    """Return the first numbers of a flat buffer in a shape."""
    return buffer[: math.prod(shape)].view(shape)


class Scratch(NamedTuple):
    """Flat buffers that every step of a block overwrites; the last two are empty without gradients."""

    first: Tensor  # sums along one axis, attention before it is placed, gradients of products
    second: Tensor  # sums along both axes, scores
    third: Tensor  # products of attention, or of scores, with their gradients
    grad: Tensor  # gradients of attention and scores


class Walk(NamedTuple):
    """What all steps of a walk over blocks of rows share."""

    keys: Keys
    arena: Arena
    scratch: Scratch
    rows: int  # of a block at most
    compile: bool


class RowWindow:
    """Memory, (B, rows, cells per row, keys), for some rows of a walk downwards; what two steps share stays there."""

    def __init__(self, memory: Tensor) -> None:
        self.memory, self.rows = memory, range(0)

    def advance(self, rows: range) -> range:
        """Hold some rows, which begin and end no earlier than those held before; return which of them are missing."""
        last, self.rows = self.rows, rows
        if len(last) == 0 or last.stop <= rows.start:
            return rows
        if rows.start > last.start:
            for row in range(rows.start, last.stop):  # one by one, because source and target may overlap
                self.memory[:, row - rows.start] = self.memory[:, row - last.start]
        return range(last.stop, rows.stop)

    def part(self, rows: range) -> Tensor:
        """Return the memory of some of the rows: (B, rows, cells per row, keys)."""
        return self.memory[:, rows.start - self.rows.start : rows.stop - self.rows.start]

    @property
    def held(self) -> Tensor:
        """The memory of all rows held."""
        return self.part(self.rows)


def widened_rows(rows: range, count: int, height: int) -> range:
    """Return more rows at both ends, as far as the grid goes."""
    return range(max(0, rows.start - count), min(height, rows.stop + count))


def multiply(left: Tensor, right: Tensor, out: Tensor, accumulate: bool = False) -> None:
    """Write, or add, the matrix products of batches to out, (B, P, K) by (B, K, Q); one image goes the short way."""
    if len(out) == 1:
        torch.addmm(out[0], left[0], right[0], beta=int(accumulate), out=out[0])
    else:
        torch.baddbmm(out, left, right, beta=int(accumulate), out=out)


def add_diagonal(source: Tensor, out: Tensor, reach: int, query_step: int, key_step: int, first: int = 0) -> Tensor:
    """Write the sum over d = -reach..reach of source at (query + d * query_step, key + d * key_step); 0 outside.

    Source is (B, queries, keys); out, other memory, gets the sums of some queries from the first wanted one on.
    """
    wanted, keys = out.shape[1:]
    here, filled = source[:, first : first + wanted], False
    for d in sorted(range(-reach, reach + 1), key=lambda d: (d != 1, d != 0, abs(d))):  # 1, 0, -1, -2, 2, ...
        if d == 0:
            if not filled:
                out.copy_(here)
            continue
        down, right = first + d * query_step, d * key_step
        low, high = max(0, -down), min(wanted, source.shape[1] - down)
        left, end = max(0, -right), keys - max(0, right)
        if low >= high or left >= end:
            continue
        shifted = source[:, low + down : high + down, left + right : end + right]
        base = out if d != 1 else here
        torch.add(base[:, low:high, left:end], shifted, out=out[:, low:high, left:end])
        if d == 1:  # both shifts are ahead, so low and left are 0; the rest has no term and is copied
            out[:, high:], out[:, :high, end:], filled = here[:, high:], here[:, :high, end:], True
    return out


def scratch_for(
    arena: Arena, foreground: Tensor, columns: int, keys: Keys, most: int, corners: int, backward: bool
) -> Scratch:
    """Take buffers for blocks of `most` rows and `columns` wanted columns, with `corners` corners of the key grid."""
    batch, _, height, width = foreground.shape
    shared = most + keys.spread - (-keys.spread // width)
    padded = min(height, shared + keys.reach) * (width + keys.reach) * keys.padded_count
    placed = (most + 2) * (columns + 1) * corners
    first = max(padded, (most + 2 * keys.spread) * width * keys.tall_count, placed)
    second = max(padded, min(height, shared) * width * keys.count, placed)
    third, grad = (max(padded, second), most * (columns + 1) * corners) if backward else (0, 0)
    return Scratch(*(arena.take(batch * size) for size in (first, second, third, grad)))
