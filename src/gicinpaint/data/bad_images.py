"""Images that cannot be used: raise, or skip and count them, up to 1 %; and the scan that lists them all."""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import get_worker_info

from gicinpaint.config.atomic_files import write_text
from gicinpaint.data.image_io import ImageError, show_name
from gicinpaint.data.listing import DatasetError
from gicinpaint.data.parallel import check_stopped, work_through
from gicinpaint.data.shard_cache import is_remote
from gicinpaint.data.shards import TarShards, read_index
from gicinpaint.data.sources import ImageSource
from gicinpaint.data.transforms import Crop

LARGEST_SHARE = 0.01
_SHOWN = 10
_CHUNK = 256  # images per task of a scan

_LOG = logging.getLogger(__name__)


class BadImageCount:
    """Count the reads and the bad images of all worker processes of one data loader.

    Each process adds to its own row of a shared tensor, so no lock is needed and no count is lost.

    Args:
        name: What the images are, for messages.
        length: Number of images in the dataset; the share of bad ones is taken of at least that many.
        workers: Number of worker processes.
    """

    def __init__(self, name: str, length: int, workers: int = 0) -> None:
        self.name = name
        self.length = length
        self._rows = torch.zeros(max(1, workers), 2, dtype=torch.int64).share_memory_()

    @property
    def read(self) -> int:
        """Number of images asked for so far."""
        return int(self._rows[:, 0].sum())

    @property
    def bad(self) -> int:
        """Number of them that could not be used."""
        return int(self._rows[:, 1].sum())

    def add_read(self) -> None:
        """Count an image that was asked for."""
        self._rows[self._row(), 0] += 1

    def add_bad(self, error: ImageError) -> None:
        """Count a bad image and log it if it is among the first ten.

        Raises:
            DatasetError: If more than 1 % is bad.
        """
        self._rows[self._row(), 1] += 1
        bad, read = self.bad, self.read
        if bad <= _SHOWN:
            last = "; later ones are only counted" if bad == _SHOWN else ""
            _LOG.warning("skipped bad %s image %d: %s%s", self.name, bad, error, last)
        if bad > LARGEST_SHARE * max(read, self.length):
            raise DatasetError(
                f"{bad} of {read} {self.name} images read so far could not be used, more than {LARGEST_SHARE:.0%} of "
                f"the {self.length}; the last: {error}; list all of them with `gicinpaint prepare check=true`"
            )

    def log_total(self) -> None:
        """Log how many images were skipped, if any."""
        if self.bad:
            _LOG.warning("skipped %d bad %s images of %d read", self.bad, self.name, self.read)

    def _row(self) -> int:
        worker = get_worker_info()
        return 0 if worker is None else worker.id % len(self._rows)


class Scan(NamedTuple):
    """What a scan found.

    Attributes:
        images: Number of images that were looked at.
        bad: Number of those that cannot be used, and of shards that differ from their SHA-256.
        report: File with a line for each.
    """

    images: int
    bad: int
    report: Path


class _Subject(NamedTuple):
    source: ImageSource
    crop: Crop | None
    height: int
    width: int


def scan(
    sources: Mapping[str, ImageSource],
    report: str | Path,
    *,
    crops: Mapping[str, Crop] | None = None,
    image_size: tuple[int, int] = (256, 256),
    workers: int = 4,
    progress: bool = True,
) -> Scan:
    """Decode every image of a dataset and write a report with a line per bad one: part, number, file and reason.

    Args:
        sources: Images of each part, e.g. train and val.
        report: Text file to write; fields are separated by tabs.
        crops: Crops by part, to find images that are too small for them as well.
        image_size: Height and width for them.
        workers: Processes that read.
        progress: Show a progress bar on the standard error.

    Returns:
        The counts and the path of the report.
    """
    lines = []
    for part, source in sources.items():
        subject = _Subject(source, (crops or {}).get(part), *image_size)
        tasks = [(chunk,) for chunk in torch.arange(len(source)).split(_CHUNK)]
        title = f"check {part}" if progress else None
        found: list[tuple[int, str]] = []
        for result in work_through(_find_bad, subject, tasks, workers, total=len(source), title=title):
            found += result
        lines += [f"{part}\t{index}\t{reason}" for index, reason in sorted(found)]
        if isinstance(source, TarShards):
            lines += [f"{part}\t-\t{reason}" for reason in _changed_shards(source)]
    path = Path(report)
    images = sum(map(len, sources.values()))
    head = f"# {len(lines)} bad of {images} images: part, number, reason\n"
    write_text(path, head + "".join(line + "\n" for line in lines))
    return Scan(images, len(lines), path)


def _find_bad(subject: _Subject, numbers: list[int]) -> list[tuple[int, str]]:
    bad = []
    generator = torch.Generator().manual_seed(0)
    for number in numbers:
        try:
            image = subject.source.read(number)
            if subject.crop is not None:
                subject.crop(image, subject.height, subject.width, generator)
        except ImageError as error:
            named = str(error)
            if not named.startswith("cannot read"):  # a crop does not know the file
                named = f"cannot use image {subject.source.name(number)}: {named}"
            bad.append((number, named))
        check_stopped()
    return bad


def _changed_shards(source: TarShards) -> Iterator[str]:
    for shard in source.shards:
        if is_remote(shard):
            continue
        recorded = read_index(shard, source.cache).sha256
        if recorded:
            with open(shard, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != recorded:
                    yield f"the shard {show_name(shard)} differs from its SHA-256; copy it again or pack it again"
