"""What a run shows while it trains: the progress bar, and sheets of validation images."""

import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar, Timer
from PIL import Image
from torch import Tensor, nn

from gicinpaint.attention.visualize import attention_of, draw_completions
from gicinpaint.config.progress_bar import Bar
from gicinpaint.data import Batch
from gicinpaint.training.callbacks.stopping import inpainting
from gicinpaint.training.loggers import show_picture

_ENLARGED = partial(draw_completions, smallest_width=128)  # titles need that much room


class UpdatesProgressBar(ProgressBar):
    """A bar over generator updates with losses, images per second (by ThroughputMonitor) and the time that remains.

    Args:
        updates: Generator updates of the whole run.
    """

    def __init__(self, updates: int) -> None:
        super().__init__()
        self.updates = updates
        self._enabled = True
        self._bar: Bar | None = None

    def disable(self) -> None:
        """Show nothing; the trainer says so on every process but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open the bar at the updates already made."""
        super().on_train_start(trainer, module)
        if self._enabled:
            self._bar = Bar(
                total=self.updates,
                initial=inpainting(module).generator_updates,
                desc="training",
                unit=" updates",
                file=sys.stdout,
                mininterval=0.5,
                bar_format="{desc} {n}/{total} updates |{bar}| {elapsed} passed, {remaining} left{postfix}"
                + "".join(f", stops after {time}" for time in self._time_limits(trainer)),
            )

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar."""
        super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)
        if self._bar is not None:
            self._bar.set_postfix(self._figures(trainer), refresh=False)
            self._bar.update(inpainting(module).generator_updates - self._bar.n)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Close the bar."""
        super().on_train_end(trainer, module)
        self._close()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the error starts on a line of its own."""
        self._close()

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        if self._enabled:
            Bar.write(" ".join(map(str, args)), file=sys.stdout)

    @staticmethod
    def _time_limits(trainer: Trainer) -> list[str]:
        timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
        left = [timer.time_remaining() for timer in timers]
        return [str(timedelta(seconds=round(seconds))) for seconds in left if seconds is not None]

    def _figures(self, trainer: Trainer) -> dict[str, str]:
        logged = trainer.callback_metrics
        names = {"generator loss": "train/generator/total", "critic loss": "train/critic/total"}
        shown = {title: f"{logged[name].item():.3f}" for title, name in names.items() if name in logged}
        if (speed := logged.get("speed/images_per_second")) is not None:
            shown["images/s"] = f"{speed.item():.1f}"
        return shown

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


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
