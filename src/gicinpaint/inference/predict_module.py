"""The predict loop: each process reads, fills and writes its own share of the files."""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch.utils.data import DataLoader

from gicinpaint.config.progress_bar import Bar
from gicinpaint.data.image_unchanged import check_format
from gicinpaint.inference.blending import Blend
from gicinpaint.inference.canvas import HoleColour
from gicinpaint.inference.engine import FillTask, read_task
from gicinpaint.inference.image_files import Loaded, Reader, Writer
from gicinpaint.inference.inpainter import Inpainter

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
        grow: Pixels by which each hole is grown, or shrunk if negative.
        blend: See `Inpainter`.
        overwrite: Whether results that are there are made again.
        side_by_side: Whether a view of input and result is written beside each result.
        workers: Processes that read images, per device.

    Attributes:
        faults: Number and reason of each image that was not filled; at the end, of all processes.
        skipped: Results that were there already; likewise.
        methods: How many images were filled in which way; likewise.
        ratios: Number and hole ratio of each image that was filled; likewise.
        left_out: What a result could not keep of its image's file, and the numbers of the images; likewise.
    """

    def __init__(
        self,
        inpainter: Inpainter,
        reader: Callable[[list[int]], Reader],
        paths: list[Path],
        *,
        hole_colour: HoleColour | None = None,
        hole_tolerance: int = 0,
        grow: int = 0,
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
        self.hole = (hole_colour, hole_tolerance, grow)
        self.blend = blend
        self.overwrite = overwrite
        self.side_by_side = side_by_side
        self.workers = workers
        self.faults: list[tuple[int, str]] = []
        self.skipped = 0
        self.methods: Counter[str] = Counter()
        self.ratios: dict[int, float] = {}
        self.left_out: dict[str, list[int]] = {}

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
        self.bar = Bar(total=self.left, desc="filling", unit="image", disable=not shown, smoothing=0.05)
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
        except (torch.OutOfMemoryError, ArithmeticError) as error:
            reason = "there was not enough memory; set a smaller max_memory or batch_size"
            if isinstance(error, ArithmeticError):
                reason = str(error)
            self.faults += [(loaded.number, reason) for loaded, _ in tasks]
            tasks = []
        for loaded, task in tasks:
            assert loaded.file is not None
            number, path = loaded.number, self.paths[loaded.number]
            self.methods[str(task.method)] += 1
            self.ratios[number] = task.hole.float().mean().item()
            for what in check_format(loaded.file, path):
                self.left_out.setdefault(what, []).append(number)
            result = loaded.file._replace(image=task.canvas.finish())
            self.writer.save(number, result, path, task.hole.numpy(), loaded.file if self.side_by_side else None)
        self.bar.update(len(batch))

    def finish(self) -> None:
        """Wait for the disk; results that were computed are written."""
        if hasattr(self, "writer"):
            self.writer.close()
            self.bar.close()

    def on_predict_end(self) -> None:
        """Wait for the disk, and learn what the other processes found."""
        self.finish()
        if self.everyone is not None:
            found: list[Any] = [None] * self.trainer.world_size
            own = (self.faults, self.skipped, self.methods, self.ratios, self.left_out)
            torch.distributed.all_gather_object(found, own, group=self.everyone)
            self.faults = [fault for faults, *_ in found for fault in faults]
            self.skipped = sum(skipped for _, skipped, *_ in found)
            self.methods = sum((methods for _, _, methods, *_ in found), Counter())
            self.ratios = {number: ratio for *_, ratios, _ in found for number, ratio in ratios.items()}
            self.left_out = {}
            for what, numbers in ((what, numbers) for *_, left_out in found for what, numbers in left_out.items()):
                self.left_out.setdefault(what, []).extend(numbers)
        self.faults.sort()

    def _read(self, loaded: Loaded) -> FillTask | None:
        if loaded.file is None:
            self.faults.append((loaded.number, loaded.fault))
            return None
        try:
            check_format(loaded.file, self.paths[loaded.number])  # before the work
            how: Any = {"divide": self.inpainter.engine.divide, "source": loaded.source}
            return read_task(loaded.file.image, loaded.mask, *self.hole, **how)
        except (ValueError, TypeError) as error:
            self.faults.append((loaded.number, str(error)))
            return None
