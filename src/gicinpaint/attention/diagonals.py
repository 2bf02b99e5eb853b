"""Sums along diagonals of score blocks, written into memory that is used again."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

KEPT_BYTES = 2**27  # 128 MB: the blocks of a 512x512 image with their gradients
_kept = threading.local()


class Workspace:
    """Named pieces of memory that keep their place from block to block: fresh pages cost more than the sums.

    Get one with `workspace`.

    Args:
        like: Tensor whose device and type the memory gets.
        fuse: Whether blocks in it are summed by compiled functions.
    """

    def __init__(self, like: Tensor, fuse: bool = False) -> None:
        self.like = like.new_empty(0)
        self.fuse = fuse
        self.pieces: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """Return the named piece in a shape; its values are whatever was written there last."""
        count = math.prod(shape)
        if name not in self.pieces or self.pieces[name].numel() < count:
            with torch.inference_mode(False):  # a kept piece must serve a training call after an inference call
                self.pieces[name] = torch.empty(count, dtype=self.like.dtype, device=self.like.device)
        return self.pieces[name][:count].view(shape)


@contextmanager
def workspace(like: Tensor, fuse: bool = False) -> Iterator[Workspace]:
    """Lend memory for the blocks of one call, with the device and type of a tensor.

    On a CPU a small workspace is kept for the thread's next call, because touching fresh pages takes a fifth of the
    time of a small image; accelerators keep freed memory themselves. No number is read from an earlier call.
    """
    if like.device.type != "cpu":
        yield Workspace(like, fuse)
        return
    space = _kept.__dict__.pop(str(like.dtype), None) or Workspace(like)  # taken out: a nested call makes its own
    space.fuse = fuse
    yield space
    if sum(piece.nbytes for piece in space.pieces.values()) <= KEPT_BYTES:
        _kept.__dict__[str(like.dtype)] = space


def multiply(left: Tensor, right: Tensor, out: Tensor, accumulate: bool = False) -> None:
    """Write, or add, the matrix product of each image to out; one image goes the short way.

    Args:
        left: Left factors.
        right: Right factors.
        out: Where to write.
        accumulate: Whether to add to what is there.

    Shape:
        - left: (B, P, K)
        - right: (B, K, Q)
        - out: (B, P, Q)
    """
    if len(out) == 1:
        if accumulate:
            torch.addmm(out[0], left[0], right[0], out=out[0])
        else:
            torch.mm(left[0], right[0], out=out[0])
    elif accumulate:
        torch.baddbmm(out, left, right, out=out)
    else:
        torch.bmm(left, right, out=out)


def add_diagonal(source: Tensor, out: Tensor, reach: int, query_step: int, key_step: int, first: int = 0) -> Tensor:
    """Write the sum over d = -reach..reach of source at (query + d * query_step, key + d * key_step); 0 outside.

    Args:
        source: Numbers of every query and key position.
        out: Where to write the sums of some of the queries; another piece of memory than source.
        reach: Largest |d|.
        query_step: Positions of the query axis per step.
        key_step: Positions of the key axis per step.
        first: The first query whose sum is wanted.

    Shape:
        - source: (B, queries, keys)
        - out, returned: (B, wanted queries, keys)
    """
    here = source[:, first : first + out.shape[1]]
    if reach == 0 or not _add_shifted(here, source, out, query_step, key_step, first, here):
        out.copy_(here)
    for d in sorted(set(range(-reach, reach + 1)) - {0, 1}, key=abs):
        _add_shifted(out, source, out, d * query_step, d * key_step, first)
    return out


def _add_shifted(
    base: Tensor, source: Tensor, out: Tensor, queries: int, keys: int, first: int, rest: Tensor | None = None
) -> bool:
    """Write base plus the shifted source to out where there is one, else the rest; return whether there is any."""
    low, high = max(0, -first - queries), min(out.shape[1], source.shape[1] - first - queries)
    left, right = max(0, -keys), out.shape[2] - max(0, keys)
    if low >= high or left >= right:
        return False
    shifted = source[:, first + low + queries : first + high + queries, left + keys : right + keys]
    torch.add(base[:, low:high, left:right], shifted, out=out[:, low:high, left:right])
    if rest is not None:  # what lies after, as both shifts are ahead
        out[:, high:] = rest[:, high:]
        out[:, :high, right:] = rest[:, :high, right:]
    return True


def column_runs(height: int, width: int, shift: int) -> list[tuple[slice, slice]]:
    """Return the runs of a row-major grid that move together when the column-major index moves by shift.

    Stepping off the end of a column leads to the start of the next one.

    Args:
        height: Rows of the grid.
        width: Columns of the grid.
        shift: Steps down the columns.

    Returns:
        Pairs (target, source) of slices of the flat row-major index; targets that are not listed have no source.

    Example:
        >>> column_runs(3, 2, 1)  # down one row; from the last row to the first, one column on
        [(slice(0, 4, None), slice(2, 6, None)), (slice(4, 5, None), slice(1, 2, None))]
    """
    runs = []
    for carry in range(shift // height, (height - 1 + shift) // height + 1):
        rows = range(max(0, carry * height - shift), min(height, (carry + 1) * height - shift))
        length = width - abs(carry)
        if carry == 0:
            first = rows.start * width
            runs.append((first, first + shift * width, len(rows) * width))
        elif length > 0:
            for y in rows:
                source_row = y + shift - carry * height
                runs.append((y * width + max(0, -carry), source_row * width + max(0, carry), length))
    return [(slice(target, target + n), slice(source, source + n)) for target, source, n in runs]
