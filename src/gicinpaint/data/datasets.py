"""The paper's datasets as their archives unpack, by official split; and the sample set, which needs no download."""

import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from PIL import Image

from gicinpaint.data.image_io import read_image, show_name
from gicinpaint.data.sources import DatasetError, ImageSource, NamedFiles, Names, check_found, list_folder, read_list

SAMPLE_TRAIN = ("astronaut.png", "coffee.png", "rocket.jpg", "brick.png", "grass.png", "coins.png")
SAMPLE_VALIDATION = ("chelsea.png", "camera.png", "gravel.png")

Part = Literal["train", "validation", "test"]

_PARTITION = {"train": b"0", "validation": b"1", "test": b"2"}
_HQ_LISTS = {
    "train": ("train_shuffled.flist", "train.flist"),
    "validation": ("val_shuffled.flist", "validation_shuffled.flist", "val.flist"),
    "test": ("test.flist",),
}


def celeba(root: str | os.PathLike[str], part: Part, *, expected: int | None = None, hint: str = "") -> NamedFiles:
    """Return a part of CelebA by the official split, `list_eval_partition.txt`.

    Args:
        root: Folder with `img_align_celeba` and the list, or with the archive's sub-folders `Img` and `Eval`.
        part: "train", "validation" or "test".
        expected: Number of images there must be, if known.
        hint: How to get the data, for the error when it is absent.

    Raises:
        DatasetError: If the list or the images are missing.
        ValueError: If there is no such part.
    """
    _check_part(part)
    folder = Path(root)
    images = _first(folder, ("img_align_celeba", "Img/img_align_celeba"), hint)
    partition = _first(folder, ("list_eval_partition.txt", "Eval/list_eval_partition.txt"), hint)
    return _files(images, Names.of(_read_partition(partition, part)), expected, hint)


def celeba_hq(root: str | os.PathLike[str], part: Part, *, expected: int | None = None, hint: str = "") -> NamedFiles:
    """Return a part of CelebA-HQ, split by lists or by CelebA's official split; other arguments are as for `celeba`.

    Images are searched in `CelebA-HQ-img` (the CelebAMask-HQ archive) or else in all of the folder. They are split

    - by a list of the part, if there is one: the authors' `train_shuffled.flist` and `val_shuffled.flist`, or your
      own `train.flist`, `val.flist`, `test.flist`. Names count without folder and suffix; a name that is not among
      the images is taken for a number of CelebA and looked up in `CelebA-HQ-to-CelebA-mapping.txt`;
    - else by CelebA's `list_eval_partition.txt` through that mapping.

    Args:
        root: Folder with the images and the lists.
        part: "train", "validation" or "test".

    Raises:
        DatasetError: If images or lists are missing, or a list names images that are not there.
        ValueError: If there is no such part.
    """
    _check_part(part)
    folder = Path(root)
    images = folder / "CelebA-HQ-img" if (folder / "CelebA-HQ-img").is_dir() else folder
    present = {} if not images.is_dir() else {_stem(name): name for name in list_folder(images)}
    check_found(len(present), images, None, hint)
    mapping_file = folder / "CelebA-HQ-to-CelebA-mapping.txt"
    mapping = _read_mapping(mapping_file) if mapping_file.exists() else {}
    lists = [folder / name for name in _HQ_LISTS[part] if (folder / name).exists()]
    if lists:
        wanted: Iterable[bytes] = [_stem(line) for line in read_list(lists[0])]
    elif mapping and (folder / "list_eval_partition.txt").exists():
        stems = map(_stem, _read_partition(folder / "list_eval_partition.txt", part))
        wanted = sorted((mapping[stem] for stem in stems if stem in mapping), key=lambda stem: (len(stem), stem))
    else:
        raise DatasetError(
            f"looked for the split of CelebA-HQ in {show_name(folder.absolute())}: found neither "
            f"{' nor '.join(_HQ_LISTS[part])}, nor list_eval_partition.txt with CelebA-HQ-to-CelebA-mapping.txt; {hint}"
        )
    found = [present.get(stem) or present.get(mapping.get(stem, b"")) for stem in wanted]
    missing = sum(name is None for name in found)
    if missing:
        raise DatasetError(
            f"looked for the {len(found)} images of {part} in {show_name(images.absolute())}: {missing} are not there; "
            "add CelebA-HQ-to-CelebA-mapping.txt if the list has CelebA's numbers, or correct the list"
        )
    return _files(images, Names.of(name for name in found if name is not None), expected, hint)


def dtd(
    root: str | os.PathLike[str],
    part: Part,
    *,
    split: int = 1,
    held_out: int | None = None,
    expected: int | None = None,
    hint: str = "",
) -> NamedFiles:
    """Return a part of the Describable Textures Dataset; other arguments and errors are as for `celeba`.

    Args:
        root: Folder with `images` and `labels`.
        part: "train", "validation" or "test".
        split: Which of the ten official splits.
        held_out: Instead of an official split, train on all images but this many; the paper holds out 30. Which they
            were is not published: here they are spread evenly over the sorted images, so over the kinds of texture.
    """
    _check_part(part)
    if not 1 <= split <= 10:
        raise ValueError(f"split must be one of the official splits 1..10, got {split}; use 1")
    images = Path(root) / "images"
    if held_out is None:
        word = {"train": "train", "validation": "val", "test": "test"}[part]
        listed = _first(Path(root), (f"labels/{word}{split}.txt",), hint)
        return _files(images, read_list(listed), expected, hint)
    check_found(int(images.is_dir()), images, None, hint)
    names = list_folder(images)
    if not 1 <= held_out < len(names):
        raise ValueError(f"held_out must lie in 1..{len(names) - 1}, got {held_out}; the paper holds out 30")
    kept_back = {(2 * number + 1) * len(names) // (2 * held_out) for number in range(held_out)}
    chosen = (name for number, name in enumerate(names) if (number in kept_back) != (part == "train"))
    return _files(images, Names.of(chosen), expected, hint)


class SamplePhotographs(ImageSource):
    """Photographs inside scikit-image's package: six to train on, three others to validate on, nothing is downloaded.

    Args:
        names: Files of scikit-image's data folder; see `SAMPLE_TRAIN` and `SAMPLE_VALIDATION`.
        repeat: How often each photograph counts in an epoch. Each time has its own crop, flip and mask.

    Raises:
        DatasetError: If scikit-image or one of the files is not installed.
    """

    def __init__(self, names: tuple[str, ...] | list[str] = SAMPLE_TRAIN, repeat: int = 1) -> None:
        self.repeat = repeat
        package = importlib.util.find_spec("skimage")
        if package is None or not package.submodule_search_locations:
            raise DatasetError("looked for the sample photographs in scikit-image: it is not installed; install it")
        folder = Path(package.submodule_search_locations[0]) / "data"
        self.paths = [folder / name for name in names]
        missing = [path.name for path in self.paths if not path.is_file()]
        if missing or not self.paths or repeat < 1:
            raise DatasetError(
                f"looked for the sample photographs {', '.join(missing) or '(none named)'} in {folder}: found none; "
                "reinstall scikit-image, or choose another dataset"
            )
        self._decoded: dict[int, Image.Image] = {}

    @classmethod
    def train(cls, repeat: int = 32) -> "SamplePhotographs":
        """Return the training part."""
        return cls(SAMPLE_TRAIN, repeat)

    @classmethod
    def validation(cls, repeat: int = 1) -> "SamplePhotographs":
        """Return the validation part."""
        return cls(SAMPLE_VALIDATION, repeat)

    def __len__(self) -> int:
        return len(self.paths) * self.repeat

    def read(self, index: int) -> Image.Image:
        """Return photograph `index` as 8-bit RGB; all nine together stay decoded in 6 MB."""
        place = index % len(self.paths)
        if place not in self._decoded:
            self._decoded[place] = read_image(self.paths[place])
        return self._decoded[place]

    def name(self, index: int) -> str:
        """Return the photograph's file name."""
        return self.paths[index % len(self.paths)].name


def _read_partition(path: Path, part: Part) -> list[bytes]:
    rows = [line.split() for line in read_list(path)]
    bad = next((number for number, row in enumerate(rows) if len(row) != 2 or row[1] not in (b"0", b"1", b"2")), None)
    if bad is not None:
        raise DatasetError(
            f"line {bad + 1} of {show_name(path)} must be a file name and 0, 1 or 2, "
            f"got {show_name(b' '.join(rows[bad]))}; use the official file"
        )
    return [name for name, number in rows if number == _PARTITION[part]]


def _read_mapping(path: Path) -> dict[bytes, bytes]:
    """Return CelebA's number (the stem of its file) to CelebA-HQ's, from lines of `idx orig_idx orig_file`."""
    rows = [line.split() for line in read_list(path)][1:]
    if any(len(row) != 3 for row in rows):
        raise DatasetError(f"lines of {show_name(path)} must be idx, orig_idx and orig_file; use the official file")
    return {_stem(original): number for number, _, original in rows}


def _files(images: Path, names: Names, expected: int | None, hint: str) -> NamedFiles:
    check_found(len(names), images, expected, hint)
    first = os.path.join(images, os.fsdecode(names[0]))
    if not os.path.exists(first):
        raise DatasetError(f"looked for {len(names)} images, the first {show_name(first)}: no such file; {hint}")
    return NamedFiles(images, names)


def _first(folder: Path, names: tuple[str, ...], hint: str) -> Path:
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise DatasetError(f"looked for {' or '.join(names)} in {show_name(folder.absolute())}: found none; {hint}")


def _stem(name: bytes) -> bytes:
    return os.path.splitext(os.path.basename(name.strip()))[0]


def _check_part(part: str) -> None:
    if part not in _PARTITION:
        raise ValueError(f"part must be one of {', '.join(_PARTITION)}, got {part!r}; choose one of them")
