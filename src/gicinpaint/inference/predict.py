"""The inpaint job: each process reads, fills and writes its own share of the files; the first says what was done."""

import logging
import os
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, ListConfig
from torch.utils.data import DataLoader

from gicinpaint.attention import ContextualAttention
from gicinpaint.config.atomic_files import write_text
from gicinpaint.config.progress_bar import Bar
from gicinpaint.config.validation import JobError, build, check_configuration
from gicinpaint.data import DatasetError
from gicinpaint.data.datamodule import ignore_signals
from gicinpaint.data.image_io import show_name
from gicinpaint.data.image_unchanged import check_format
from gicinpaint.inference.blending import Blend, check_blend
from gicinpaint.inference.canvas import HoleColour, read_colour
from gicinpaint.inference.engine import Engine, FillTask
from gicinpaint.inference.image_files import Loaded, Masks, Reader, Writer, open_source, result_names, result_paths
from gicinpaint.inference.inpainter import Inpainter
from gicinpaint.inference.regions import Method
from gicinpaint.masks.files import HOLES, read_hole
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
_NOTHING = -1  # stands in for the image of a process that has none
_PATIENCE = timedelta(days=7)


class FillFiles(LightningModule):
    """Fill images of files and write the results to `paths`.

    Process r of n takes every n-th image, from the r-th on: none is lost or done twice. What is there already is left
    out by each process for itself, after that, so the shares do not depend on when a process looks.

    The reader is made for some of the images; `hole` are the arguments of `Engine.read` that tell the hole by its
    colour and grow it; the other arguments are settings of the job.
    """

    def __init__(
        self,
        engine: Engine,
        reader: Callable[[list[int]], Reader],
        paths: list[Path],
        hole: Mapping[str, Any],
        *,
        blend: Blend,
        overwrite: bool,
        side_by_side: bool,
        workers: int,
    ) -> None:
        super().__init__()
        self.generator = engine.generator  # registered, so that the trainer moves it
        self.engine = engine
        self.reader = reader
        self.paths = paths
        self.hole = hole
        self.blend = blend
        self.overwrite = overwrite
        self.side_by_side = side_by_side
        self.workers = workers
        # what was found, by the numbers of the images; at the end that of all processes
        self.faults: list[tuple[int, str]] = []  # why an image was not filled
        self.skipped = 0  # results that were there already
        self.methods: Counter[str] = Counter()
        self.ratios: dict[int, float] = {}  # hole ratios of the images that were filled
        self.remarks: dict[str, list[int]] = {}  # images by what must be said of their results

    def predict_dataloader(self) -> DataLoader[Loaded]:
        """Return this process's share, a batch of images at a time."""
        share = list(range(len(self.paths)))[self.trainer.global_rank :: self.trainer.world_size]
        left = [index for index in share if self.overwrite or not self.paths[index].exists()]
        self.skipped, self.left = len(share) - len(left), len(left)
        # the trainer leaves the loop out where there is nothing, and the other processes would wait for this one
        images: Any = self.reader(left) if left else [Loaded(_NOTHING)]
        size, workers = self.engine.batch_size, min(self.workers, len(left))
        return DataLoader(images, batch_size=size, num_workers=workers, collate_fn=list, worker_init_fn=ignore_signals)

    def on_predict_start(self) -> None:
        """Open the writer and the progress bar."""
        self.engine = replace(self.engine, device=self.device)
        self.writer = Writer(lambda index, reason: self.faults.append((index, reason)))
        quiet = not self.trainer.is_global_zero
        self.bar = Bar(total=self.left, desc="filling", unit="image", disable=quiet, smoothing=0.05)
        # a group of its own, because shares of large images may end hours apart, where the usual wait gives up
        several = self.trainer.world_size > 1
        self.everyone: Any = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE) if several else None

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave images where they are; their regions go to the device one by one."""
        return batch

    def predict_step(self, batch: list[Loaded], batch_idx: int) -> None:
        """Fill a few images and hand them to the writer."""
        batch = [loaded for loaded in batch if loaded.number != _NOTHING]
        tasks = [(loaded, task) for loaded in batch if (task := self._read(loaded)) is not None]
        try:
            self.engine.fill([task for _, task in tasks], self.blend)
        except (torch.OutOfMemoryError, ArithmeticError) as error:
            memory = "there was not enough memory; set a smaller max_memory or batch_size"
            reason = str(error) if isinstance(error, ArithmeticError) else memory
            self.faults += [(loaded.number, reason) for loaded, _ in tasks]
            tasks = []
        for loaded, task in tasks:
            assert loaded.file is not None
            number, path = loaded.number, self.paths[loaded.number]
            self.methods[str(task.method)] += 1
            self.ratios[number] = task.hole.float().mean().item()
            for what in check_format(loaded.file, path):
                self.remarks.setdefault(what, []).append(number)
            result = loaded.file._replace(image=task.canvas.finish())
            self.writer.save(number, result, path, task.hole.numpy(), loaded.file if self.side_by_side else None)
        self.bar.update(len(batch))

    def on_predict_end(self) -> None:
        """Wait for the disk, and learn what the other processes found."""
        self.finish()
        if self.everyone is not None:
            found: list[Any] = [None] * self.trainer.world_size
            own = (self.faults, self.skipped, self.methods, self.ratios, self.remarks)
            torch.distributed.all_gather_object(found, own, group=self.everyone)
            self.faults = [fault for faults, *_ in found for fault in faults]
            self.skipped = sum(skipped for _, skipped, *_ in found)
            self.methods = sum((methods for _, _, methods, *_ in found), Counter())
            self.ratios = {number: ratio for *_, ratios, _ in found for number, ratio in ratios.items()}
            kinds = dict.fromkeys(what for *_, remarks in found for what in remarks)
            self.remarks = {what: [n for *_, remarks in found for n in remarks.get(what, ())] for what in kinds}
        self.faults.sort()

    def finish(self) -> None:
        """Wait until everything that was computed is written."""
        if hasattr(self, "writer"):
            self.writer.close()
            self.bar.close()

    def _read(self, loaded: Loaded) -> FillTask | None:
        if loaded.file is None:
            self.faults.append((loaded.number, loaded.fault))
            return None
        try:
            check_format(loaded.file, self.paths[loaded.number])  # before the work
            return self.engine.read(loaded.file.image, loaded.mask, source=loaded.source, **self.hole)
        except (ValueError, TypeError) as error:
            self.faults.append((loaded.number, str(error)))
            return None


def inpaint(config: DictConfig) -> None:
    """Fill what a configuration, `conf/inpaint.yaml` composed, names.

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
        done = f"stopped after {len(module.ratios):,} of {len(module.paths):,} images"
        print(f"{done}; the same command goes on: {config.output}", flush=True)
        if stop.code != 1:
            raise
        signal.signal(signal.SIGINT, before)  # the trainer ignores it from then on
        raise KeyboardInterrupt from None
    if trainer.is_global_zero:
        _report(module, config)


def build_module(config: DictConfig) -> FillFiles:
    """Return the module that fills; everything that is wrong before the first file shows here."""
    hole_colour: HoleColour | None = list(colour) if isinstance(colour := config.hole_colour, ListConfig) else colour
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
        where, allowed = (path and os.path.expanduser(path) for path in (config.masks, config.sources))
        masks = Masks(where, config.mask_rename, config.max_pixels, config.hole)
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
        inpainter.engine,
        partial(Reader, source, names, masks, sources, config.max_pixels),
        paths,
        {"hole_colour": hole_colour, "hole_tolerance": config.hole_tolerance, "grow": config.grow},
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
    if in_parts := [f"{methods[way]:,} {way}" for way in (Method.CROPS, Method.COARSE_TO_FINE) if way in methods]:
        parts[0] += f" ({', '.join(in_parts)})"
    if module.skipped:
        parts.append(f"{module.skipped:,} were there already (overwrite=true fills them again)")
    if without_hole:
        parts.append(f"{without_hole:,} had no hole and were written as they are")
    if module.ratios:
        parts.append(f"mean hole ratio {sum(module.ratios.values()) / len(module.ratios):.1%}")
    output = Path(os.path.expanduser(config.output))
    print(f"{'; '.join(parts)}: {show_name(output)[1:-1]}", flush=True)

    def name(number: int) -> str:
        path = module.paths[number]
        return show_name(str((path.relative_to(output) if path != output else Path(path.name)).with_suffix("")))[1:-1]

    def some(numbers: Sequence[int]) -> str:
        more = f" and {len(numbers) - _FEW:,} more" if len(numbers) > _FEW else ""
        return ", ".join(map(name, sorted(numbers)[:_FEW])) + more

    others = " or ".join(f"hole={word}" for word in HOLES if word != read_hole(config.hole))
    hint = "" if config.masks is None else f"; if the masks mark the hole otherwise, set {others}"
    if large := [number for number, ratio in module.ratios.items() if ratio > _LARGE_HOLE]:
        print(f"more than {_LARGE_HOLE:.0%} hole in {some(large)}{hint}", flush=True)
    if empty := [number for number, ratio in module.ratios.items() if ratio == 0]:
        print(f"no hole in {some(empty)}{hint}", flush=True)
    if module.ratios and (size := getattr(module.generator, "trained_size", None) or 256) < 256:  # the paper's size
        print(f"trained at {size} pixels: wrong colours in much larger images; shrink them or train larger", flush=True)
    for what, numbers in module.remarks.items():
        print(f"{what}: {some(numbers)}", flush=True)
    listing = (output if output.is_dir() else output.parent) / "not_filled.txt"
    if module.faults or output.is_dir():
        listing.unlink(missing_ok=True)
    if module.faults:
        names = [f"{name(number)}: {reason}" for number, reason in module.faults]
        write_text(listing, "\n".join(names) + "\n")
        more = f"; {len(names) - _SHOWN} more are in {listing}" if len(names) > _SHOWN else ""
        raise JobError(f"{len(names)} of {total} images not filled: {'; '.join(names[:_SHOWN])}{more}")
