"""When training ends: after its last update, or by early stopping."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from gicinpaint.training.callbacks.narrowing import inpainting


class StopAtUpdates(Callback):
    """Stop when the generator has been updated a given number of times, resumed runs included.

    Args:
        updates: Generator updates after which to stop.

    Raises:
        ValueError: If there is none to make.
    """

    def __init__(self, updates: int) -> None:
        if updates < 1:
            raise ValueError(f"updates must be at least 1, got {updates}; the released limit is 1,000,000")
        self.updates = updates

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Stop at once if a resumed run has reached its end already."""
        self._stop_when_reached(trainer, module)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Stop when the last update has been made."""
        self._stop_when_reached(trainer, module)

    def _stop_when_reached(self, trainer: Trainer, module: LightningModule) -> None:
        if inpainting(module).generator_updates >= self.updates:
            trainer.should_stop = True
