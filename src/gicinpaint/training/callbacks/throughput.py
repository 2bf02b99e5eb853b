"""Numbers about the training itself: speed, waiting for data, time that remains, learning rates, gradients."""

import math
import time
from collections import deque
from typing import Any, NamedTuple

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from gicinpaint.training.callbacks.narrowing import inpainting

_NETWORKS = ("generator", "critic")  # in the order of the module's optimizers


class _Step(NamedTuple):
    """What one batch took, in seconds, and what it did."""

    waiting: float
    working: float
    images: int
    updates: int


class ThroughputMonitor(Callback):
    """Log how training goes, averaged over the last batches; the loggers decide which batches they keep.

    Logged are `speed/images_per_second` (over all processes, validation left out), `speed/waiting_share` (of the time
    between batches in which data were not there, 0 to 1), `speed/hours_left` (with validations, at the present speed),
    `learning_rate/<network>` and `train/<network>/gradient_norm` (of all its weights, as the step applies it). It
    stands last among the callbacks: what others do after a batch is not waiting.

    Args:
        updates: Generator updates of the whole run.
        window: Batches to average over.

    Raises:
        ValueError: If the window is empty.
    """

    def __init__(self, updates: int, window: int = 50) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1 batch, got {window}; use e.g. 50")
        self.updates = updates
        self._steps: deque[_Step] = deque(maxlen=window)
        self._training = self._validating = 0.0
        self._ended = self._began = self._paused = 0.0
        self._seen = 0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock."""
        self._steps.clear()
        self._training = self._validating = 0.0
        self._ended = time.monotonic()
        self._seen = inpainting(module).generator_updates

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note that the batch is there."""
        self._began = time.monotonic()

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: Optimizer) -> None:
        """Log the norm of the network's gradient."""
        place = next(i for i, own in enumerate(trainer.optimizers) if own is optimizer)
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        module.log(f"train/{_NETWORKS[place]}/gradient_norm", get_total_norm(gradients))

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log speed, waiting, time left and learning rates."""
        now, updates = time.monotonic(), inpainting(module).generator_updates
        images = len(batch.image) * trainer.world_size
        step = _Step(self._began - self._ended, now - self._began, images, updates - self._seen)
        self._steps.append(step)
        self._training += step.waiting + step.working
        self._ended, self._seen = now, updates
        for name, optimizer in zip(_NETWORKS, trainer.optimizers, strict=False):
            module.log(f"learning_rate/{name}", float(optimizer.param_groups[0]["lr"]))
        module.log_dict({f"speed/{name}": value for name, value in self._speed(updates).items()})

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Stop the clock."""
        self._paused = time.monotonic()

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Go on as if no time had passed."""
        passed = time.monotonic() - self._paused
        self._validating += passed
        self._ended += passed

    def _speed(self, updates: int) -> dict[str, float]:
        waiting, working, images, made = (math.fsum(column) for column in zip(*self._steps, strict=True))
        seconds = max(waiting + working, 1e-9)
        speed = {"images_per_second": images / seconds, "waiting_share": waiting / seconds}
        if made:
            with_validation = 1 + self._validating / max(self._training, 1e-9)
            speed["hours_left"] = max(0, self.updates - updates) * seconds / made * with_validation / 3600
        return speed
