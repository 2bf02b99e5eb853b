"""Seeds and order: every batch is a pure function of (seed, position), so a resumed run continues where it stopped."""

import hashlib
import itertools
import operator
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.utils.data import Sampler

Item = tuple[int, int]  # (epoch, index)


def derive_seed(seed: int, *parts: int | str) -> int:
    """Return a 63-bit seed that depends on all arguments and on nothing else, for `torch.Generator().manual_seed`.

    It is the same on every machine, in every process and Python version; neighbouring arguments give unrelated seeds.

    Args:
        seed: The run's seed.
        parts: What the randomness belongs to, e.g. epoch, index and a word.

    Raises:
        TypeError: If a part is neither an integer nor a string.

    Example:
        >>> derive_seed(0, 3, 14) == derive_seed(0, 3, 14), derive_seed(0, 3, 14) == derive_seed(0, 31, 4)
        (True, False)
    """
    for part in parts:
        if not isinstance(part, str) and not hasattr(part, "__index__"):
            kind = type(part).__name__
            raise TypeError(f"derive_seed takes integers and strings, got {kind}; pass int(...) or str(...)")
    words = (repr(part) if isinstance(part, str) else str(operator.index(part)) for part in (seed, *parts))
    digest = hashlib.blake2b(",".join(words).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def random_order(length: int, seed: int, epoch: int) -> Tensor:
    """Return a permutation of 0..length-1 that depends on (length, seed, epoch) only, int64 (length,)."""
    return torch.randperm(length, generator=torch.Generator().manual_seed(derive_seed(seed, epoch, "order")))


class EndlessBatchSampler(Sampler[list[Item]]):
    """Yield lists of (epoch, index) without end, starting at the batch that the run has reached.

    The epochs' permutations follow each other in one stream of images, and global batch k is the k-th piece of it.
    So every image comes exactly once per epoch, no batch is short, and nothing is dropped; a batch may hold the end
    of one epoch and the start of the next, which the items say. Each process takes its own contiguous part of the
    global batch: together they see the batch that one process would see. There is no length: with one, the trainer
    would count epochs, which repeat steps after a resume.

    Args:
        length: Number of images.
        batch_size: Global batch, over all processes.
        seed: The run's seed.
        position: Called when iteration starts; returns the number of batches already seen.
        rank: This process.
        world_size: Number of processes.
        order: Called as `order(seed, epoch)`; returns the epoch's permutation of the images. Default: a random one.

    Raises:
        ValueError: If there are fewer images than a batch, or the batch cannot be shared evenly.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int = 0,
        position: Callable[[], int] = int,
        rank: int = 0,
        world_size: int = 1,
        order: Callable[[int, int], Tensor] | None = None,
    ) -> None:
        _check_shares(batch_size, rank, world_size)
        if length < batch_size:
            raise ValueError(
                f"a batch of {batch_size} needs at least as many images, got {length}; "
                f"set batch_size to {length} or less, or add images"
            )
        self.length = length
        self.batch_size = batch_size
        self.position = position
        self.rank = rank
        self.world_size = world_size
        self._permute = lru_cache(1)(partial(order or partial(random_order, length), seed))  # by epoch

    def __iter__(self) -> Iterator[list[Item]]:
        yield from map(self.batch, itertools.count(int(self.position())))

    def batch(self, k: int) -> list[Item]:
        """Return this process's part of global batch k."""
        share = self.batch_size // self.world_size
        start = k * self.batch_size + self.rank * share
        items: list[Item] = []
        while len(items) < share:
            epoch, first = divmod(start + len(items), self.length)
            last = min(self.length, first + share - len(items))
            items += [(epoch, index) for index in self._permute(epoch)[first:last].tolist()]
        return items


class EpochBatchSampler(EndlessBatchSampler):
    """Yield the batches of one epoch, from the batches already seen on to the next multiple of `len`.

    Images that are left over when an epoch's images do not divide evenly come first in the next one.
    """

    def __len__(self) -> int:
        return self.length // self.batch_size

    def __iter__(self) -> Iterator[list[Item]]:
        k = int(self.position())
        yield from map(self.batch, range(k, (k // len(self) + 1) * len(self)))


class FiniteBatchSampler(Sampler[list[Item]]):
    """Yield every image once, in order, in the same number of batches on every process.

    Process r takes images r, r + world_size, ...: none is duplicated and none is left out. Where the images do not
    divide evenly, batches are smaller by some images instead of padded, so a metric that adds up over images is exact
    and processes never wait for a step that another does not take. Items name a fixed `epoch`, so crops and masks are
    fixed.

    Raises:
        ValueError: If a process would get no image, or the global `batch_size` cannot be shared evenly.
    """

    def __init__(self, length: int, batch_size: int, *, epoch: int, rank: int = 0, world_size: int = 1) -> None:
        _check_shares(batch_size, rank, world_size)
        if length < world_size:
            raise ValueError(
                f"{world_size} processes need at least one image each, got {length}; add images or use fewer processes"
            )
        self.epoch = epoch
        self.indices = range(rank, length, world_size)
        smallest, largest = length // world_size, -(-length // world_size)
        self.steps = min(smallest, -(-largest * world_size // batch_size))
        self.share = max(batch_size // world_size, -(-largest // self.steps))

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Item]]:
        start = 0
        for step in range(self.steps):
            to_leave = self.steps - step - 1  # one image for each later step
            stop = min(start + self.share, len(self.indices) - to_leave)
            yield [(self.epoch, index) for index in self.indices[start:stop]]
            start = stop


def _check_shares(batch_size: int, rank: int, world_size: int) -> None:
    if batch_size < 1 or batch_size % world_size:
        raise ValueError(
            f"batch_size is the global batch and must be a positive multiple of the {world_size} processes, "
            f"got {batch_size}; use {max(1, round(batch_size / world_size)) * world_size}"
        )
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in 0..{world_size - 1}, got {rank}; pass the trainer's global_rank")
