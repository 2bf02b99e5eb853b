"""Work on every image of a dataset in several processes: pack them into shards, or find those that cannot be used."""

import io
import multiprocessing
import os
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from gicinpaint.compat import lost_worker
from gicinpaint.config.atomic_files import atomic_file, sha256
from gicinpaint.config.progress_bar import Bar
from gicinpaint.data.dataset import OnError, check_on_error
from gicinpaint.data.image_io import MAX_PIXELS, ImageError, decode_image
from gicinpaint.data.shard_index import ShardIndex, index_path, save_index
from gicinpaint.data.sources import DatasetError, ImageSource, Names
from gicinpaint.data.transforms import Crop

Result = TypeVar("Result")
_SHOWN_EVERY = 0.1  # seconds


@dataclass(frozen=True)
class Packing:
    """How images are packed.

    Attributes:
        short_side: Images with a longer short side are reduced to it and saved as JPEG. None: every file as it is.
        quality: JPEG quality of reduced images.
        images_per_shard: Images in each shard but the last.
        seed: Seed of the order in which images are packed; they are shuffled once, here.
        on_error: "raise": a bad image stops the job. "skip": it is left out and named in the manifest; more than
            1 % of them stop the job.
    """

    short_side: int | None = None
    quality: int = 95
    images_per_shard: int = 4096
    seed: int = 0
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        if self.images_per_shard < 1 or (self.short_side is not None and self.short_side < 1):
            raise ValueError(
                "images_per_shard and short_side must be at least 1, "
                f"got {self.images_per_shard} and {self.short_side}; leave short_side empty to keep files as they are"
            )
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must lie in 1..100, got {self.quality}; use 95")
        check_on_error(self.on_error)


def write_shard(source: ImageSource, numbers: list[int], first: int, path: Path, packing: Packing) -> list[bytes]:
    """Write one shard and its index, the index last: where it exists, the shard is complete.

    Args:
        source: Where images come from.
        numbers: Indices of the images, in the order in which they are written.
        first: Number of the first image in the whole part; names the files inside.
        path: The shard.
        packing: How images are packed; with `on_error="raise"` a bad image is an `ImageError`.

    Returns:
        What was left out, one "name: reason" each.
    """
    entries, names, skipped = [], [], []
    with atomic_file(path) as partial:
        with tarfile.open(partial, mode="w", format=tarfile.USTAR_FORMAT) as shard:
            for place, number in enumerate(numbers):
                try:
                    content, suffix = _content(source, number, packing)
                except ImageError as error:
                    if packing.on_error == "raise":
                        raise
                    skipped.append(one_line(error))
                else:
                    member = tarfile.TarInfo(f"{first + place:09d}{suffix}")  # all else fixed: no time, no owner
                    member.size = len(content)
                    entries.append((shard.offset + tarfile.BLOCKSIZE, len(content)))  # behind the header
                    names.append(one_line(source.name(number)))
                    shard.addfile(member, io.BytesIO(content))
                count_image()
        size, digest = partial.stat().st_size, sha256(partial)
    table = torch.tensor(entries, dtype=torch.int64).reshape(-1, 2)
    save_index(ShardIndex(table, Names.of(names), size, digest, Names.of(skipped)), index_path(str(path)))
    return skipped


class Scanned(NamedTuple):
    """Images that a scan goes through, with the crop to the size that training needs."""

    source: ImageSource
    crop: Crop | None
    height: int
    width: int


def find_bad(subject: Scanned, numbers: list[int]) -> list[tuple[int, str]]:
    """Return the images that cannot be decoded or cropped, by number and reason."""
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
        count_image()
    return bad


def work_through(
    work: Callable[..., Result],
    subject: object,
    tasks: Sequence[tuple[Tensor, *tuple[Any, ...]]],
    workers: int,
    *,
    total: int,
    done: int = 0,
    title: str | None = None,
) -> Iterator[Result]:
    """Yield `work(subject, numbers, ...)` for every task as they end, which may be in any order.

    Args:
        work: A function of a module; it runs in other processes. What it raises is raised here and ends the rest.
        subject: Its first argument, the same for all tasks, e.g. a dataset.
        tasks: Its other arguments; the first are image numbers, int64 (N,), which it gets as a list.
        workers: Number of processes; 0 works in this one. A killed one is a `DatasetError`.
        total: Number of images.
        done: How many of them were done before.
        title: Title of the progress bar on the standard error; None shows none.
    """
    dataset = _Tasks(work, subject, tasks, max(1, workers))
    options: dict[str, Any] = {"worker_init_fn": _prepare_worker, "in_order": False}
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=None, num_workers=workers, **options)
    with Bar(total=total, initial=done, desc=title, unit="image", disable=title is None, smoothing=0.05) as bar:

        def show() -> None:
            while not dataset.stop:
                bar.update(int(dataset.counts.sum()) + done - bar.n)
                time.sleep(_SHOWN_EVERY)

        shower = threading.Thread(target=show, daemon=True)
        shower.start()  # the loop below waits for whole tasks, such as shards of thousands of images
        try:
            for result in loader:
                if isinstance(result, Exception):
                    raise result
                yield result
        except RuntimeError as error:
            if not lost_worker(error):
                raise
            raise DatasetError(
                "a worker process was killed, perhaps because memory ran out; start the job again, it goes on where it "
                "stopped, with fewer workers if need be"
            ) from None
        finally:
            dataset.stop[0] = True
            shower.join()
            bar.update(int(dataset.counts.sum()) + done - bar.n)


def count_image() -> None:
    """Count an image, or give the task up if all work was stopped; the work calls it after each image."""
    if (worker := get_worker_info()) is not None:
        tasks = cast(_Tasks, worker.dataset)
        tasks.counts[worker.id] += 1
        if tasks.stop:
            raise _StoppedError


class _StoppedError(Exception):
    """Another task failed or the user interrupted; nobody waits for this one's result."""


@dataclass(eq=False)
class _Tasks(Dataset[Any]):
    """The tasks as a dataset: item i is its result or error; `counts` are the images that each worker is done with."""

    work: Callable[..., Any]
    subject: object
    tasks: Sequence[Any]
    workers: int

    def __post_init__(self) -> None:
        self.stop = torch.zeros(1, dtype=torch.bool).share_memory_()
        self.counts = torch.zeros(self.workers, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> Any:
        numbers, *rest = self.tasks[index]
        try:
            result = self.work(self.subject, numbers.tolist(), *rest)
        except Exception as error:  # raised in the parent, as it is: a loader would put a traceback into its message
            return error
        if get_worker_info() is None:
            self.counts += len(numbers)
        return result


def _prepare_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # returns when the parent has been killed; a worker would finish its shard first
        os._exit(1)


def _content(source: ImageSource, number: int, packing: Packing) -> tuple[bytes, str]:
    """Return an image's file and its suffix, after decoding it once."""
    content = source.encoded(number)
    limit = getattr(source, "max_pixels", MAX_PIXELS)
    image = decode_image(io.BytesIO(content), source.name(number), max_pixels=limit)
    if packing.short_side is None or min(image.size) <= packing.short_side:
        with Image.open(io.BytesIO(content)) as header:
            kind = header.format or "JPEG"
        return content, {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}.get(kind, f".{kind.lower()}")
    scale = packing.short_side / min(image.size)
    width, height = (max(packing.short_side, round(scale * side)) for side in image.size)
    file = io.BytesIO()
    image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    image.save(file, format="JPEG", quality=packing.quality, subsampling=0)
    return file.getvalue(), ".jpg"


def one_line(text: object) -> bytes:
    """Return a text as the bytes of one line."""
    return os.fsencode(str(text).replace("\n", " "))
