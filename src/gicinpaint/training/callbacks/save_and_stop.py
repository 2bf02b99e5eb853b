"""When a checkpoint is written and training ends: by time, early stopping by updates, signals that ask a run to end."""

import logging
import math
import signal
import time
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from gicinpaint.compat import run_validation
from gicinpaint.config.atomic_files import remove_partial
from gicinpaint.training.checkpoint import BEST, LAST, PREVIOUS
from gicinpaint.training.gradients import NonFiniteError
from gicinpaint.training.loggers import flush
from gicinpaint.training.module import inpainting

# Preemption, Ctrl+C, and a terminal that was closed.
CAUGHT = (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))

_log = logging.getLogger(__name__)


class SaveByUpdates(Callback):
    """Save `last.ckpt` every few generator updates or minutes, at the end and when asked to end, and `best.ckpt`.

    The state is that between two batches, validation included, so a resumed run continues as if nothing had happened.
    `previous.ckpt` is the one before `last.ckpt`. All processes decide alike: an interval in minutes is measured by the
    first, and a signal to any of them ends all. SIGTERM (preemption) and Ctrl+C are noted, and act before the next
    batch, of training or of validation.

    Args:
        folder: Where to save.
        every: Generator updates between two saves.
        minutes: Minutes between two saves, if that is sooner; None: by updates only.
        monitor: Logged value of which a smaller one is better.

    Raises:
        ValueError: If an interval is not positive.
    """

    def __init__(
        self,
        folder: str | Path,
        every: int = 1000,
        minutes: float | None = 30,
        monitor: str = "validation/completed/hole/l1",
    ) -> None:
        if every < 1 or (minutes is not None and minutes <= 0):
            raise ValueError(
                f"every and minutes must be positive, got {every} and {minutes}; "
                "use every=1000 and minutes=30, or minutes=null for none"
            )
        self.folder = Path(folder)
        self.last_path = self.folder / LAST
        self.every = every
        self.minutes = minutes
        self.monitor = monitor
        self.best = math.inf
        self._signals = SignalNote()
        self._validation_cut = False  # by a signal; it is made up for after the resume
        self._saved_at = (-1, 0)  # batches seen and generator updates of the last save
        self._saved_time = 0.0

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Delete what a killed run left half-written."""
        if trainer.is_global_zero:
            remove_partial(self.folder)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Count intervals from here, and listen to signals in place of the trainer."""
        module = inpainting(module)
        resumed_here = trainer.ckpt_path is not None and Path(trainer.ckpt_path) == self.last_path
        self._saved_at = (module.batches_seen if resumed_here else -1, module.generator_updates)
        self._saved_time = time.monotonic()
        self._signals.install()
        if self._validation_cut:
            self._validation_cut = False
            run_validation(trainer)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Save if enough updates or time have passed; end if that was asked for."""
        updates = inpainting(module).generator_updates
        late = self.minutes is not None and time.monotonic() - self._saved_time > 60 * self.minutes
        number, overdue = self._agree(trainer, self._signals.number, late and trainer.is_global_zero)
        if number:
            raise InterruptionError(number)
        if overdue or updates // self.every > self._saved_at[1] // self.every:
            self._save_last(trainer, module)

    def on_validation_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """End if that was asked for."""
        if trainer.state.fn == "fit":
            (number,) = self._agree(trainer, self._signals.number)
            if number:
                self._validation_cut = True
                raise InterruptionError(number)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Save if the monitored value is the best so far."""
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.state.fn == "fit" and value is not None and value.item() < self.best:
            self.best = value.item()
            self._save(trainer, module, BEST)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Save the final state."""
        self._save_last(trainer, module)
        self._signals.restore()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Save what all processes agreed to end with; after any other error they may not meet any more."""
        if isinstance(exception, InterruptionError | NonFiniteError):
            self._save_last(trainer, module)
        self._signals.restore()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"best": self.best, "validation_cut": self._validation_cut}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what the interrupted run knew."""
        self.best = state_dict["best"]
        self._validation_cut = state_dict.get("validation_cut", False)

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add how far the loggers' files reach, which must survive a kill too."""
        checkpoint["logged"] = flush(trainer.loggers) if trainer.is_global_zero else {}

    def _save_last(self, trainer: Trainer, module: LightningModule) -> None:
        seen = (inpainting(module).batches_seen, inpainting(module).generator_updates)
        self._saved_time = time.monotonic()
        if seen != self._saved_at:
            self._saved_at = seen
            self._save(trainer, module, LAST, {"previous": self.folder / PREVIOUS})

    def _save(self, trainer: Trainer, module: LightningModule, name: str, options: Any = None) -> None:
        if all(weight.isfinite().all() for weight in module.parameters()):
            trainer.save_checkpoint(self.folder / name, weights_only=False, storage_options=options)
        else:
            _log.warning("%s was not saved: some weights are not finite", name)

    @staticmethod
    def _agree(trainer: Trainer, *flags: int) -> list[int]:
        """Return the largest of all processes' values; each must call this."""
        if trainer.world_size == 1:
            return list(flags)
        values = torch.tensor(flags, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MAX)
        return values.tolist()


class StopAtUpdates(Callback):
    """Stop when the generator has been updated a given number of times, resumed runs included."""

    def __init__(self, updates: int) -> None:
        if updates < 1:
            raise ValueError(f"updates must be at least 1, got {updates}")
        self.updates = updates

    def on_train_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Stop if the last update has been made; a resumed run may have reached it already."""
        if inpainting(module).generator_updates >= self.updates:
            trainer.should_stop = True

    on_train_batch_end = on_train_start  # type: ignore[assignment]


class InterruptionError(Exception):
    """A run that was asked to end by a signal, given by its number, and has saved its state."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number  # what a shell reports for a process that a signal has ended


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
