"""Results on disk: written whole or not at all, by threads, while the next images are filled."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from PIL import Image

_THREADS = 2
_WAITING = 8  # results that may wait for the disk, so that memory stays bounded
_GAP = 4  # pixels between the two pictures of a side-by-side view
_SAVING: dict[str, dict[str, object]] = {
    ".png": {"compress_level": 4},
    ".webp": {"lossless": True},
    ".jpg": {"quality": 95, "subsampling": 0},
}
_KINDS = {".png": "PNG", ".webp": "WEBP", ".tiff": "TIFF", ".tif": "TIFF", ".bmp": "BMP"}


class Writer:
    """Save pictures in the background.

    Args:
        report: Is called with the number and the reason of each picture that could not be saved.
    """

    def __init__(self, report: Callable[[int, str], None]) -> None:
        self.report = report
        self.pool = ThreadPoolExecutor(_THREADS)
        self.waiting: deque[tuple[int, Future[None]]] = deque()

    def save(self, index: int, picture: Image.Image, path: Path, original: Image.Image | None = None) -> None:
        """Save picture `index`, and beside it a view with the original; waits where too many are in line."""
        self.waiting.append((index, self.pool.submit(_save_all, picture, path, original)))
        while len(self.waiting) > _WAITING:
            self._finish_first()

    def close(self) -> None:
        """Wait until everything is written."""
        while self.waiting:
            self._finish_first()
        self.pool.shutdown()

    def _finish_first(self) -> None:
        index, future = self.waiting.popleft()
        try:
            future.result()
        except (OSError, ValueError, SystemError) as error:  # what Pillow raises for modes that a format cannot hold
            self.report(index, f"cannot write the result: {error}")


def view_path(path: Path) -> Path:
    """Return where the side-by-side view of a result lies."""
    return path.with_name(f"{path.stem}.side_by_side.png")


def side_by_side(original: Image.Image, result: Image.Image) -> Image.Image:
    """Return both pictures in one, the original at the left."""
    width, height = result.size
    view = Image.new("RGB", (2 * width + _GAP, height), "white")
    view.paste(original.convert("RGB"), (0, 0))
    view.paste(result.convert("RGB"), (width + _GAP, 0))
    return view


def save_whole(picture: Image.Image, path: Path) -> None:
    """Write a picture beside its place and rename it: a kill at any moment leaves no half of it."""
    suffix = path.suffix.lower()
    kind = _KINDS.get(suffix, "JPEG")
    options = dict(_SAVING.get(suffix if kind != "JPEG" else ".jpg", {}))
    options |= {key: picture.info[key] for key in ("icc_profile", "transparency") if picture.info.get(key) is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        picture.save(partial, format=kind, **options)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _save_all(picture: Image.Image, path: Path, original: Image.Image | None) -> None:
    if original is not None:  # first: the result is what tells a later run that this image is done
        save_whole(side_by_side(original, picture), view_path(path))
    save_whole(picture, path)
