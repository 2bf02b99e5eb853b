"""When training ends: early stopping by updates, and signals that ask a run to end."""

import signal
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from gicinpaint.training.module import InpaintingModule

# Preemption, Ctrl+C, and a terminal that was closed.
CAUGHT = (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


def inpainting(module: LightningModule) -> InpaintingModule:
    """Return the module as what it must be.

    Raises:
        TypeError: If it is another one.
    """
    if not isinstance(module, InpaintingModule):
        raise TypeError(f"expected an InpaintingModule, got {type(module).__name__}; these callbacks count its updates")
    return module


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


class InterruptionError(Exception):
    """A run that was asked to end and has saved its state.

    Args:
        number: Signal that asked for it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell reports for a process that a signal has ended."""
        return 128 + self.number


class SignalNote:
    """Remember the first signal that asks the run to end; a second Ctrl+C interrupts at once."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Start to listen, in place of what listened before; threads other than the main one cannot."""
        for number in CAUGHT if current_thread() is main_thread() else ():
            self._before.setdefault(number, signal.signal(number, self._note))

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = number
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
