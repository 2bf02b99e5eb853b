"""Where images come from: the interface of every dataset; folders, globs and lists of files; shards."""

import io
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gicinpaint.data.image_io import (
    FORMATS,
    MAX_PIXELS,
    SUFFIXES,
    ImageError,
    decode_image,
    read_file,
    read_image,
    show_name,
)
from gicinpaint.data.listing import DatasetError, Names, list_folder, list_glob, read_list
from gicinpaint.data.order import derive_seed, random_order
from gicinpaint.data.shards import ShardCache, expand, read_index

LIST_SUFFIXES = (".flist", ".txt")
_OPEN_FILES = 64  # per process; above the window, so that no shard is opened again and again


class ImageSource(ABC):
    """A numbered set of images that the data module draws from."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """Return image `index` as 8-bit RGB, or raise an `ImageError` that names the file and the reason."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Return what to call image `index`."""

    def encoded(self, index: int) -> bytes:
        """Return an image file with the content of image `index`: the original where there is one, else a PNG.

        Raises:
            ImageError: If it cannot be read.
        """
        file = io.BytesIO()
        self.read(index).save(file, format="PNG")
        return file.getvalue()

    def order(self, seed: int, epoch: int) -> Tensor:
        """Return the epoch's permutation of the images; it depends on its arguments only."""
        return random_order(len(self), seed, epoch)


class NamedFiles(ImageSource):
    """Image files of given names.

    Args:
        root: What relative names start from.
        names: Names of the files.
        max_pixels: Largest width x height that is decoded.
    """

    def __init__(self, root: str | os.PathLike[str], names: Names, *, max_pixels: int = MAX_PIXELS) -> None:
        self.root = os.fspath(root)
        self.names = names
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Image.Image:
        """Return image `index` as 8-bit RGB, or raise an `ImageError`."""
        return read_image(self.path(index), max_pixels=self.max_pixels, formats=FORMATS)

    def encoded(self, index: int) -> bytes:
        """Return the bytes of the image's file, or raise an `ImageError`."""
        return read_file(self.path(index))

    def name(self, index: int) -> str:
        """Return the path of image `index`, quoted where it has odd characters."""
        return show_name(self.path(index))

    def path(self, index: int) -> str:
        """Return the path of image `index`."""
        return os.path.join(self.root, os.fsdecode(self.names[index]))


class ImageFiles(NamedFiles):
    """The image files of a folder with everything below it, of a glob pattern, or of a list file.

    Args:
        path: A folder, a pattern with `*`, `?` or `[...]`, or a list file (.flist or .txt, one path per line).
        root: What the relative paths of a list file start from. Default: the folder of the list file.
        cache_dir: Folder that keeps the listing of a large folder for the next start.
        max_pixels: Largest width x height that is decoded.
        expected: Number of images there must be, if known.
        hint: How to get the data, for the error when it is absent.

    Raises:
        DatasetError: If nothing is found there, or not the expected number.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        root: str | os.PathLike[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        max_pixels: int = MAX_PIXELS,
        expected: int | None = None,
        hint: str = "set the path to a folder, a pattern or a list file",
    ) -> None:
        where = os.fspath(path)
        if os.path.isdir(where):
            start, names = where, list_folder(where, cache_dir=cache_dir)
        elif where.endswith(LIST_SUFFIXES) and not is_pattern(where):
            start = os.fspath(root) if root is not None else os.path.dirname(where)
            names = _read_existing_list(where, start, hint)
        elif is_pattern(where):
            start, names = "", list_glob(where)
        else:
            start, names = where, Names.of(())
        check_found(len(names), where, expected, hint)
        super().__init__(start, names, max_pixels=max_pixels)


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

    def original_name(self, index: int) -> str:
        """Return the image's file name inside the shard, or the one it had before it was packed, if known."""
        shard, place = self._find(index)
        return show_name(read_index(self.shards[shard], self.cache).names[place])

    def encoded(self, index: int) -> bytes:
        """Return the bytes of the image's file.

        Raises:
            ImageError: If the shard cannot be read or ends before the image does.
        """
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


def is_pattern(path: str) -> bool:
    """Say whether a path is a glob pattern; one that exists as it stands is not."""
    return any(character in path for character in "*?[") and not os.path.exists(path)


def check_found(count: int, where: str | os.PathLike[str], expected: int | None, hint: str) -> None:
    """Raise unless images were found, and as many as expected if that is known.

    Raises:
        DatasetError: If not; it says what was looked for, where, and how to get it.
    """
    place = show_name(Path(where).absolute() if where else where)
    if count == 0:
        missing = "" if is_pattern(os.fspath(where)) or os.path.exists(where) else ", which does not exist"
        kinds = ", ".join(SUFFIXES[:5])
        raise DatasetError(f"looked for images ({kinds}, ...) in {place}{missing}: found none; {hint}")
    if expected is not None and count != expected:
        raise DatasetError(f"looked for {expected} images in {place}: found {count}; {hint}")


def _read_existing_list(path: str, root: str, hint: str) -> Names:
    if not os.path.exists(path):
        raise DatasetError(f"looked for a list of images at {show_name(Path(path).absolute())}: no such file; {hint}")
    names = read_list(path)
    some = [names[index] for index in range(0, len(names), max(1, len(names) // 100))]
    if some and not any(os.path.exists(os.path.join(os.fsencode(root), name)) for name in some):
        first = show_name(os.path.join(os.fsencode(root), some[0]))
        raise DatasetError(
            f"looked for the {len(names)} images of the list {show_name(path)}: none of {len(some)} tried exists, "
            f"the first was {first}; set root to the folder that the list's paths start from"
        )
    return names
