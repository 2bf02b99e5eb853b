"""Files that are whole or absent after any kill: written beside the target, flushed to disk, renamed; locks, hashes."""

import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

PARTIAL = ".partial"  # how the names of unfinished files end


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path to write to; the file gets its name when it is whole and on the disk.

    The folder is made. After an error the file that was there before is as it was and nothing else is left.

    Example:
        >>> target = getfixture("tmp_path") / "report.txt"
        >>> with atomic_file(target) as partial:
        ...     _ = partial.write_text("whole")
        >>> target.read_text(), len(list(target.parent.iterdir()))
        ('whole', 1)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def partial_path(path: Path) -> Path:
    """Return the name that a file has until it is whole; no two processes share it."""
    return path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")


def remove_partial(folder: str | os.PathLike[str]) -> None:
    """Delete what a killed process left half-written."""
    for path in Path(folder).glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8; what is no valid text is escaped."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def sync_folder(folder: Path) -> None:
    """Return when the folder's names are on the disk; systems that cannot flush a folder are left alone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_file(file: IO[Any], *, wait: bool = False, inherited: bool = True) -> None:
    """Lock an open file until it is closed. Windows has no such locks and gets a warning.

    Args:
        file: The file.
        wait: Wait until no other process holds the lock; else that is an OSError.
        inherited: Processes that this one forks hold the lock too; it is free when the last of them has ended.
    """
    try:
        import fcntl
    except ImportError:
        warnings.warn("this system has no file locks: nothing keeps two jobs out of one folder", stacklevel=2)
        return
    (fcntl.flock if inherited else fcntl.lockf)(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
