"""The predict loop: each process reads, fills and writes its own share of the files."""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from PIL import Image
from torch.utils.data import DataLoader
from tqdm import tqdm

from gicinpaint.inference.blending import Blend
from gicinpaint.inference.engine import Picture, read_picture
from gicinpaint.inference.files import Loaded, Reader
from gicinpaint.inference.hole import HoleColour
from gicinpaint.inference.inpainter import Inpainter
from gicinpaint.inference.results import Writer

Fault = tuple[int, str]
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
        self.faults: list[Fault] = []
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
        """Leave pictures where they are; their regions go to the device one by one."""
        return batch

    def predict_step(self, batch: list[Loaded], batch_idx: int) -> None:
        """Fill a few images and hand them to the writer."""
        batch = [loaded for loaded in batch if loaded.number != _NOTHING]
        pictures = [(loaded, picture) for loaded in batch if (picture := self._read(loaded)) is not None]
        try:
            self.inpainter.engine.fill([picture for _, picture in pictures], self.blend)
        except torch.OutOfMemoryError:
            reason = "there was not enough memory; set a smaller max_memory or batch_size"
            self.faults += [(loaded.number, reason) for loaded, _ in pictures]
            pictures = []
        for loaded, picture in pictures:
            self.methods[str(picture.method)] += 1
            result = picture.canvas.finish()
            original = _with_white_hole(loaded.image, picture) if self.side_by_side else None
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

    def _read(self, loaded: Loaded) -> Picture | None:
        if loaded.image is None:
            self.faults.append((loaded.number, loaded.fault))
            return None
        try:
            picture = read_picture(loaded.image, loaded.mask, *self.hole, self.inpainter.engine.most_pixels)
        except (ValueError, TypeError) as error:
            self.faults.append((loaded.number, str(error)))
            return None
        return picture


def _with_white_hole(image: Image.Image | None, picture: Picture) -> Image.Image:
    assert image is not None
    view = image.convert("RGB")
    view.paste((255, 255, 255), mask=Image.fromarray(picture.hole.numpy()))
    return view
