"""Packing a dataset into WebDataset shards: in parallel, the same after any interruption, with a manifest."""

import dataclasses
import fcntl
import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image

from gicinpaint.config.atomic_files import atomic_file, remove_partial, write_text
from gicinpaint.data.dataset import OnError
from gicinpaint.data.image_io import MAX_PIXELS, ImageError, decode_image, show_name
from gicinpaint.data.listing import DatasetError, Names
from gicinpaint.data.order import random_order
from gicinpaint.data.parallel import check_stopped, work_through
from gicinpaint.data.shards import ShardIndex, load_index, save_index
from gicinpaint.data.sources import ImageSource, NamedFiles

MANIFEST = "manifest.json"
_SETTINGS = "settings.json"
_LOCK = ".lock"
_LOCK_WAIT = 10.0  # seconds; the workers of a job that was killed end within one
_LARGEST_SHARE = 0.01


@dataclasses.dataclass(frozen=True)
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
        if self.on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', got {self.on_error!r}; choose one of the two")


def prepare(
    sources: Mapping[str, ImageSource],
    output: str | os.PathLike[str],
    packing: Packing | None = None,
    *,
    workers: int = 4,
    progress: bool = True,
) -> Path:
    """Write the shards of every part of a dataset and a manifest.

    Part p goes to `output/p/shard-000000.tar`, ... with an index beside each shard. A shard is a function of the
    source and the packing alone: interrupted at any moment and started again, the job goes on with the first shard
    that is not complete and ends with the same bytes. Each shard is written under another name, synced and renamed.

    Args:
        sources: Images of each part, e.g. train and val.
        output: Folder to write to.
        packing: How images are packed.
        workers: Processes that read and pack.
        progress: Show a progress bar on the standard error.

    Returns:
        The path of the manifest: for each part the number of images and bytes, for each shard also its SHA-256, and
        the images that were left out with the reason.

    Raises:
        DatasetError: If the folder holds shards of other images or another packing, another job is writing to it, or
            too many images are bad.
        ImageError: If an image is bad and `on_error` is "raise".
    """
    packing = packing if packing is not None else Packing()
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        remove_partial(folder)  # of a job that was killed
        _check_settings(folder, sources, packing)
        parts = {
            name: _pack_part(source, folder / name, packing, workers, progress) for name, source in sources.items()
        }
        manifest = {
            "packing": dataclasses.asdict(packing),
            "parts": {name: _describe(folder / name, shards) for name, shards in parts.items()},
        }
        write_text(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return folder / MANIFEST


def write_shard(source: ImageSource, numbers: list[int], first: int, path: Path, packing: Packing) -> list[bytes]:
    """Write one shard and its index, the index last: where it exists, the shard is complete.

    Args:
        source: Where images come from.
        numbers: Indices of the images, in the order in which they are written.
        first: Number of the first image in the whole part; names the files inside.
        path: The shard.
        packing: How images are packed.

    Returns:
        What was left out, one "name: reason" each.

    Raises:
        ImageError: If an image is bad and `packing.on_error` is "raise".
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
                    skipped.append(_line(error))
                else:
                    member = tarfile.TarInfo(f"{first + place:09d}{suffix}")  # all else fixed: no time, no owner
                    member.size = len(content)
                    entries.append((shard.offset + tarfile.BLOCKSIZE, len(content)))  # behind the header
                    names.append(_line(source.name(number)))
                    shard.addfile(member, io.BytesIO(content))
                check_stopped()
        with partial.open("rb") as file:
            size, digest = os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
    table = torch.tensor(entries, dtype=torch.int64).reshape(-1, 2)
    save_index(ShardIndex(table, Names.of(names), size, digest, Names.of(skipped)), _index_of(path))
    return skipped


def _pack_part(source: ImageSource, folder: Path, packing: Packing, workers: int, progress: bool) -> list[Path]:
    folder.mkdir(exist_ok=True)
    remove_partial(folder)
    order = random_order(len(source), packing.seed, 0)
    pieces = order.split(packing.images_per_shard)
    shards = [folder / f"shard-{number:06d}.tar" for number in range(len(pieces))]
    todo = [number for number, shard in enumerate(shards) if not _is_complete(shard)]
    done = len(source) - sum(len(pieces[number]) for number in todo)
    skipped = sum(len(index.skipped) for index in map(_load, set(shards) - {shards[number] for number in todo}))
    tasks = [(pieces[n], n * packing.images_per_shard, shards[n], packing) for n in todo]
    for result in work_through(
        write_shard, source, tasks, workers, total=len(source), done=done, title=folder.name if progress else None
    ):
        skipped += len(result)
        if skipped > _LARGEST_SHARE * len(source):
            raise DatasetError(
                f"{skipped} of {len(source)} images could not be used so far, more than {_LARGEST_SHARE:.0%}; the "
                f"last: {os.fsdecode(result[-1])}; list all of them with check=true"
            )
    return shards


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


def _check_settings(folder: Path, sources: Mapping[str, ImageSource], packing: Packing) -> None:
    settings = {
        "packing": dataclasses.asdict(packing),
        "parts": {name: {"count": len(source), "names": _fingerprint(source)} for name, source in sources.items()},
    }
    kept = folder / _SETTINGS
    if kept.exists():
        before = json.loads(kept.read_text("utf-8"))
        changed = [word for word in settings if before.get(word) != settings[word]]
        if changed:
            raise DatasetError(
                f"{show_name(folder)} holds shards that were packed from other images or in another way "
                f"({' and '.join(changed)} changed); delete it, or choose another output"
            )
        return
    if any(path.name != _LOCK for path in folder.iterdir()):
        raise DatasetError(f"{show_name(folder)} holds other files; choose an empty folder as output")
    write_text(kept, json.dumps(settings, indent=1, sort_keys=True) + "\n")


def _fingerprint(source: ImageSource) -> str:
    """Return a hash of the images' names; two folders with equal names and other pixels are not told apart."""
    digest = hashlib.sha256()
    if isinstance(source, NamedFiles):  # relative names, so a moved folder is the same; millions in a second
        digest.update(source.names.data.numpy().data)
        digest.update(source.names.offsets.numpy().data)
    else:
        for index in range(len(source)):
            digest.update(_line(source.name(index)) + b"\n")
    return digest.hexdigest()


def _describe(folder: Path, shards: list[Path]) -> dict[str, object]:
    indices = [_load(shard) for shard in shards]
    return {
        "images": sum(map(len, indices)),
        "bytes": sum(index.shard_bytes for index in indices),
        "skipped": [os.fsdecode(line) for index in indices for line in index.skipped],
        "shards": [
            {
                "file": f"{folder.name}/{shard.name}",
                "images": len(index),
                "bytes": index.shard_bytes,
                "sha256": index.sha256,
            }
            for shard, index in zip(shards, indices, strict=True)
        ],
    }


def _is_complete(shard: Path) -> bool:
    index = load_index(_index_of(shard))
    return index is not None and shard.exists() and shard.stat().st_size == index.shard_bytes


def _load(shard: Path) -> ShardIndex:
    index = load_index(_index_of(shard))
    if index is None:
        raise DatasetError(f"the index of {show_name(shard)} has gone; start the job again")
    return index


def _index_of(shard: Path) -> Path:
    return shard.with_suffix(".index.npz")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder.

    Forked workers hold it too: when it is free, the last worker of a job that was killed has ended.
    """
    with open(folder / _LOCK, "w") as lock:
        deadline = time.monotonic() + _LOCK_WAIT
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise DatasetError(
                        f"another job is writing to {show_name(folder)}; wait for it or end it"
                    ) from None
                time.sleep(0.05)
        yield


def _line(text: object) -> bytes:
    return os.fsencode(str(text).replace("\n", " "))
