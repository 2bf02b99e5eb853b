"""Files that are whole or absent after any kill, and a folder that one job writes to."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gicinpaint.data.image_io import show_name
from gicinpaint.data.listing import DatasetError

LOCK = ".lock"
_PATIENCE = 10.0  # seconds; the workers of a job that was killed end within one


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder.

    Forked workers hold it too, so when it is free the last worker of a job that was killed has ended.

    Raises:
        DatasetError: If another job keeps it.
    """
    with open(folder / LOCK, "w") as lock:
        deadline = time.monotonic() + _PATIENCE
        while not _try_lock(lock.fileno()):
            if time.monotonic() > deadline:
                raise DatasetError(f"another job is writing to {show_name(folder)}; wait for it or end it")
            time.sleep(0.05)
        yield


def write_text(path: Path, text: str) -> None:
    """Write a text file; what is no valid text is escaped."""
    part = part_of(path)
    with open(part, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    sync_folder(path.parent)


def part_of(path: Path) -> Path:
    """Return the name that a file has until it is whole."""
    return path.with_name(path.name + ".part")


def sync_folder(folder: Path) -> None:
    """Return when the folder's names are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
