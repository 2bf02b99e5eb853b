"""Scanning a dataset for images that training could not use, and shards that changed since they were written."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from gicinpaint.data.dataset import Crop
from gicinpaint.data.image_io import ImageError, show_name
from gicinpaint.data.index import read_index
from gicinpaint.data.parallel import count_done, work_through
from gicinpaint.data.shard_cache import is_remote
from gicinpaint.data.shards import TarShards
from gicinpaint.data.sources import ImageSource

_PIECE = 256  # images per task


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
    report: str | os.PathLike[str],
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
        tasks = ((piece.tolist(),) for piece in torch.arange(len(source)).split(_PIECE))
        title = f"check {part}" if progress else None
        found: list[tuple[int, str]] = []
        for result in work_through(_find_bad, subject, tasks, workers, total=len(source), title=title):
            found += result
        lines += [f"{part}\t{index}\t{reason}" for index, reason in sorted(found)]
        if isinstance(source, TarShards):
            lines += [f"{part}\t-\t{reason}" for reason in _changed_shards(source)]
    path = Path(report)
    path.parent.mkdir(parents=True, exist_ok=True)
    images = sum(map(len, sources.values()))
    head = f"# {len(lines)} bad of {images} images: part, number, reason\n"
    path.write_text(head + "".join(line + "\n" for line in lines), encoding="utf-8", errors="backslashreplace")
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
        count_done()
    return bad


def _changed_shards(source: TarShards) -> Iterator[str]:
    for shard in source.shards:
        if is_remote(shard):
            continue
        recorded = read_index(shard, source.places).sha256
        if recorded:
            with open(shard, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != recorded:
                    yield f"the shard {show_name(shard)} differs from its SHA-256; copy it again or pack it again"
