"""The inpaint job: fill files with a model."""

import logging
import os
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, ListConfig

from gicinpaint.config.validation import JobError, build, check_configuration
from gicinpaint.data import DatasetError
from gicinpaint.inference.blending import check_blend
from gicinpaint.inference.files import Masks, Reader, open_source, result_names
from gicinpaint.inference.hole import HoleColour, read_colour
from gicinpaint.inference.inpainter import Inpainter
from gicinpaint.inference.predict_module import FillFiles
from gicinpaint.inference.regions import Method
from gicinpaint.weights.pretrained import find_default, load_generator

READS = {
    "input": str,
    "output": str,
    "checkpoint": str | None,
    "masks": str | None,
    "mask_rename": Sequence[str] | None,
    "hole_colour": str | int | Sequence[int] | None,
    "hole_tolerance": int,
    "blend": str,
    "format": str,
    "overwrite": bool,
    "side_by_side": bool,
    "workers": int,
    "batch_size": int,
    "max_memory": float,
    "max_pixels": int,
    "threads": int | None,
}
_FORMATS = ("png", "tiff", "webp", "same")
_SHOWN = 20


def inpaint(config: DictConfig) -> None:
    """Fill what a configuration names.

    Args:
        config: `conf/inpaint.yaml`, composed.

    Raises:
        ConfigurationError: If a value is missing, wrong or unused.
        JobError: If there is no model or no image, or at the end if some files could not be filled; the rest are done.
    """
    check_configuration(config, READS)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (".*does not have many workers", ".*LeafSpec.* is deprecated", "predict returned None"):
        warnings.filterwarnings("ignore", message=message)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        module = build_module(config)
        trainer: Trainer = build(config.trainer, callbacks=[], logger=False, enable_progress_bar=False)
        trainer.predict(module, return_predictions=False)
    except (DatasetError, MisconfigurationException) as error:
        raise JobError(str(error)) from error
    if trainer.is_global_zero:
        _report(module, config)


def build_module(config: DictConfig) -> FillFiles:
    """Return the module that fills; everything that is wrong before the first file shows here."""
    hole_colour: HoleColour | None = config.hole_colour
    if isinstance(hole_colour, ListConfig):
        hole_colour = list(hole_colour)
    if config.masks is None and hole_colour is None:
        raise JobError("masks: say where the holes are, with masks=FILE, masks=FOLDER or hole_colour=white")
    if config.format not in _FORMATS:
        raise JobError(f"format: expected one of {', '.join(_FORMATS)}, got {config.format}")
    if config.mask_rename is not None and len(config.mask_rename) != 2:
        raise JobError(f"mask_rename: expected [text_of_images,text_of_masks], got {list(config.mask_rename)}")
    if config.max_pixels < 1 or config.workers < 0:
        raise JobError("max_pixels and workers: expected a positive number of pixels and no negative number of workers")
    source = open_source(config.input, config.output, config.max_pixels)
    names = result_names(source)
    paths = result_paths(source, names, Path(config.output), config.format)
    masks = Masks(config.masks, config.mask_rename, config.max_pixels)
    try:
        check_blend(config.blend)
        if hole_colour is not None:
            read_colour(hole_colour)
        generator = load_generator(find_default() if config.checkpoint is None else config.checkpoint)
        inpainter = Inpainter(generator, "cpu", config.max_memory, progress=False, batch_size=config.batch_size)
    except ValueError as error:
        raise JobError(str(error)) from error
    return FillFiles(
        inpainter,
        partial(Reader, source, names, masks, max_pixels=config.max_pixels),
        paths,
        hole_colour=hole_colour,
        hole_tolerance=config.hole_tolerance,
        blend=config.blend,
        overwrite=config.overwrite,
        side_by_side=config.side_by_side,
        workers=config.workers,
    )


def result_paths(source: object, names: Sequence[str], output: Path, kind: str) -> list[Path]:
    """Return where each result goes.

    Raises:
        JobError: If two results would go to one place.
    """
    own = [os.path.splitext(source.path(i))[1] if hasattr(source, "path") else ".png" for i in range(len(names))]
    suffixes = own if kind == "same" else [f".{kind}"] * len(names)
    paths = [output / f"{name}{suffix}" for name, suffix in zip(names, suffixes, strict=True)]
    seen: dict[Path, int] = {}
    for index, path in enumerate(paths):
        if path in seen:
            hint = "set format=same" if kind != "same" else "fill them by two runs into two folders"
            raise JobError(f"two images, {own[seen[path]]} and {own[index]}, would become {path}; {hint}")
        seen[path] = index
    return paths


def _report(module: FillFiles, config: DictConfig) -> None:
    total, methods = len(module.paths), dict(module.methods)
    without_hole = methods.pop(Method.NOTHING, 0)
    filled = total - len(module.faults) - module.skipped - without_hole
    parts = [f"{filled:,} of {total:,} images filled"]
    if set(methods) - {Method.WHOLE}:
        parts[0] += f" ({', '.join(f'{count:,} {method}' for method, count in sorted(methods.items()))})"
    if module.skipped:
        parts.append(f"{module.skipped:,} were there already (overwrite=true fills them again)")
    if without_hole:
        parts.append(f"{without_hole:,} had no hole and were written as they are")
    print(f"{'; '.join(parts)}: {config.output}", flush=True)
    listing = Path(config.output) / "not_filled.txt"
    listing.unlink(missing_ok=True)
    if module.faults:
        names = [f"{_name(module.paths[index], config.output)}: {reason}" for index, reason in module.faults]
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("\n".join(names) + "\n", encoding="utf-8")
        more = f"; {len(names) - _SHOWN} more are in {listing}" if len(names) > _SHOWN else ""
        names = names[:_SHOWN]
        raise JobError(f"{len(module.faults)} of {total} images were not filled: {'; '.join(names)}{more}")


def _name(path: Path, output: str) -> str:
    """Return what an image is called in reports: its place below the input, without suffix."""
    return str(path.relative_to(output).with_suffix(""))
