"""The bar on the terminal."""

import sys
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from gicinpaint.training.callbacks.narrowing import inpainting


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
                initial=inpainting(module).generator_updates,
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
            self._bar.update(inpainting(module).generator_updates - self._bar.n)

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
