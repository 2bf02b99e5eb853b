"""The index of a shard: where each image starts in the tar file, how long it is, what it was called."""

import contextlib
import dataclasses
import os
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gicinpaint.data.image_io import SUFFIXES, show_name
from gicinpaint.data.listing import DatasetError, Names
from gicinpaint.data.shard_cache import Places, is_remote


@dataclasses.dataclass(frozen=True)
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
    target = Path(path)
    handle, part = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(
                file,
                entries=index.entries.numpy(),
                names=index.names.data.numpy(),
                name_offsets=index.names.offsets.numpy(),
                shard_bytes=np.int64(index.shard_bytes),
                sha256=np.array(index.sha256),
                skipped=index.skipped.data.numpy(),
                skipped_offsets=index.skipped.offsets.numpy(),
            )
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o644)
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def load_index(path: str | os.PathLike[str]) -> ShardIndex | None:
    """Read an index, or return None if it is absent or broken."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return ShardIndex(
                torch.from_numpy(kept["entries"]),
                Names(torch.from_numpy(kept["names"]), torch.from_numpy(kept["name_offsets"])),
                int(kept["shard_bytes"]),
                str(kept["sha256"]),
                Names(torch.from_numpy(kept["skipped"]), torch.from_numpy(kept["skipped_offsets"])),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def read_index(shard: str, places: Places) -> ShardIndex:
    """Return the index of a shard: the one beside it, a kept one, or a new one made by going through the shard.

    Raises:
        DatasetError: If the shard is absent or broken, or its size is not the index's.
    """
    beside = index_path(shard)
    with contextlib.suppress(OSError):
        index = load_index(places.local(beside))
        if index is not None:
            if not is_remote(shard):
                _check_size(shard, index)
            return index
    kept = None if places.folder is None else places.kept(beside)
    index = load_index(kept) if kept is not None else None
    try:
        local = places.local(shard)
        if index is None or index.shard_bytes != os.path.getsize(local):
            index = scan_shard(local, show_name(shard))
            if kept is not None:
                save_index(index, kept)
    except OSError as error:
        raise DatasetError(f"looked for the shard {show_name(shard)}: {error.strerror or error}") from None
    return index


def scan_shard(path: str, name: str) -> ShardIndex:
    """Go through a tar file from header to header and note its images; other members are passed over.

    Raises:
        DatasetError: If it is no whole, uncompressed tar file.
    """
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


def _check_size(shard: str, index: ShardIndex) -> None:
    try:
        size = os.path.getsize(shard)
    except OSError as error:
        raise DatasetError(f"looked for the shard {show_name(shard)}: {error.strerror}") from None
    if size != index.shard_bytes:
        raise DatasetError(
            f"the shard {show_name(shard)} has {size} bytes, its index says {index.shard_bytes}; "
            "copy both again, or delete the index if the shard was rewritten"
        )
