"""The prepare job: pack a dataset into shards, the same ones after any interruption, or scan it for bad images."""

import dataclasses
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import DictConfig

from gicinpaint.config.atomic_files import lock_file, remove_partial, sha256, write_text
from gicinpaint.config.validation import ConfigurationError, JobError, build, check_configuration
from gicinpaint.data.dataset import LARGEST_SHARE
from gicinpaint.data.image_io import show_name
from gicinpaint.data.order import random_order
from gicinpaint.data.packing import Packing, Scanned, find_bad, one_line, work_through, write_shard
from gicinpaint.data.shard_index import ShardIndex, index_path, is_remote, load_index, read_index
from gicinpaint.data.shards import TarShards
from gicinpaint.data.sources import DatasetError, ImageSource, NamedFiles
from gicinpaint.data.transforms import Crop

READS = {"check": bool, "output": str | None, "report": str, "workers": int, "seed": int, "data_dir": str}
PARTS = {"train": "train", "val": "validation"}  # folder of the shards: the dataset's key
MANIFEST = "manifest.json"
_SETTINGS = "settings.json"
_LOCK = ".lock"
_LOCK_WAIT = 10.0  # seconds; the workers of a job that was killed end within one
_CHUNK = 256  # images per task of a scan
_LOG = logging.getLogger(__name__)


def run_prepare(config: DictConfig) -> None:
    """Pack or scan the dataset that a configuration names.

    Raises:
        ConfigurationError: If a value is missing, wrong or unused.
        JobError: If the data is absent, too much of it is bad, the output cannot be written, or a scan found some.
    """
    check_configuration(config, READS)
    if config.workers < 0:
        raise ConfigurationError(f"workers: expected 0 or more, got {config.workers}; 0 works without processes")
    if not config.check and config.output is None:
        raise ConfigurationError("output: a folder for the shards is missing; set it with output=<folder>")
    sources = {folder: build(config.dataset[key]) for folder, key in PARTS.items()}
    _LOG.info(" and ".join(f"{len(source):,} {folder}" for folder, source in sources.items()) + " images")
    try:
        (_check if config.check else _pack)(config, sources)
    except (ValueError, OSError) as error:
        raise JobError(str(error)) from error


def _pack(config: DictConfig, sources: dict[str, ImageSource]) -> None:
    manifest = prepare(sources, config.output, build(config.packing), workers=config.workers)
    for name, part in json.loads(manifest.read_text("utf-8"))["parts"].items():
        skipped = f", {len(part['skipped'])} bad ones left out" if part["skipped"] else ""
        size = f"{part['bytes'] / 1e9:,.1f} GB" if part["bytes"] >= 1e9 else f"{part['bytes'] / 1e6:,.1f} MB"
        shards = f"{(count := len(part['shards'])):,} shard{'s' * (count != 1)}"
        _LOG.info(f"{name:5} {part['images']:,} images in {shards}, {size}{skipped}")
    _LOG.info(f"counts, bytes and SHA-256 are in {manifest}")
    _LOG.info(f"train with dataset=shards data_dir={Path(config.output).absolute()}")


def _check(config: DictConfig, sources: dict[str, ImageSource]) -> None:
    size = config.dataset.image_size
    height, width = (size, size) if isinstance(size, int) else size
    crops = {"train": build(config.dataset.train_crop)}  # the crop of validation takes any size
    found = scan(sources, config.report, crops=crops, image_size=(height, width), workers=config.workers)
    if found.bad:
        raise JobError(
            f"{found.bad:,} of {found.images:,} images cannot be used; {show_name(found.report)} names them: remove "
            "or replace them, or set dataset.on_error=skip, which skips up to 1 %"
        )
    _LOG.info(f"all {found.images:,} images can be used; report: {found.report}")


def prepare(
    sources: Mapping[str, ImageSource],
    output: str | os.PathLike[str],
    packing: Packing | None = None,
    *,
    workers: int = 4,
    progress: bool = True,
) -> Path:
    """Write the shards of every part of a dataset and a manifest; return the path of the manifest.

    Part p goes to `output/p/shard-000000.tar`, ... with an index beside each shard. A shard is a function of the
    source and the packing alone: interrupted at any moment and started again, the job goes on with the first shard
    that is not complete and ends with the same bytes. The manifest has the number of images and bytes of each part, for
    each shard also its SHA-256, and the images that were left out with the reason.

    Args:
        sources: Images of each part, e.g. train and val.
        output: Folder to write to.
        packing: How images are packed.
        workers: Processes that read and pack.
        progress: Show a progress bar on the standard error.

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


class Scan(NamedTuple):
    """How many images a scan looked at, how many of them and of the shards are bad, and the report of these."""

    images: int
    bad: int
    report: Path


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
    """
    lines = []
    for part, source in sources.items():
        subject = Scanned(source, (crops or {}).get(part), *image_size)
        tasks = [(chunk,) for chunk in torch.arange(len(source)).split(_CHUNK)]
        title = f"check {part}" if progress else None
        found: list[tuple[int, str]] = []
        for result in work_through(find_bad, subject, tasks, workers, total=len(source), title=title):
            found += result
        lines += [f"{part}\t{index}\t{reason}" for index, reason in sorted(found)]
        if isinstance(source, TarShards):
            lines += [f"{part}\t-\t{reason}" for reason in _changed_shards(source)]
    path = Path(report)
    images = sum(map(len, sources.values()))
    head = f"# {len(lines)} bad of {images} images: part, number, reason\n"
    write_text(path, head + "".join(line + "\n" for line in lines))
    return Scan(images, len(lines), path)


def _changed_shards(source: TarShards) -> Iterator[str]:
    for shard in source.shards:
        recorded = "" if is_remote(shard) else read_index(shard, source.cache).sha256
        if recorded and sha256(shard) != recorded:
            yield f"the shard {show_name(shard)} differs from its SHA-256; copy it again or pack it again"


def _pack_part(source: ImageSource, folder: Path, packing: Packing, workers: int, progress: bool) -> list[Path]:
    folder.mkdir(exist_ok=True)
    remove_partial(folder)
    order = random_order(len(source), packing.seed, 0)
    pieces = order.split(packing.images_per_shard)
    shards = [folder / f"shard-{number:06d}.tar" for number in range(len(pieces))]
    found = [_index_of_complete(shard) for shard in shards]
    complete = {number: index for number, index in enumerate(found) if index is not None}
    done = sum(len(pieces[number]) for number in complete)
    skipped = sum(len(index.skipped) for index in complete.values())
    starts = range(0, len(source), packing.images_per_shard)
    tasks = [task for n, task in enumerate(zip(pieces, starts, shards, strict=True)) if n not in complete]
    work, title = partial(write_shard, packing=packing), f"pack {folder.name}" if progress else None
    for result in work_through(work, source, tasks, workers, total=len(source), done=done, title=title):
        skipped += len(result)
        if skipped > LARGEST_SHARE * len(source):
            raise DatasetError(
                f"{skipped} of {len(source)} images could not be used so far, more than {LARGEST_SHARE:.0%}; the "
                f"last: {os.fsdecode(result[-1])}; list all of them with check=true"
            )
    return shards


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
    """Return a hash of the images' names; other pixels under the same names do not change it."""
    digest = hashlib.sha256()
    if isinstance(source, NamedFiles):  # relative names, so a moved folder is the same; millions in a second
        digest.update(source.names.data.numpy().data)
        digest.update(source.names.offsets.numpy().data)
    else:
        for index in range(len(source)):
            digest.update(one_line(source.name(index)) + b"\n")
    return digest.hexdigest()


def _describe(folder: Path, shards: list[Path]) -> dict[str, object]:
    indices = [index for shard in shards if (index := _index_of_complete(shard)) is not None]
    if len(indices) < len(shards):
        raise DatasetError(f"a shard in {show_name(folder)} or its index is missing; start the job again")
    return {
        "images": sum(map(len, indices)),
        "bytes": sum(index.shard_bytes for index in indices),
        "skipped": [os.fsdecode(line) for index in indices for line in index.skipped],
        "shards": [
            {"file": f"{folder.name}/{shard.name}", "images": len(i), "bytes": i.shard_bytes, "sha256": i.sha256}
            for shard, i in zip(shards, indices, strict=True)
        ],
    }


def _index_of_complete(shard: Path) -> ShardIndex | None:
    index = load_index(index_path(str(shard)))
    return index if index is not None and shard.exists() and shard.stat().st_size == index.shard_bytes else None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder."""
    with open(folder / _LOCK, "w") as lock:
        deadline = time.monotonic() + _LOCK_WAIT
        while True:
            try:
                lock_file(lock)
                break
            except OSError:
                if time.monotonic() > deadline:
                    place = show_name(folder)
                    raise DatasetError(f"another job is writing to {place}; wait for it or end it") from None
                time.sleep(0.05)
        yield
