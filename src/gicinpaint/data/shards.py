"""Shards: the images of WebDataset tar files, read in an order that depends on seed and epoch alone."""

import io
import os
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gicinpaint.data.image_io import MAX_PIXELS, ImageError, decode_image, show_name
from gicinpaint.data.order import derive_seed
from gicinpaint.data.shard_index import ShardCache, expand, read_index
from gicinpaint.data.sources import DatasetError, ImageSource

_OPEN_FILES = 64  # per process; above the window, so that no shard is opened again and again


class TarShards(ImageSource):
    """The images of WebDataset tar files, on disk or behind a URL.

    Every image has a number, through an index beside each shard (`gicinpaint prepare` writes it; for other shards it
    is made at the first start). So the order of images is a function of (seed, epoch) as for folders: no image is
    lost or read twice whatever the number of processes and workers, and a resumed run continues at its position.

    The order keeps reading sequential: shards are shuffled, `window` of them are open at a time, each is read from a
    random start to its end and round to that start, and chance decides which of the open ones gives the next image.
    Images that were not shuffled before they were written (`prepare` does) mix only within the window.

    Shards behind a URL of any fsspec kind (`s3://`, `gs://`, `https://`, ...) are fetched whole into `cache_dir` when
    they are first needed, once per machine; the package of the protocol must be installed (s3fs, gcsfs, aiohttp).

    Args:
        path: A folder of .tar files, a file, a pattern (`*`, `?`, `[...]`), a range in braces
            (`https://host/shard-{000000..000439}.tar`), or a list of these.
        cache_dir: Folder for fetched shards and for indices of shards that have none beside them.
        cache_gigabytes: Fetched shards that are kept; beyond it, those unused for longest are deleted. None keeps all.
            It must hold more than `window` shards.
        window: Number of shards that are read at a time.
        max_pixels: Largest width x height that is decoded.
        expected: Number of images there must be, if known.
        hint: How to get the shards, for the error when they are absent.

    Raises:
        DatasetError: If no shard is found, one differs from its index, or the number of images is not as expected.
        ValueError: If the window is not positive.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Sequence[str],
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_gigabytes: float | None = None,
        window: int = 16,
        max_pixels: int = MAX_PIXELS,
        expected: int | None = None,
        hint: str = "write them with `gicinpaint prepare dataset=folder output=...`, or set the path",
    ) -> None:
        if not 1 <= window <= _OPEN_FILES:
            raise ValueError(f"window must be a number of shards in 1..{_OPEN_FILES}, got {window}; use 16")
        self.window = window
        self.max_pixels = max_pixels
        self.shards = expand(path)
        if not self.shards:
            shown = path if isinstance(path, (str, os.PathLike)) else ", ".join(path)
            raise DatasetError(f"looked for .tar shards in {show_name(shown)}: found none; {hint}")
        self.cache = ShardCache(cache_dir, cache_gigabytes)
        with ThreadPoolExecutor(16) as pool:
            indices = list(pool.map(lambda shard: read_index(shard, self.cache), self.shards))
        self.starts = torch.tensor(np.cumsum([0] + [len(index) for index in indices]))
        self.entries = torch.cat([index.entries for index in indices])  # (images, 2): offset, size in bytes
        if expected is not None and len(self) != expected:
            raise DatasetError(
                f"looked for {expected} images in {len(self.shards)} shards, the first {show_name(self.shards[0])}: "
                f"found {len(self)}; {hint}"
            )
        if len(self) == 0:
            raise DatasetError(f"looked for images in {len(self.shards)} shards: all are empty; {hint}")
        self._open: OrderedDict[int, io.FileIO] = OrderedDict()

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, index: int) -> Image.Image:
        """Return image `index` as 8-bit RGB, or raise an `ImageError`."""
        return decode_image(io.BytesIO(self.encoded(index)), self.name(index), max_pixels=self.max_pixels)

    def name(self, index: int) -> str:
        """Return the shard and the number of the image in it."""
        shard, place = self._find(index)
        return f"{show_name(self.shards[shard])} image {place}"

    def encoded(self, index: int) -> bytes:
        """Return the bytes of the image's file, or raise an ImageError if the shard cannot be read or ends before."""
        shard, _ = self._find(index)
        offset, size = self.entries[index].tolist()
        try:
            data = os.pread(self._file(shard).fileno(), size, offset)  # needs no position, so forks may share files
        except OSError as error:
            raise ImageError(f"cannot read image {self.name(index)}: {error.strerror or error}") from None
        if len(data) != size:
            raise ImageError(f"cannot read image {self.name(index)}: the shard ends before it; copy the shard again")
        return data

    def order(self, seed: int, epoch: int) -> Tensor:
        """Return the epoch's permutation of the images: random, but from front to back in each shard."""
        generator = torch.Generator().manual_seed(derive_seed(seed, epoch, "order"))
        shards = torch.randperm(len(self.shards), generator=generator)
        return torch.cat([self._interleave(group, generator) for group in shards.split(self.window)])

    def _interleave(self, shards: Tensor, generator: torch.Generator) -> Tensor:
        runs = []
        for shard in shards.tolist():
            first, last = self.starts[shard : shard + 2].tolist()
            turn = int(torch.randint(max(1, last - first), (), generator=generator))
            runs.append(torch.arange(first, last).roll(-turn))
        whose = torch.repeat_interleave(torch.arange(len(runs)), torch.tensor([len(run) for run in runs]))
        whose = whose[torch.randperm(len(whose), generator=generator)]  # which shard gives each image
        order = torch.empty(len(whose), dtype=torch.int64)
        order[whose.argsort(stable=True)] = torch.cat(runs)
        return order

    def _find(self, index: int) -> tuple[int, int]:
        shard = int(torch.searchsorted(self.starts, index, right=True)) - 1
        return shard, index - int(self.starts[shard])

    def _file(self, shard: int) -> io.FileIO:
        if shard not in self._open:
            while len(self._open) >= _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            self._open[shard] = io.FileIO(self.cache.local(self.shards[shard]))
        self._open.move_to_end(shard)
        return self._open[shard]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict()}  # open files do not travel to spawned workers
