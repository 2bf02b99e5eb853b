"""The inpaint job: each process reads, fills and writes its own share of the files."""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, ListConfig
from PIL import Image
from torch.utils.data import DataLoader
from tqdm import tqdm

from gicinpaint.config.atomic_files import write_text
from gicinpaint.config.validation import JobError, build, check_configuration
from gicinpaint.data import DatasetError
from gicinpaint.inference.blending import Blend, check_blend
from gicinpaint.inference.canvas import HoleColour, read_colour
from gicinpaint.inference.engine import FillTask, read_task
from gicinpaint.inference.image_files import Loaded, Masks, Reader, Writer, open_source, result_names, result_paths
from gicinpaint.inference.inpainter import Inpainter
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
_SHOWN = 20  # images that are named on the command line
_NOTHING = -1  # stands in for the image of a process that has none
_PATIENCE = timedelta(days=7)


class FillFiles(LightningModule):
    """Fill images of files and write the results.

    Process r of n takes every n-th image, from the r-th on: none is lost or done twice. What is there already is left
    out by each process for itself, after that, so the shares do not depend on when a process looks.

    Args:
        inpainter: Fills.
        reader: Makes the reader of some of the images.
        paths: Where each result goes.
        hole_colour: See `Inpainter`.
        hole_tolerance: See `Inpainter`.
        blend: See `Inpainter`.
        overwrite: Whether results that are there are made again.
        side_by_side: Whether a view of input and result is written beside each result.
        workers: Processes that read images, per device.

    Attributes:
        faults: Number and reason of each image that was not filled; at the end, of all processes.
        skipped: Results that were there already; likewise.
        methods: How many images were filled in which way; likewise.
    """

    def __init__(
        self,
        inpainter: Inpainter,
        reader: Callable[[list[int]], Reader],
        paths: list[Path],
        *,
        hole_colour: HoleColour | None = None,
        hole_tolerance: int = 0,
        blend: Blend = "none",
        overwrite: bool = False,
        side_by_side: bool = False,
        workers: int = 1,
    ) -> None:
        super().__init__()
        self.generator = inpainter.generator  # registered, so that the trainer moves it
        self.inpainter = inpainter
        self.reader = reader
        self.paths = paths
        self.hole = (hole_colour, hole_tolerance)
        self.blend = blend
        self.overwrite = overwrite
        self.side_by_side = side_by_side
        self.workers = workers
        self.faults: list[tuple[int, str]] = []
        self.skipped = 0
        self.methods: Counter[str] = Counter()

    def predict_dataloader(self) -> DataLoader[Loaded]:
        """Return this process's share, a few images at a time."""
        share = list(range(len(self.paths)))[self.trainer.global_rank :: self.trainer.world_size]
        left = [index for index in share if self.overwrite or not self.paths[index].exists()]
        self.skipped = len(share) - len(left)
        self.left = len(left)
        # the trainer leaves the loop out where there is nothing, and the other processes would wait for this one
        images: Any = self.reader(left) if left else [Loaded(_NOTHING)]
        return DataLoader(
            images,
            batch_size=self.inpainter.engine.batch_size,
            num_workers=min(self.workers, len(left)),
            collate_fn=list,
        )

    def on_predict_start(self) -> None:
        """Open the writer and the progress bar."""
        self.inpainter = Inpainter.like(self.inpainter, self.device)
        self.writer = Writer(lambda index, reason: self.faults.append((index, reason)))
        shown = self.trainer.is_global_zero
        self.bar = tqdm(total=self.left, desc="filling", unit="image", disable=not shown, smoothing=0.05)
        # a group of its own, because shares of large images may end hours apart, where the usual wait gives up
        several = self.trainer.world_size > 1
        self.everyone = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE) if several else None

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave images where they are; their regions go to the device one by one."""
        return batch

    def predict_step(self, batch: list[Loaded], batch_idx: int) -> None:
        """Fill a few images and hand them to the writer."""
        batch = [loaded for loaded in batch if loaded.number != _NOTHING]
        tasks = [(loaded, task) for loaded in batch if (task := self._read(loaded)) is not None]
        try:
            self.inpainter.engine.fill([task for _, task in tasks], self.blend)
        except torch.OutOfMemoryError:
            reason = "there was not enough memory; set a smaller max_memory or batch_size"
            self.faults += [(loaded.number, reason) for loaded, _ in tasks]
            tasks = []
        for loaded, task in tasks:
            self.methods[str(task.method)] += 1
            result = task.canvas.finish()
            original = _with_white_hole(loaded.image, task) if self.side_by_side else None
            self.writer.save(loaded.number, result, self.paths[loaded.number], original)
        self.bar.update(len(batch))

    def on_predict_end(self) -> None:
        """Wait for the disk, and learn what the other processes found."""
        self.writer.close()
        self.bar.close()
        if self.everyone is not None:
            found: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(found, (self.faults, self.skipped, self.methods), group=self.everyone)
            self.faults = [fault for faults, _, _ in found for fault in faults]
            self.skipped = sum(skipped for _, skipped, _ in found)
            self.methods = sum((methods for _, _, methods in found), Counter())
        self.faults.sort()

    def _read(self, loaded: Loaded) -> FillTask | None:
        if loaded.image is None:
            self.faults.append((loaded.number, loaded.fault))
            return None
        try:
            return read_task(loaded.image, loaded.mask, *self.hole, self.inpainter.engine.most_pixels)
        except (ValueError, TypeError) as error:
            self.faults.append((loaded.number, str(error)))
            return None


def _with_white_hole(image: Image.Image | None, task: FillTask) -> Image.Image:
    assert image is not None
    view = image.convert("RGB")
    view.paste((255, 255, 255), mask=Image.fromarray(task.hole.numpy()))
    return view


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
        write_text(listing, "\n".join(names) + "\n")
        more = f"; {len(names) - _SHOWN} more are in {listing}" if len(names) > _SHOWN else ""
        names = names[:_SHOWN]
        raise JobError(f"{len(module.faults)} of {total} images were not filled: {'; '.join(names)}{more}")


def _name(path: Path, output: str) -> str:
    """Return what an image is called in reports: its place below the input, without suffix."""
    return str(path.relative_to(output).with_suffix(""))
