"""Files of the inpaint job: which images, with which masks, where results go, and how they are written."""

import io
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from gicinpaint.config.validation import JobError
from gicinpaint.data import DatasetError, ImageFiles, ImageSource, TarShards
from gicinpaint.data.image_io import SUFFIXES, ImageError, read_file, show_name
from gicinpaint.data.image_unchanged import Unchanged, decode_unchanged, write_unchanged
from gicinpaint.data.sources import NamedFiles, Names, is_pattern, list_folder
from gicinpaint.masks.files import read_hole, read_mask_file

_THREADS = 2
_WAITING = 8  # results that may wait for the disk, so that memory stays bounded
_GAP = 4  # pixels between the two images of a side-by-side view


class Loaded(NamedTuple):
    """An image file that was read, or the reason why it could not be."""

    number: int
    file: Unchanged | None = None  # the image, upright, in its own mode and depth, and what else its file holds
    mask: np.ndarray | None = None  # its hole, bool (H, W), if masks are files
    source: np.ndarray | None = None  # where it may be copied from, bool (H, W), if sources are given
    fault: str = ""  # why there is no image, in one line


def open_source(path: str, output: str, max_pixels: int) -> ImageSource:
    """Return the images at a path: a file, a folder, a pattern, a list file, or .tar shards.

    Files below the output folder are left out, so that a second run does not fill the results of the first.

    Raises:
        DatasetError: If there are none.
        JobError: If all of them lie below the output folder.
    """
    if path.endswith(".tar") or (os.path.isdir(path) and _holds_shards(path)):
        return TarShards(path, max_pixels=max_pixels)
    if os.path.isfile(path) and path.lower().endswith((*SUFFIXES, ".gif")):
        return NamedFiles(os.path.dirname(path), Names.of([os.fsencode(os.path.basename(path))]), max_pixels=max_pixels)
    gifs = [os.fsencode(name) for name in _gifs(path)]
    try:
        hint = "set input to an image, a folder, a pattern or .tar shards"
        files: NamedFiles = ImageFiles(path, max_pixels=max_pixels, hint=hint)
    except DatasetError:
        if not gifs:
            raise
        files = NamedFiles(path, Names.of(()), max_pixels=max_pixels)
    if gifs:
        files.names = Names.of(sorted([*files.names, *gifs]))
    inside, parents = Path(output).resolve(), {path}
    if is_pattern(path) or not os.path.isdir(path):
        parents = {os.path.dirname(files.path(index)) for index in range(len(files))}
    if any(inside.is_relative_to(Path(parent).resolve()) for parent in parents):
        kept = [n for i, n in enumerate(files.names) if not Path(files.path(i)).resolve().is_relative_to(inside)]
        if not kept:
            raise JobError(f"output: all images of {show_name(path)} lie in {show_name(output)}; name another folder")
        files.names = Names.of(kept)
    return files


def result_names(source: ImageSource) -> list[str]:
    """Return each image's name for its result and its mask: a relative path without suffix.

    Files of a pattern or a list keep what follows their common folder; an image of a shard has shard and number.
    """
    if isinstance(source, TarShards):
        stems = [os.path.basename(shard).removesuffix(".tar") for shard in source.shards]
        counts = (int(last - first) for first, last in zip(source.starts[:-1], source.starts[1:], strict=True))
        return [f"{stem}/{place:06d}" for stem, count in zip(stems, counts, strict=True) for place in range(count)]
    assert isinstance(source, NamedFiles)
    paths = [os.fsdecode(name) for name in source.names]
    if any(os.path.isabs(path) or ".." in Path(path).parts for path in paths) or source.root == "":
        absolute = [os.path.abspath(source.path(index)) for index in range(len(paths))]
        common = os.path.commonpath([os.path.dirname(path) for path in absolute])
        paths = [os.path.relpath(path, common) for path in absolute]
    return [os.path.splitext(path)[0] for path in paths]


def result_paths(source: object, names: Sequence[str], output: Path, kind: str) -> list[Path]:
    """Return where each result goes: below a folder, or, of a single image, into a file such as result.png.

    Raises:
        JobError: If two results would go to one place, or several images into a file.
    """
    if not output.is_dir() and (output.is_file() or output.suffix.lower() in SUFFIXES):
        if len(names) > 1 or output.suffix.lower() not in SUFFIXES:
            raise JobError(f"output: {output} is a file for one image, there are {len(names):,}; name a folder")
        return [output]
    own = [os.path.splitext(source.path(i))[1] if isinstance(source, NamedFiles) else ".png" for i in range(len(names))]
    suffixes = own if kind == "same" else [f".{kind}"] * len(names)
    paths = [output / f"{name}{suffix}" for name, suffix in zip(names, suffixes, strict=True)]
    seen: dict[Path, int] = {}
    for number, path in enumerate(paths):
        if (first := seen.setdefault(path, number)) != number:
            hint = "set format=same" if kind != "same" else "fill them by two runs into two folders"
            raise JobError(f"two images, {own[first]} and {own[number]}, would become {path}; {hint}")
    return paths


class Masks:
    """The mask of each image: one file for all, or one of the same name in a folder.

    Args:
        path: A file, a folder, or None where the hole is told by its colour.
        rename: Text in an image's name, and what stands in its place in its mask's name.
        max_pixels: Largest width x height that is decoded.
        hole: "white", "black" or "transparent"; another word is a ValueError.
        key: The setting that named the path, for the JobError if nothing is there.
    """

    def __init__(
        self,
        path: str | None,
        rename: Sequence[str] | None,
        max_pixels: int,
        hole: str = "white",
        key: str = "masks",
    ) -> None:
        self.path = path
        self.rename = rename
        self.max_pixels = max_pixels
        self.hole = read_hole(hole)
        self.by_name: dict[str, str] | None = None
        if path is None:
            return
        if os.path.isdir(path):
            names = [*map(os.fsdecode, list_folder(path)), *_gifs(path)]
            self.by_name = {os.path.splitext(name)[0]: os.path.join(path, name) for name in reversed(names)}
        elif not os.path.isfile(path):
            raise JobError(f"{key}: there is nothing at {show_name(path)}; name a file for all images or a folder")

    def read(self, name: str) -> np.ndarray | None:
        """Return the hole of an image's name, bool (H, W), or None where masks are no files.

        Raises:
            ImageError: If it is missing, cannot be read or is no mask.
        """
        if self.path is None:
            return None
        path = self.path
        if self.by_name is not None:
            wanted = name.replace(self.rename[0], self.rename[1]) if self.rename else name
            if wanted not in self.by_name:
                raise ImageError(
                    f"there is no mask called {show_name(wanted)} ({', '.join(SUFFIXES[:5])}, ...) in "
                    f"{show_name(path)}; name the text that differs with mask_rename=[of_images,of_masks]"
                )
            path = self.by_name[wanted]
        try:
            return read_mask_file(io.BytesIO(read_file(path)), self.hole, self.max_pixels)
        except ImageError:
            raise
        except ValueError as error:
            raise ImageError(f"mask {show_name(path)} {error}") from None


@dataclass
class Reader:
    """Read images with their masks by number; what cannot be read becomes a fault."""

    source: ImageSource
    names: Sequence[str]
    masks: Masks
    sources: Masks  # where images may be copied from; read as masks
    max_pixels: int  # largest width x height that is decoded
    numbers: Sequence[int]  # of the images to read

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> Loaded:
        number = self.numbers[place]
        try:
            file = io.BytesIO(self.source.encoded(number))
            decoded = decode_unchanged(file, self.source.name(number), max_pixels=self.max_pixels)
            mask, source = (files.read(self.names[number]) for files in (self.masks, self.sources))
            return Loaded(number, decoded, mask, source)
        except ImageError as error:
            return Loaded(number, fault=str(error))


class Writer:
    """Save results in the background, each whole or not at all; `report` gets number and reason of what failed."""

    def __init__(self, report: Callable[[int, str], None]) -> None:
        self.report = report
        self.pool = ThreadPoolExecutor(_THREADS)
        self.waiting: deque[tuple[int, Future[None]]] = deque()

    def save(self, number: int, result: Unchanged, path: Path, hole: np.ndarray, original: Unchanged | None) -> None:
        """Save a result, and beside it a view of both if the original is given; wait if too many are in line."""
        self.waiting.append((number, self.pool.submit(_save, result, path, hole, original)))
        while len(self.waiting) > _WAITING:
            self._finish_first()

    def close(self) -> None:
        """Wait until everything is written."""
        while self.waiting:
            self._finish_first()
        self.pool.shutdown()

    def _finish_first(self) -> None:
        number, future = self.waiting.popleft()
        try:
            future.result()
        except (OSError, ValueError, SystemError) as error:  # SystemError is Pillow's, when a file grows too large
            self.report(number, f"cannot write the result: {getattr(error, 'strerror', None) or error}")


def _save(result: Unchanged, path: Path, hole: np.ndarray, original: Unchanged | None) -> None:
    if original is not None:  # first: the result is what tells a later run that this image is done
        before, after = (_view(file.image) for file in (original, result))
        before.paste((255, 255, 255), mask=Image.fromarray(hole))
        view = Image.new("RGB", (2 * after.width + _GAP, after.height), "white")
        view.paste(before, (0, 0))
        view.paste(after, (after.width + _GAP, 0))
        write_unchanged(Unchanged(view, {}), path.with_name(f"{path.stem}.side_by_side.png"))
    write_unchanged(result, path)


def _view(image: Image.Image | np.ndarray) -> Image.Image:
    return (Image.fromarray((image >> 8).astype(np.uint8)) if isinstance(image, np.ndarray) else image).convert("RGB")


def _gifs(folder: str) -> list[str]:
    return [str(file.relative_to(folder)) for file in sorted(Path(folder).rglob("*")) if file.suffix.lower() == ".gif"]


def _holds_shards(folder: str) -> bool:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    return any(name.endswith(".tar") for name in names) and not any(name.lower().endswith(SUFFIXES) for name in names)
