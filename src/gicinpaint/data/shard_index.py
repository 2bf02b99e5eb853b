"""Tar files of images: where they are, the cache of remote ones, and the index of the images in each."""

import contextlib
import glob
import hashlib
import os
import re
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gicinpaint.config.atomic_files import atomic_file, lock_file
from gicinpaint.data.image_io import SUFFIXES, show_name
from gicinpaint.data.sources import DatasetError, Names, save_arrays

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def is_remote(place: str) -> bool:
    """Say whether a place is a URL and not a path of this machine."""
    return "://" in place


def expand(path: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    """Return the shards that a folder, file, pattern, range in braces or a list of them stands for, in order.

    Raises:
        DatasetError: If a URL holds a pattern, which cannot be listed everywhere.
    """
    if not isinstance(path, (str, os.PathLike)):
        return [shard for item in path for shard in expand(item)]
    place = os.fspath(path)
    if counted := _RANGE.search(place):
        first, last = counted.groups()
        numbers = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
        return expand([place[: counted.start()] + number + place[counted.end() :] for number in numbers])
    if is_remote(place):
        if "*" in place:
            raise DatasetError(f"cannot list {place}: name remote shards by a range, e.g. shard-{{000000..000439}}.tar")
        return [place]
    if os.path.isdir(place):
        return sorted(os.path.join(place, name) for name in os.listdir(place) if name.endswith(".tar"))
    if os.path.exists(place):
        return [place]
    return sorted(glob.glob(place, recursive=True))


class ShardCache:
    """Turn the name of a shard into a file of this machine; fetched ones are kept in `folder`, up to `gigabytes`."""

    def __init__(self, folder: str | os.PathLike[str] | None = None, gigabytes: float | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self.gigabytes = gigabytes

    def local(self, place: str) -> str:
        """Return a path to the file; what is remote is fetched first, by one process while the others wait.

        Raises:
            DatasetError: If the file is remote and there is no folder to keep it.
            OSError: If it cannot be fetched.
        """
        if not is_remote(place):
            return place
        kept = self.kept(place)
        with open(kept.with_name(kept.name + ".lock"), "w") as lock:
            lock_file(lock, wait=True)
            if not kept.exists():
                self._make_room(kept)
                _fetch(place, kept)
            os.utime(kept)  # the time of last use, for _make_room
        return str(kept)

    def kept(self, place: str) -> Path:
        """Return where a file that belongs to a place is kept, or raise a DatasetError if there is no folder for it."""
        if self.folder is None:
            raise DatasetError(f"cannot use {show_name(place)} without a folder on this machine; set cache_dir")
        self.folder.mkdir(parents=True, exist_ok=True)
        identity = hashlib.blake2b(place.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
        return self.folder / f"{identity}-{os.path.basename(place)}"

    def _make_room(self, arriving: Path) -> None:
        if self.gigabytes is None or arriving.suffix != ".tar":
            return
        shards = sorted(arriving.parent.glob("*-*.tar"), key=lambda path: path.stat().st_mtime)
        largest = max((path.stat().st_size for path in shards), default=0)  # what the arriving one may need
        used = sum(path.stat().st_size for path in shards) + largest
        for path in shards:
            if used <= self.gigabytes * 1e9:
                return
            used -= path.stat().st_size
            path.unlink(missing_ok=True)  # processes that have it open read on


def _fetch(place: str, target: Path) -> None:
    import fsspec

    try:
        filesystem, inner = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as error:  # its package is not installed, or there is no such protocol
        raise DatasetError(f"cannot fetch {show_name(place)}: {error}") from None
    for attempt in range(3):
        try:
            with atomic_file(target) as partial:
                filesystem.get_file(inner, str(partial))
            return
        except FileNotFoundError:
            raise
        except Exception as error:  # every protocol has its own kinds of passing failures
            if attempt == 2:
                raise OSError(f"fetching failed three times: {error}") from error
            time.sleep(2.0**attempt)


@dataclass(frozen=True)
class ShardIndex:
    """What is known of a shard without reading it.

    Attributes:
        entries: Offset and size of each image's file in bytes, int64 (images, 2).
        names: What each was called before it was packed, else its name in the tar file.
        shard_bytes: Size of the whole tar file.
        sha256: SHA-256 of the tar file in hexadecimal, empty if not known.
        skipped: Images that were left out when the shard was written, one "name: reason" each.
    """

    entries: Tensor
    names: Names
    shard_bytes: int
    sha256: str
    skipped: Names

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.entries)


def index_path(shard: str) -> str:
    """Return where the index of a shard lies: beside it."""
    return os.path.splitext(shard)[0] + ".index.npz"


def save_index(index: ShardIndex, path: str | os.PathLike[str]) -> None:
    """Write an index so that the file is either whole or absent."""
    entries, names, skipped = index.entries.numpy(), index.names.arrays("names"), index.skipped.arrays("skipped")
    size = np.int64(index.shard_bytes)
    save_arrays(path, {"entries": entries, **names, "shard_bytes": size, "sha256": index.sha256, **skipped})


def load_index(path: str | os.PathLike[str]) -> ShardIndex | None:
    """Read an index, or return None if it is absent, broken, or points outside its shard."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            index = ShardIndex(
                torch.from_numpy(kept["entries"]),
                Names.load(kept, "names"),
                int(kept["shard_bytes"]),
                str(kept["sha256"]),
                Names.load(kept, "skipped"),
            )
    except Exception:  # absent, cut off, or foreign bytes
        return None
    return index if _is_possible(index) else None


def _is_possible(index: ShardIndex) -> bool:
    entries = index.entries
    if entries.dtype != torch.int64 or entries.ndim != 2 or entries.shape[1] != 2:
        return False
    offset, size = entries.unbind(1)
    inside = (offset >= 0) & (size >= 0) & (size <= index.shard_bytes) & (offset <= index.shard_bytes - size)
    possible = all(names.is_possible() for names in (index.names, index.skipped))
    return bool(inside.all()) and possible and len(index.names) == len(entries)


def read_index(shard: str, cache: ShardCache) -> ShardIndex:
    """Return the index of a shard: the one beside it, a kept one, or a new one made by going through the shard.

    Raises:
        DatasetError: If the shard is absent or broken, or its size is not the index's.
    """
    beside = index_path(shard)
    with contextlib.suppress(OSError):
        index = load_index(cache.local(beside))
        if index is not None:
            if not is_remote(shard) and (size := os.path.getsize(shard)) != index.shard_bytes:
                raise DatasetError(
                    f"the shard {show_name(shard)} has {size} bytes, its index says {index.shard_bytes}; "
                    "copy both again, or delete the index if the shard was rewritten"
                )
            return index
    kept = None if cache.folder is None else cache.kept(beside)
    index = load_index(kept) if kept is not None else None
    try:
        local = cache.local(shard)
        status = os.stat(local)
        older = local == shard and kept is not None and kept.exists() and kept.stat().st_mtime < status.st_mtime
        if index is None or older or index.shard_bytes != status.st_size:  # tar files are padded to common sizes
            index = scan_shard(local, show_name(shard))
            if kept is not None:
                save_index(index, kept)
    except OSError as error:
        raise DatasetError(f"looked for the shard {show_name(shard)}: {error.strerror or error}") from None
    return index


def scan_shard(path: str, name: str) -> ShardIndex:
    """Go through a tar file from header to header and note its images; raise a DatasetError if it is not whole."""
    entries, names = [], []
    try:
        with tarfile.open(path, "r:", ignore_zeros=False) as shard:
            for member in shard:
                if member.isreg() and member.name.lower().endswith(SUFFIXES):
                    entries.append((member.offset_data, member.size))
                    names.append(os.fsencode(member.name))
    except tarfile.TarError as error:
        raise DatasetError(f"cannot read the shard {name}: {error}; it must be a plain, whole tar file") from None
    size = os.path.getsize(path)
    if entries and sum(entries[-1]) > size:
        raise DatasetError(f"cannot read the shard {name}: it ends before its last image; copy it again")
    table = torch.tensor(entries, dtype=torch.int64).reshape(-1, 2)
    return ShardIndex(table, Names.of(names), size, "", Names.of(()))
