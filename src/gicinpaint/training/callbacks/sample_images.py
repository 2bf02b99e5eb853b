"""Sheets of validation images."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch import Tensor, nn

from gicinpaint.attention.visualize import attention_of, draw_completions
from gicinpaint.data import Batch
from gicinpaint.training.callbacks.narrowing import inpainting
from gicinpaint.training.loggers import show_picture

_ENLARGED = partial(draw_completions, smallest_width=128)  # titles need that much room


class SavePictures(Callback):
    """Draw the first validation images after each validation, for a folder and for the loggers.

    Args:
        folder: Where to write `updates_<count>.png`; its last part is the picture's name in the loggers.
        count: Number of images on a sheet.
        draw: Draws a sheet from a generator, images and masks.
        of_attention: Whether the sheet shows the attention; a generator without it gets none.
    """

    def __init__(
        self,
        folder: str | Path,
        count: int = 4,
        draw: Callable[[nn.Module, Tensor, Tensor], Image.Image] = _ENLARGED,
        of_attention: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.count = count
        self.draw = draw
        self.of_attention = of_attention
        self.last_path: Path | None = None
        self._image: Tensor | None = None
        self._mask: Tensor | None = None

    def on_validation_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        """Keep the first images."""
        if batch_idx == 0:
            self._image, self._mask = batch.image[: self.count], batch.mask[: self.count]

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Write the sheet, on the first process."""
        if not trainer.is_global_zero or self._image is None or self._mask is None:
            return
        generator, updates = inpainting(module).generator, inpainting(module).generator_updates
        if self.of_attention and attention_of(generator) is None:
            return
        sheet = self.draw(generator, self._image, self._mask)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.last_path = self.folder / f"updates_{updates:07d}.png"
        sheet.save(self.last_path)
        show_picture(trainer.loggers, f"pictures/{self.folder.name}", sheet, updates)
