"""Where images come from: the interface of every dataset; folders, globs and lists of files."""

import io
import os
from abc import ABC, abstractmethod
from pathlib import Path

from PIL import Image
from torch import Tensor

from gicinpaint.data.image_io import (
    FORMATS,
    MAX_PIXELS,
    SUFFIXES,
    read_file,
    read_image,
    show_name,
)
from gicinpaint.data.listing import DatasetError, Names, list_folder, list_glob, read_list
from gicinpaint.data.order import random_order

LIST_SUFFIXES = (".flist", ".txt")


class ImageSource(ABC):
    """A numbered set of images that the data module draws from."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """Return image `index` as 8-bit RGB, or raise an `ImageError` that names the file and the reason."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Return what to call image `index`."""

    def encoded(self, index: int) -> bytes:
        """Return an image file with the content of image `index`: the original where there is one, else a PNG.

        Raises:
            ImageError: If it cannot be read.
        """
        file = io.BytesIO()
        self.read(index).save(file, format="PNG")
        return file.getvalue()

    def order(self, seed: int, epoch: int) -> Tensor:
        """Return the epoch's permutation of the images; it depends on its arguments only."""
        return random_order(len(self), seed, epoch)


class NamedFiles(ImageSource):
    """Image files of given names.

    Args:
        root: What relative names start from.
        names: Names of the files.
        max_pixels: Largest width x height that is decoded.
    """

    def __init__(self, root: str | os.PathLike[str], names: Names, *, max_pixels: int = MAX_PIXELS) -> None:
        self.root = os.fspath(root)
        self.names = names
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Image.Image:
        """Return image `index` as 8-bit RGB, or raise an `ImageError`."""
        return read_image(self.path(index), max_pixels=self.max_pixels, formats=FORMATS)

    def encoded(self, index: int) -> bytes:
        """Return the bytes of the image's file, or raise an `ImageError`."""
        return read_file(self.path(index))

    def name(self, index: int) -> str:
        """Return the path of image `index`, quoted where it has odd characters."""
        return show_name(self.path(index))

    def path(self, index: int) -> str:
        """Return the path of image `index`."""
        return os.path.join(self.root, os.fsdecode(self.names[index]))


class ImageFiles(NamedFiles):
    """The image files of a folder with everything below it, of a glob pattern, or of a list file.

    Args:
        path: A folder, a pattern with `*`, `?` or `[...]`, or a list file (.flist or .txt, one path per line).
        root: What the relative paths of a list file start from. Default: the folder of the list file.
        cache_dir: Folder that keeps the listing of a large folder for the next start.
        max_pixels: Largest width x height that is decoded.
        expected: Number of images there must be, if known.
        hint: How to get the data, for the error when it is absent.

    Raises:
        DatasetError: If nothing is found there, or not the expected number.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        root: str | os.PathLike[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        max_pixels: int = MAX_PIXELS,
        expected: int | None = None,
        hint: str = "set the path to a folder, a pattern or a list file",
    ) -> None:
        where = os.fspath(path)
        if os.path.isdir(where):
            start, names = where, list_folder(where, cache_dir=cache_dir)
        elif where.endswith(LIST_SUFFIXES) and not is_pattern(where):
            start = os.fspath(root) if root is not None else os.path.dirname(where)
            names = _read_existing_list(where, start, hint)
        elif is_pattern(where):
            start, names = "", list_glob(where)
        else:
            start, names = where, Names.of(())
        check_found(len(names), where, expected, hint)
        super().__init__(start, names, max_pixels=max_pixels)


def is_pattern(path: str) -> bool:
    """Say whether a path is a glob pattern; one that exists as it stands is not."""
    return any(character in path for character in "*?[") and not os.path.exists(path)


def check_found(count: int, where: str | os.PathLike[str], expected: int | None, hint: str) -> None:
    """Raise unless images were found, and as many as expected if that is known.

    Raises:
        DatasetError: If not; it says what was looked for, where, and how to get it.
    """
    place = show_name(Path(where).absolute() if where else where)
    if count == 0:
        missing = "" if is_pattern(os.fspath(where)) or os.path.exists(where) else ", which does not exist"
        kinds = ", ".join(SUFFIXES[:5])
        raise DatasetError(f"looked for images ({kinds}, ...) in {place}{missing}: found none; {hint}")
    if expected is not None and count != expected:
        raise DatasetError(f"looked for {expected} images in {place}: found {count}; {hint}")


def _read_existing_list(path: str, root: str, hint: str) -> Names:
    if not os.path.exists(path):
        raise DatasetError(f"looked for a list of images at {show_name(Path(path).absolute())}: no such file; {hint}")
    names = read_list(path)
    some = [names[index] for index in range(0, len(names), max(1, len(names) // 100))]
    if some and not any(os.path.exists(os.path.join(os.fsencode(root), name)) for name in some):
        first = show_name(os.path.join(os.fsencode(root), some[0]))
        raise DatasetError(
            f"looked for the {len(names)} images of the list {show_name(path)}: none of {len(some)} tried exists, "
            f"the first was {first}; set root to the folder that the list's paths start from"
        )
    return names
