"""What happens around the training steps, counted in generator updates: stopping, saving, progress, pictures."""

import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar
from torch import Tensor
from tqdm import tqdm

from gicinpaint.data import Batch
from gicinpaint.module import InpaintingModule
from gicinpaint.pictures import draw_completions


class StopAtUpdates(Callback):
    """Stop when the generator has been updated a given number of times, resumed runs included.

    Args:
        updates: Generator updates after which to stop.
    """

    def __init__(self, updates: int) -> None:
        self.updates = updates

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Stop at once if a resumed run has reached its end already."""
        self._stop_when_reached(trainer, module)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Stop when the last update has been made."""
        self._stop_when_reached(trainer, module)

    def _stop_when_reached(self, trainer: Trainer, module: LightningModule) -> None:
        if _inpainting(module).generator_updates >= self.updates:
            trainer.should_stop = True


class SaveByUpdates(Callback):
    """Save `last.ckpt` every few generator updates and at the end, and `best.ckpt` after the best validation.

    Args:
        folder: Where to save.
        every: Generator updates between two saves.
        monitor: Logged value of which a smaller one is better.
    """

    def __init__(self, folder: str | Path, every: int = 1000, monitor: str = "validation/completed/hole/l1") -> None:
        self.folder = Path(folder)
        self.every = every
        self.monitor = monitor
        self.best = math.inf
        self._saved_at = -1

    @property
    def last_path(self) -> Path:
        """Path of the newest checkpoint."""
        return self.folder / "last.ckpt"

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Save if enough updates have passed."""
        updates = _inpainting(module).generator_updates
        if updates and updates % self.every == 0 and updates != self._saved_at:
            self._save_last(trainer, updates)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Save if the monitored value is the best so far."""
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.state.fn == "fit" and value is not None and value.item() < self.best:
            self.best = value.item()
            trainer.save_checkpoint(self.folder / "best.ckpt", weights_only=False)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Save the final state."""
        if _inpainting(module).generator_updates != self._saved_at:
            self._save_last(trainer, _inpainting(module).generator_updates)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what the interrupted run knew."""
        self.best = state_dict["best"]

    def _save_last(self, trainer: Trainer, updates: int) -> None:
        self._saved_at = updates
        trainer.save_checkpoint(self.last_path, weights_only=False)


class UpdatesProgressBar(ProgressBar):
    """A bar over generator updates with losses, images per second and the time that remains.

    Args:
        updates: Generator updates of the whole run.
    """

    def __init__(self, updates: int) -> None:
        super().__init__()
        self.updates = updates
        self._enabled = True
        self._bar: tqdm | None = None
        self._images = 0
        self._seconds = 0.0
        self._resumed = 0.0

    def disable(self) -> None:
        """Show nothing; the trainer says so on every process but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open the bar at the updates already made."""
        super().on_train_start(trainer, module)
        self._images, self._seconds, self._resumed = 0, 0.0, time.monotonic()
        if self._enabled:
            self._bar = tqdm(
                total=self.updates,
                initial=_inpainting(module).generator_updates,
                desc="training",
                unit=" updates",
                file=sys.stdout,
                mininterval=0.5 if sys.stdout.isatty() else 20,
                dynamic_ncols=True,
                bar_format="{desc} {n}/{total} updates |{bar}| {elapsed} passed, {remaining} left{postfix}",
            )

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar."""
        super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)
        self._images += len(batch.image) * trainer.world_size
        if self._bar is not None:
            self._bar.set_postfix(self._figures(trainer), refresh=False)
            self._bar.update(_inpainting(module).generator_updates - self._bar.n)

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Stop the clock of the images per second."""
        self._seconds += time.monotonic() - self._resumed

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock again."""
        self._resumed = time.monotonic()

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
            tqdm.write(" ".join(map(str, args)), file=sys.stdout)

    def _figures(self, trainer: Trainer) -> dict[str, str]:
        seconds = self._seconds + time.monotonic() - self._resumed
        losses = {name: trainer.callback_metrics.get(f"train/{name}/total") for name in ("generator", "critic")}
        shown = {f"{name} loss": f"{loss.item():.3f}" for name, loss in losses.items() if loss is not None}
        return {**shown, "images/s": f"{self._images / max(seconds, 1e-9):.1f}"}

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class SavePictures(Callback):
    """Draw the first validation images after each validation.

    Args:
        folder: Where to write `updates_<count>.png`.
        count: Number of images on a sheet.
    """

    def __init__(self, folder: str | Path, count: int = 4) -> None:
        self.folder = Path(folder)
        self.count = count
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
        sheet = draw_completions(_inpainting(module).generator, self._image, self._mask)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.last_path = self.folder / f"updates_{_inpainting(module).generator_updates:07d}.png"
        sheet.save(self.last_path)


def _inpainting(module: LightningModule) -> InpaintingModule:
    if not isinstance(module, InpaintingModule):
        raise TypeError(f"expected an InpaintingModule, got {type(module).__name__}; these callbacks count its updates")
    return module
