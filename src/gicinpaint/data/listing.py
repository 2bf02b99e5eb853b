"""Lists of file names, compact enough for millions: one byte buffer and offsets, shared by all worker processes."""

import glob
import hashlib
import os
import time
import warnings
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gicinpaint.config.atomic_files import atomic_file
from gicinpaint.data.image_io import SUFFIXES, show_name

_SETTLE_SECONDS = 2.0  # a folder changed later than this before the scan may change again under the same time stamp


class DatasetError(ValueError):
    """A dataset that is missing, empty or unusable; the message says what was looked for, where, and what to do."""


class Names(Sequence[bytes]):
    """An immutable sequence of byte strings in two tensors.

    Tensors and not a list of Python strings: 8 million names take about 0.5 GB instead of 1.5 GB, worker processes
    that are forked share the pages (nothing in them counts references), and workers that are spawned receive the
    tensors through shared memory.

    Args:
        data: All names, one after the other, uint8.
        offsets: Where each name starts, and at last where the last one ends, int64.
    """

    def __init__(self, data: Tensor, offsets: Tensor) -> None:
        self.data = data
        self.offsets = offsets

    @classmethod
    def of(cls, names: Iterable[bytes]) -> "Names":
        """Collect names; only one of them exists as a Python object at a time."""
        data, offsets = bytearray(), array("q", [0])
        for name in names:
            data += name
            offsets.append(len(data))
        return cls(_tensor(np.frombuffer(data, np.uint8)), _tensor(np.frombuffer(offsets, np.int64)))

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


def list_folder(folder: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None) -> Names:
    """List the image files under a folder, relative to it, in an order that never changes.

    A folder's own files come first, in byte order, then its sub-folders in byte order. Links are followed; a folder
    that is reached twice counts once. Files are taken by suffix (see `image_io.SUFFIXES`), in upper or lower case;
    names that start with a dot are left out.

    Args:
        folder: Where to start.
        cache_dir: Folder that keeps listings. A kept one is used while no folder in it has a changed time stamp,
            which costs one look per folder instead of one per file.

    Raises:
        DatasetError: If the folder or one of its sub-folders is missing or cannot be read.
    """
    root = os.fsencode(folder)
    cache = None if cache_dir is None else _Cache(Path(cache_dir), root)
    kept = cache.load() if cache is not None else None
    if kept is not None:
        return kept
    started = time.time()
    folders: list[tuple[bytes, int]] = []
    names = Names.of(_walk(root, folders))
    if cache is not None and all(changed < (started - _SETTLE_SECONDS) * 1e9 for _, changed in folders):
        cache.save(names, folders)
    return names


def list_glob(pattern: str) -> Names:
    """List the files that match a glob pattern (`**` = any depth), as given, in byte order."""
    return Names.of(sorted(name for name in map(os.fsencode, glob.iglob(pattern, recursive=True)) if _is_image(name)))


def read_list(path: str | os.PathLike[str]) -> Names:
    """Read a list file: one name per line, in the file's order; empty lines are left out.

    Raises:
        DatasetError: If the file is missing or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return Names.of(name for line in file if (name := line.rstrip(b"\r\n")))
    except OSError as error:
        raise DatasetError(
            f"looked for a list of images at {show_name(path)}: {error.strerror}; write one path per line there, "
            "or point to another file"
        ) from None


def _walk(root: bytes, folders: list[tuple[bytes, int]]) -> Iterator[bytes]:
    seen: set[tuple[int, int]] = set()
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(os.path.join(root, folder))
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            folders.append((folder, status.st_mtime_ns))
            files, inner = _look_into(os.path.join(root, folder))
        except OSError as error:
            where = show_name(os.path.join(root, folder))
            reason = f"looked for images in {where}: {error.strerror}; check the path and its rights"
            raise DatasetError(reason) from None
        yield from (os.path.join(folder, name) for name in files)
        waiting += [os.path.join(folder, name) for name in reversed(inner)]


def _look_into(folder: bytes) -> tuple[list[bytes], list[bytes]]:
    files, inner = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(b"."):
                continue
            if _is_folder(entry):
                inner.append(entry.name)
            elif _is_image(entry.name):
                files.append(entry.name)
    return sorted(files), sorted(inner)


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle; if it is named like an image, reading it says so
        return False


def _is_image(name: bytes) -> bool:
    return name.lower().endswith(_ENDINGS)


_ENDINGS = tuple(suffix.encode() for suffix in SUFFIXES)


class _Cache:
    """A listing kept on disk, with the time stamp of every folder in it."""

    def __init__(self, folder: Path, root: bytes) -> None:
        root = os.path.abspath(root)
        identity = hashlib.blake2b(b"\0".join((b"1", root, *_ENDINGS)), digest_size=12).hexdigest()
        self.root = root
        self.path = folder / f"listing-{identity}.npz"

    def load(self) -> Names | None:
        try:
            with np.load(self.path, allow_pickle=False) as kept:
                folders = Names(_tensor(kept["folders"]), _tensor(kept["folder_offsets"]))
                for index, changed in enumerate(kept["changed"].tolist()):
                    if os.stat(os.path.join(self.root, folders[index])).st_mtime_ns != changed:
                        return None
                return Names(_tensor(kept["names"]), _tensor(kept["offsets"]))
        except Exception:  # absent, cut off, of an older kind, or a folder has gone: list again
            return None

    def save(self, names: Names, folders: list[tuple[bytes, int]]) -> None:
        folder_names = Names.of(name for name, _ in folders)
        arrays: dict[str, Any] = {
            "names": names.data.numpy(),
            "offsets": names.offsets.numpy(),
            "folders": folder_names.data.numpy(),
            "folder_offsets": folder_names.offsets.numpy(),
            "changed": np.array([changed for _, changed in folders], np.int64),
        }
        try:
            with atomic_file(self.path) as partial, partial.open("wb") as file:
                np.savez(file, **arrays)
        except OSError as error:
            warnings.warn(f"the listing was not kept in {self.path.parent}: {error.strerror}", stacklevel=2)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array if array.flags.writeable else array.copy())
