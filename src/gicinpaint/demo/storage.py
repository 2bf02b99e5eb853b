"""The one folder that the server reads from and writes to, and how it is kept small."""

import shutil
import time
from pathlib import Path
from uuid import uuid4

from PIL import Image

KEEP_SECONDS = 3600


class Storage:
    """Files of the demo below one folder; they are kept for an hour, and less where they take too much room.

    Args:
        folder: Where they lie.
        most_bytes: Above that the oldest are removed.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder = folder.resolve()
        self.most_bytes = most_bytes
        self._pinned: frozenset[Path] = frozenset()

    def pin(self) -> None:
        """Keep for ever what lies in the folder now: the examples."""
        self._pinned = frozenset(self.folder.iterdir())

    def save(self, image: Image.Image, name: str) -> str:
        """Write a picture as PNG under a name that nobody can guess, and return its path."""
        folder = self.folder / uuid4().hex
        folder.mkdir(parents=True)
        image.save(folder / f"{name}.png", compress_level=1)
        return str(folder / f"{name}.png")

    def holds(self, path: str) -> bool:
        """Tell whether a path lies in the folder, links followed."""
        try:
            return "\0" not in path and Path(path).resolve().is_relative_to(self.folder)
        except (OSError, RuntimeError, ValueError):
            return False

    def read(self, path: str, most_bytes: int) -> bytes:
        """Return a file of the folder.

        Raises:
            ValueError: If it lies outside, is gone or too large.
        """
        if not self.holds(path) or not Path(path).is_file():
            raise ValueError("the file is not there any more; upload it again")
        if (size := Path(path).stat().st_size) > most_bytes:
            raise ValueError(f"the file has {size:,} bytes, the limit is {most_bytes:,}")
        return Path(path).read_bytes()

    def sweep(self, now: float | None = None) -> None:
        """Remove what is older than an hour, then the oldest until the rest fits."""
        now = time.time() if now is None else now
        entries = []
        for entry in set(self.folder.iterdir()) - self._pinned:
            files = [path for path in (entry, *entry.rglob("*")) if path.exists()]
            size = sum(path.stat().st_size for path in files if path.is_file())
            entries.append((max((path.stat().st_mtime for path in files), default=0.0), size, entry))
        total = sum(size for _, size, _ in entries)
        for changed, size, entry in sorted(entries):
            if now - changed < KEEP_SECONDS and total <= self.most_bytes:
                break
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
            total -= size
