"""The inpaint job: fill image files with a model, and say what was done."""

import logging
import os
import signal
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, ListConfig

from gicinpaint.attention import ContextualAttention
from gicinpaint.config.atomic_files import write_text
from gicinpaint.config.validation import JobError, build, check_configuration
from gicinpaint.data import DatasetError
from gicinpaint.data.image_io import show_name
from gicinpaint.inference.blending import check_blend
from gicinpaint.inference.canvas import HoleColour, read_colour
from gicinpaint.inference.image_files import Masks, Reader, open_source, result_names, result_paths
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
    "sources": str | None,
    "hole": str | int,
    "grow": int,
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
_LARGE_HOLE = 0.6  # hole ratio from which on an inverted mask is more likely than such a hole
_FEW = 3  # that are named in a remark
_SHOWN = 20  # images that are named on the command line


def inpaint(config: DictConfig) -> None:
    """Fill what a configuration names.

    Args:
        config: `conf/inpaint.yaml`, composed.

    Raises:
        ConfigurationError: If a value is missing, wrong or unused.
        JobError: If there is no model or no image, or at the end if some files could not be filled; the rest are done.
        KeyboardInterrupt: After Ctrl+C; what was filled is written and counted.
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
        before = signal.getsignal(signal.SIGINT)
        trainer.predict(module, return_predictions=False)
    except (DatasetError, MisconfigurationException) as error:
        raise JobError(str(error)) from error
    except SystemExit as stop:  # Ctrl+C, which the trainer turns into exit code 1, or a signal that ends the process
        module.finish()
        print(
            f"stopped after {len(module.ratios):,} of {len(module.paths):,} images; the same command goes on: "
            f"{config.output}",
            flush=True,
        )
        if stop.code != 1:
            raise
        signal.signal(signal.SIGINT, before)  # the trainer ignores it from then on
        raise KeyboardInterrupt from None
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
    output = os.path.expanduser(config.output)
    source = open_source(os.path.expanduser(config.input), output, config.max_pixels)
    names = result_names(source)
    paths = result_paths(source, names, Path(output), config.format)
    try:
        where = None if config.masks is None else os.path.expanduser(config.masks)
        masks = Masks(where, config.mask_rename, config.max_pixels, config.hole)
        allowed = None if config.sources is None else os.path.expanduser(config.sources)
        sources = Masks(allowed, config.mask_rename, config.max_pixels, key="sources")
        check_blend(config.blend)
        if hole_colour is not None:
            read_colour(hole_colour)
        generator = load_generator(find_default() if config.checkpoint is None else config.checkpoint)
        if allowed is not None and not any(isinstance(module, ContextualAttention) for module in generator.modules()):
            raise JobError("sources: the model has no attention to limit; leave sources out or take another model")
        inpainter = Inpainter(generator, "cpu", config.max_memory, progress=False, batch_size=config.batch_size)
    except ValueError as error:
        raise JobError(str(error)) from error
    return FillFiles(
        inpainter,
        partial(Reader, source, names, masks, sources, max_pixels=config.max_pixels),
        paths,
        hole_colour=hole_colour,
        hole_tolerance=config.hole_tolerance,
        grow=config.grow,
        blend=config.blend,
        overwrite=config.overwrite,
        side_by_side=config.side_by_side,
        workers=config.workers,
    )


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
    if module.ratios:
        parts.append(f"mean hole ratio {sum(module.ratios.values()) / len(module.ratios):.1%}")
    output = Path(os.path.expanduser(config.output))
    print(f"{'; '.join(parts)}: {show_name(output)[1:-1]}", flush=True)

    def some(numbers: Sequence[int]) -> str:
        more = f" and {len(numbers) - _FEW:,} more" if len(numbers) > _FEW else ""
        return ", ".join(_name(module.paths[number], output) for number in sorted(numbers)[:_FEW]) + more

    if large := [number for number, ratio in module.ratios.items() if ratio > _LARGE_HOLE]:
        hint = "" if config.masks is None else f"; if the masks are inverted, set {_other(config.hole)}"
        print(f"more than {_LARGE_HOLE:.0%} hole in {some(large)}{hint}", flush=True)
    for what, numbers in module.left_out.items():
        print(f"not kept, {what}: {some(numbers)}", flush=True)
    listing = (output if output.is_dir() else output.parent) / "not_filled.txt"
    if module.faults or output.is_dir():
        listing.unlink(missing_ok=True)
    if module.faults:
        names = [f"{_name(module.paths[number], output)}: {reason}" for number, reason in module.faults]
        write_text(listing, "\n".join(names) + "\n")
        more = f"; {len(names) - _SHOWN} more are in {listing}" if len(names) > _SHOWN else ""
        raise JobError(f"{len(names)} of {total} images were not filled: {'; '.join(names[:_SHOWN])}{more}")


def _other(hole: str | int) -> str:
    return "hole=white" if hole in ("black", 0) else "hole=black"


def _name(path: Path, output: Path) -> str:
    """Return what an image is called in reports: its place below the input, without suffix."""
    name = str((path.relative_to(output) if path != output else Path(path.name)).with_suffix(""))
    return show_name(name)[1:-1]
