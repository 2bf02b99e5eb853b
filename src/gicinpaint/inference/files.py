"""What is filled, with which mask, and what the result is called."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from gicinpaint.config.validation import JobError
from gicinpaint.data import ImageFiles, ImageSource, TarShards
from gicinpaint.data.image_io import FORMATS, SUFFIXES, ImageError, decode_picture, read_file, show_name
from gicinpaint.data.listing import Names, list_folder
from gicinpaint.data.sources import NamedFiles, is_pattern

_MASK_FORMATS = (*FORMATS, "GIF")
_MASK_SUFFIXES = (*SUFFIXES, ".gif")


class Loaded(NamedTuple):
    """An image file that was read, or the reason why it could not be.

    Attributes:
        number: Its number.
        image: The picture, upright, in its own mode.
        mask: Its mask, if masks are files.
        fault: Why there is no picture, in one line.
    """

    number: int
    image: Image.Image | None = None
    mask: Image.Image | None = None
    fault: str = ""


def open_source(path: str, output: str, max_pixels: int) -> ImageSource:
    """Return the images at a path: a file, a folder, a pattern, a list file, or .tar shards.

    Files below the output folder are left out, so that a second run does not fill the results of the first.

    Raises:
        DatasetError: If there are none.
        JobError: If all of them lie below the output folder.
    """
    if path.endswith(".tar") or (os.path.isdir(path) and _holds_shards(path)):
        return TarShards(path, max_pixels=max_pixels)
    if os.path.isfile(path) and path.lower().endswith(SUFFIXES):
        return NamedFiles(os.path.dirname(path), Names.of([os.fsencode(os.path.basename(path))]), max_pixels=max_pixels)
    files = ImageFiles(path, max_pixels=max_pixels, hint="set input to an image, a folder, a pattern or .tar shards")
    inside = Path(output).resolve()
    if not any(inside.is_relative_to(Path(parent).resolve()) for parent in _parents(files, path)):
        return files
    kept = [n for i, n in enumerate(files.names) if not Path(files.path(i)).resolve().is_relative_to(inside)]
    if not kept:
        raise JobError(f"output: all images of {show_name(path)} lie in {show_name(output)}; name another folder")
    return NamedFiles(files.root, Names.of(kept), max_pixels=max_pixels)


def result_names(source: ImageSource) -> list[str]:
    """Return each image's name for its result and its mask: a relative path without suffix.

    Files of a folder keep their sub-folders; those of a pattern or a list keep what follows their common folder; an
    image of a shard is called by the shard and its number in it.
    """
    if isinstance(source, TarShards):
        names = []
        for shard, (first, last) in enumerate(zip(source.starts[:-1], source.starts[1:], strict=True)):
            stem = os.path.basename(source.shards[shard]).removesuffix(".tar")
            names += [f"{stem}/{place:06d}" for place in range(int(last) - int(first))]
        return names
    assert isinstance(source, NamedFiles)
    paths = [os.fsdecode(name) for name in source.names]
    if any(os.path.isabs(path) or ".." in Path(path).parts for path in paths) or source.root == "":
        absolute = [os.path.abspath(source.path(index)) for index in range(len(paths))]
        common = os.path.commonpath([os.path.dirname(path) for path in absolute])
        paths = [os.path.relpath(path, common) for path in absolute]
    return [os.path.splitext(path)[0] for path in paths]


class Masks:
    """The mask of each image: one file for all, or one of the same name in a folder.

    Args:
        path: A file, a folder, or None where the hole is told by its colour.
        rename: Text in an image's name, and what stands in its place in its mask's name.
        max_pixels: Largest width x height that is decoded.

    Raises:
        JobError: If nothing is there.
    """

    def __init__(self, path: str | None, rename: Sequence[str] | None, max_pixels: int) -> None:
        self.path = path
        self.rename = rename
        self.max_pixels = max_pixels
        self.by_name: dict[str, str] | None = None
        if path is None:
            return
        if os.path.isdir(path):
            names = [os.fsdecode(name) for name in list_folder(path)]
            names += [str(found.relative_to(path)) for found in sorted(Path(path).rglob("*.gif"))]
            self.by_name = {os.path.splitext(name)[0]: os.path.join(path, name) for name in reversed(names)}
        elif not os.path.isfile(path):
            raise JobError(f"masks: there is nothing at {show_name(path)}; name a file for all images or a folder")

    def read(self, name: str) -> Image.Image | None:
        """Return the mask of an image's name, or None where masks are no files.

        Raises:
            ImageError: If it is missing or cannot be read.
        """
        if self.path is None:
            return None
        path = self.path
        if self.by_name is not None:
            wanted = name.replace(self.rename[0], self.rename[1]) if self.rename else name
            if wanted not in self.by_name:
                raise ImageError(
                    f"there is no mask called {show_name(wanted)} ({', '.join(_MASK_SUFFIXES[:5])}, ...) in "
                    f"{show_name(path)}; name the text that differs with mask_rename=[of_images,of_masks]"
                )
            path = self.by_name[wanted]
        return decode_picture(
            io.BytesIO(read_file(path)), show_name(path), max_pixels=self.max_pixels, formats=_MASK_FORMATS
        )


class Reader:
    """Read images with their masks by number; what cannot be read becomes a fault.

    Args:
        source: The images.
        names: Their names.
        masks: Their masks.
        indices: Which of them to read.
        max_pixels: Largest width x height that is decoded.
    """

    def __init__(
        self, source: ImageSource, names: Sequence[str], masks: Masks, indices: Sequence[int], max_pixels: int
    ) -> None:
        self.source = source
        self.names = names
        self.masks = masks
        self.indices = indices
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Loaded:
        index = self.indices[place]
        try:
            file = io.BytesIO(self.source.encoded(index))
            image = decode_picture(file, self.source.name(index), max_pixels=self.max_pixels)
            return Loaded(index, image, self.masks.read(self.names[index]))
        except ImageError as error:
            return Loaded(index, fault=str(error))


def _holds_shards(folder: str) -> bool:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    return any(name.endswith(".tar") for name in names) and not any(name.lower().endswith(SUFFIXES) for name in names)


def _parents(files: NamedFiles, path: str) -> list[str]:
    if is_pattern(path) or not os.path.isdir(path):
        return sorted({os.path.dirname(files.path(index)) for index in range(len(files))})
    return [path]
