"""The prepare job: pack a dataset into shards, or scan it for images that training could not use."""

import json
import logging
from pathlib import Path

from omegaconf import DictConfig

from gicinpaint.config.validation import ConfigurationError, JobError, build, check_configuration
from gicinpaint.data.bad_images import scan
from gicinpaint.data.image_io import show_name
from gicinpaint.data.packing import prepare
from gicinpaint.data.sources import ImageSource

READS = {
    "check": bool,
    "output": str | None,
    "report": str,
    "workers": int,
    "seed": int,
    "data_dir": str,
}
PARTS = {"train": "train", "val": "validation"}  # folder of the shards: the dataset's key

_LOG = logging.getLogger(__name__)


def run_prepare(config: DictConfig) -> None:
    """Pack or scan the dataset that a configuration names.

    Args:
        config: `conf/prepare.yaml`, composed.

    Raises:
        ConfigurationError: If a value is missing, wrong or unused.
        JobError: If the data is absent, too much of it is bad, the output cannot be written, or a scan found bad
            images; the report names them.
    """
    check_configuration(config, READS)
    if config.workers < 0:
        raise ConfigurationError(f"workers: expected 0 or more, got {config.workers}; 0 works without processes")
    if not config.check and config.output is None:
        raise ConfigurationError("output: a folder for the shards is missing; set it with output=<folder>")
    sources = {folder: build(config.dataset[key]) for folder, key in PARTS.items()}
    counts = " and ".join(f"{len(source):,} {folder}" for folder, source in sources.items())
    _LOG.info(f"{counts} images")
    try:
        (_check if config.check else _pack)(config, sources)
    except (ValueError, OSError) as error:
        raise JobError(str(error)) from error


def _pack(config: DictConfig, sources: dict[str, ImageSource]) -> None:
    manifest = prepare(sources, config.output, build(config.packing), workers=config.workers)
    for name, part in json.loads(manifest.read_text("utf-8"))["parts"].items():
        skipped = f", {len(part['skipped'])} bad ones left out" if part["skipped"] else ""
        size = f"{part['bytes'] / 1e9:.3f} GB"
        _LOG.info(f"{name:5} {part['images']:,} images in {len(part['shards'])} shards, {size}{skipped}")
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
