"""Where images come from: the interface of every dataset; folders, globs and lists of files, compact for millions."""

import glob
import hashlib
import io
import logging
import os
import time
import warnings
from abc import ABC, abstractmethod
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gicinpaint.config.atomic_files import atomic_file
from gicinpaint.data.image_io import CONVERT, MAX_PIXELS, SUFFIXES, UNREAD, read_file, read_image, show_name
from gicinpaint.data.order import random_order

_LOG = logging.getLogger(__name__)
LIST_SUFFIXES = (".flist", ".txt")
_ENDINGS = tuple(suffix.encode() for suffix in SUFFIXES)
_SETTLE_SECONDS = 2.0  # a folder changed later than this before the scan may change again under the same time stamp


class DatasetError(ValueError):
    """A dataset that is missing, empty or unusable; the message says what was looked for, where, and what to do."""


@dataclass(frozen=True, eq=False)
class Names(Sequence[bytes]):
    """An immutable sequence of byte strings in two tensors: all bytes as uint8, and the offset where each starts.

    8 million names take 0.5 GB instead of 1.5 GB as strings; forked workers share the pages, since nothing in them
    counts references, and spawned ones receive them through shared memory. The last offset is the end of the data.
    """

    data: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, names: Iterable[bytes]) -> "Names":
        """Collect names; only one of them exists as a Python object at a time."""
        data, offsets = bytearray(), array("q", [0])
        for name in names:
            data += name
            offsets.append(len(data))
        return cls(*map(torch.from_numpy, (np.frombuffer(data, np.uint8), np.frombuffer(offsets, np.int64))))

    @classmethod
    def load(cls, arrays: Mapping[str, np.ndarray], key: str) -> "Names":
        """Return the names that were stored under a key; `is_possible` says whether they can be."""
        return cls(torch.from_numpy(arrays[key]), torch.from_numpy(arrays[f"{key.removesuffix('s')}_offsets"]))

    def arrays(self, key: str) -> dict[str, np.ndarray]:
        """Return the names as arrays for a file."""
        return {key: self.data.numpy(), f"{key.removesuffix('s')}_offsets": self.offsets.numpy()}

    def is_possible(self) -> bool:
        """Say whether the offsets, which may come from a file, divide the data."""
        data, offsets = self.data, self.offsets
        if (data.dtype, data.ndim, offsets.dtype, offsets.ndim) != (torch.uint8, 1, torch.int64, 1) or not len(offsets):
            return False
        return int(offsets[0]) == 0 and int(offsets[-1]) == len(data) and bool((offsets[1:] >= offsets[:-1]).all())

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]  # slices are not offered
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must lie in -{len(self)}..{len(self) - 1}, got {index}")
        index %= len(self)
        start, stop = self.offsets[index : index + 2].tolist()
        return self.data[start:stop].numpy().tobytes()


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
        """Return a file with the content of image `index`, the original or else a PNG, or raise an `ImageError`."""
        file = io.BytesIO()
        self.read(index).save(file, format="PNG")
        return file.getvalue()

    def order(self, seed: int, epoch: int) -> Tensor:
        """Return the epoch's permutation of the images; it depends on its arguments only."""
        return random_order(len(self), seed, epoch)


@dataclass(eq=False)
class NamedFiles(ImageSource):
    """Image files of given names; relative ones start from `root`. No image above `max_pixels` is decoded."""

    root: str | os.PathLike[str]
    names: Names
    _: KW_ONLY
    max_pixels: int = MAX_PIXELS

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Image.Image:
        """Return image `index` as 8-bit RGB, or raise an `ImageError`."""
        return read_image(self.path(index), max_pixels=self.max_pixels)

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
            found = map(os.fsencode, glob.iglob(where, recursive=True))  # ** is any depth
            start, names = "", Names.of(sorted(filter(_is_image, found)))
        else:
            start, names = where, Names.of(())
        check_found(len(names), where, expected, hint)
        super().__init__(start, names, max_pixels=max_pixels)


def is_pattern(path: str) -> bool:
    """Say whether a path is a glob pattern; one that exists as it stands is not."""
    return any(character in path for character in "*?[") and not os.path.exists(path)


def check_found(count: int, where: str | os.PathLike[str], expected: int | None, hint: str) -> None:
    """Raise a DatasetError unless images were found, and as many as expected; it says what, where and how to get it."""
    place = show_name(Path(where).absolute() if where else where)
    if count == 0:
        missing = "" if is_pattern(os.fspath(where)) or os.path.exists(where) else ", which does not exist"
        kinds, odd = ", ".join(SUFFIXES[:5]), os.path.splitext(os.fsencode(where))[1].lower() in UNREAD
        hint = f"this kind is not read: {CONVERT}" if odd else hint
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


def list_folder(folder: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None) -> Names:
    """List the image files under a folder, relative to it, in an order that never changes.

    A folder's own files come first, in byte order, then its sub-folders in byte order. Links are followed; a folder
    that is reached twice counts once. Files are taken by suffix (`image_io.SUFFIXES`), in upper or lower case; names
    that start with a dot are left out. A listing that is kept in `cache_dir` is used while no folder in it has a
    changed time stamp, which costs one look per folder instead of one per file. Pictures of other kinds are logged.

    Raises:
        DatasetError: If the folder or one of its sub-folders is missing or cannot be read.
    """
    root = os.fsencode(folder)
    identity = hashlib.blake2b(b"\0".join((b"1", os.path.abspath(root), *_ENDINGS)), digest_size=12).hexdigest()
    cache = None if cache_dir is None else Path(cache_dir) / f"listing-{identity}.npz"
    if cache is not None and (kept := _load_listing(cache, root)) is not None:
        return kept
    started = time.time()
    folders: list[tuple[bytes, int]] = []
    names = Names.of(_walk(root, folders, unread := Counter[bytes]()))
    if unread:
        counts = ", ".join(f"{count:,} {ending.decode()}" for ending, count in unread.most_common())
        _LOG.warning("pictures in %s that are not read: %s; %s", show_name(folder), counts, CONVERT)
    if cache is not None and all(changed < (started - _SETTLE_SECONDS) * 1e9 for _, changed in folders):
        _save_listing(cache, names, folders)
    return names


def read_list(path: str | os.PathLike[str]) -> Names:
    """Read a list file: one name per line, in the file's order; empty lines are left out."""
    try:
        with open(path, "rb") as file:
            return Names.of(name for line in file if (name := line.rstrip(b"\r\n")))
    except OSError as error:
        raise DatasetError(
            f"looked for a list of images at {show_name(path)}: {error.strerror}; write one path per line there, "
            "or point to another file"
        ) from None


def _walk(root: bytes, folders: list[tuple[bytes, int]], unread: Counter[bytes]) -> Iterator[bytes]:
    """Yield the images' names within a folder; note the folders with their time stamps, and pictures of other kinds."""

    def fail(error: OSError) -> NoReturn:
        where = show_name(error.filename)
        raise DatasetError(f"looked for images in {where}: {error.strerror}; check the path and its rights") from None

    seen: set[tuple[int, int]] = set()
    for path, inner, files in os.walk(root, onerror=fail, followlinks=True):
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in seen:
            inner.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folder = b"" if path == root else os.path.relpath(path, root)
        folders.append((folder, status.st_mtime_ns))
        inner[:] = sorted(name for name in inner if not name.startswith(b"."))
        found = sorted(name for name in files if name[:1] != b".")
        unread.update(ending for name in found if (ending := os.path.splitext(name)[1].lower()) in UNREAD)
        yield from (os.path.join(folder, name) for name in found if _is_image(name))


def _is_image(name: bytes) -> bool:
    return name.lower().endswith(_ENDINGS)


def _load_listing(path: Path, root: bytes) -> Names | None:
    """Return a kept listing, or None if a folder of it has another time stamp now."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            folders = Names.load(kept, "folders")
            for index, changed in enumerate(kept["changed"].tolist()):
                if os.stat(os.path.join(root, folders[index])).st_mtime_ns != changed:
                    return None
            return Names.load(kept, "names")
    except Exception:  # absent, cut off, of an older version, or a folder is missing: list again
        return None


def save_arrays(path: str | os.PathLike[str], arrays: dict[str, Any]) -> None:
    """Write an .npz file so that it is either whole or absent."""
    with atomic_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def _save_listing(path: Path, names: Names, folders: list[tuple[bytes, int]]) -> None:
    folder_names = Names.of(name for name, _ in folders)
    changed = np.array([changed for _, changed in folders], np.int64)
    try:
        save_arrays(path, {**names.arrays("names"), **folder_names.arrays("folders"), "changed": changed})
    except OSError as error:
        warnings.warn(f"the listing was not kept in {path.parent}: {error.strerror}", stacklevel=2)
