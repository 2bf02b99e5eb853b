"""Where shards lie: files as they are, URLs through a folder on this machine that keeps what was fetched."""

import fcntl
import glob
import hashlib
import itertools
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gicinpaint.data.image_io import show_name
from gicinpaint.data.listing import DatasetError

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
        return list(itertools.chain.from_iterable(expand(item) for item in path))
    place = os.fspath(path)
    counted = _RANGE.search(place)
    if counted:
        first, last = counted.groups()
        numbers = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
        return list(
            itertools.chain.from_iterable(
                expand(place[: counted.start()] + number + place[counted.end() :]) for number in numbers
            )
        )
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
    """Turns the name of a shard into a file of this machine.

    Args:
        folder: Where fetched files are kept.
        gigabytes: How much of them is kept; None is without limit.
    """

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
        with _locked(kept):
            if not kept.exists():
                self._make_room(kept)
                _fetch(place, kept)
            os.utime(kept)  # the time of last use, for _make_room
        return str(kept)

    def kept(self, place: str) -> Path:
        """Return where a file that belongs to a place is kept.

        Raises:
            DatasetError: If there is no folder to keep it.
        """
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
    import fsspec  # type: ignore[import-untyped]

    part = target.with_name(target.name + ".part")
    try:
        filesystem, inner = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as error:  # its package is not installed, or there is no such protocol
        raise DatasetError(f"cannot fetch {show_name(place)}: {error}") from None
    for attempt in range(3):
        try:
            filesystem.get_file(inner, str(part))
            os.replace(part, target)
            return
        except FileNotFoundError:
            raise
        except Exception as error:  # every protocol has its own kinds of passing failures
            part.unlink(missing_ok=True)
            if attempt == 2:
                raise OSError(f"fetching failed three times: {error}") from error
            time.sleep(2.0**attempt)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    with open(target.with_name(target.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
