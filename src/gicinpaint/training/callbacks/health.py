"""Training health: throughput, waiting for data, learning rates, and warnings about runs that go on but not well."""

import logging
import math
import time
from collections import deque
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from gicinpaint.data import Batch
from gicinpaint.training.module import inpainting

_NETWORKS = ("generator", "critic")  # in the order of the module's optimizers

_log = logging.getLogger(__name__)


class ThroughputMonitor(Callback):
    """Log how training goes, averaged over the last batches; the loggers decide which batches they keep.

    Logged are `speed/images_per_second` (over all processes, validation left out), `speed/waiting_share` (of the time
    between batches in which data were not there, 0 to 1), `speed/hours_left` (with validations, at the present speed)
    and `learning_rate/<network>`. It stands last among the callbacks: what others do after a batch is not waiting.

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
        self._steps: deque[tuple[float, float, int, int]] = deque(maxlen=window)  # s waiting, working; images, updates
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

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log speed, waiting, time left and learning rates."""
        now, updates = time.monotonic(), inpainting(module).generator_updates
        images = len(batch.image) * trainer.world_size
        self._steps.append((self._began - self._ended, now - self._began, images, updates - self._seen))
        self._training += now - self._ended
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


class TrainingHealth(Callback):
    """Warn when validation stays worse, data are waited for, holes differ from those trained on, or masks are empty.

    Each warning comes once. A checkpoint holds the trained holes as `trained_holes`: the smallest and the largest share
    of an image that was a hole.

    Args:
        patience: Validations without a new best value after which validation counts as worse for long.
        waiting_share: Share of the time spent waiting for data from which the loader counts as the bottleneck.
        monitor: Logged value of which a smaller one is better.
        margin: Factor by which a validation hole may be smaller or larger than all trained ones.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        patience: int = 10,
        waiting_share: float = 0.1,
        monitor: str = "validation/completed/hole/l1",
        margin: float = 1.25,
    ) -> None:
        if patience < 1 or not 0 < waiting_share <= 1 or margin < 1:
            raise ValueError(
                "patience and margin must be at least 1 and waiting_share a share, got "
                f"{patience}, {margin} and {waiting_share}; use 10, 1.25 and 0.1"
            )
        self.patience = patience
        self.waiting_share = waiting_share
        self.monitor = monitor
        self.margin = margin
        self.best, self.best_at, self.since = math.inf, 0, 0
        self.trained = [math.inf, 0.0]  # smallest and largest share of an image that was a hole in training
        self._validated = [math.inf, 0.0]
        self._shares: list[Tensor] = []
        self._slow_batches = 0
        self._said: set[str] = set()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Note the holes, and whether data were waited for."""
        self._shares.append(batch.mask.flatten(1).mean(1))
        if len(self._shares) >= 100:  # read from the device now and then only
            self._widen_trained(trainer)
        share = trainer.callback_metrics.get("speed/waiting_share")
        self._slow_batches = self._slow_batches + 1 if share is not None and share > self.waiting_share else 0
        if self._slow_batches >= 100 and share is not None:
            reason = f"{share:.0%} of the time goes into waiting for images; raise dataset.workers, use smaller files"
            self._warn("waiting", trainer, f"{reason} or pack them with `gicinpaint prepare`")

    def on_validation_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        """Note the holes."""
        _widen(self._validated, batch.mask.flatten(1).mean(1))

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Compare holes with those trained on, and the monitored value with the best."""
        if trainer.state.fn != "fit":
            return
        self._widen_trained(trainer)
        (low, high), (smallest, largest) = self._validated, self.trained
        if largest and (low * self.margin < smallest or high > largest * self.margin):
            found = f"validation has holes of {low:.1%} to {high:.1%} of an image, training of {smallest:.1%} to"
            advice = "results outside of that are guesses; make mask and dataset.validation_mask alike"
            self._warn("holes", trainer, f"{found} {largest:.1%}; {advice}")
        value, updates = trainer.callback_metrics.get(self.monitor), inpainting(module).generator_updates
        if value is not None and value.item() < self.best:
            self.best, self.best_at, self.since = value.item(), updates, 0
        elif value is not None:
            self.since += 1
            if self.since >= self.patience:
                best = f"{self.monitor} was best after {self.best_at:,} updates ({self.best:.2f})"
                now = f"has not been better in {self.since} validations ({value.item():.2f} now)"
                self._warn("worse", trainer, f"{best} and {now}; best.ckpt holds that state")

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"best": self.best, "best_at": self.best_at, "since": self.since, "said": sorted(self._said)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what the interrupted run knew."""
        self.best, self.best_at, self.since = (state_dict[name] for name in ("best", "best_at", "since"))
        self._said = set(state_dict["said"])

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the trained holes."""
        self._widen_trained(trainer)
        checkpoint["trained_holes"] = {"smallest": self.trained[0], "largest": self.trained[1]}

    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take over the trained holes."""
        if "trained_holes" in checkpoint:
            self.trained = [checkpoint["trained_holes"]["smallest"], checkpoint["trained_holes"]["largest"]]

    def _widen_trained(self, trainer: Trainer) -> None:
        if not self._shares:
            return
        shares = torch.cat(self._shares)
        self._shares = []
        _widen(self.trained, shares)
        for share, what in ((0, "without a hole"), (1, "that were all hole")):
            if count := int((shares == share).sum()):
                self._warn(what, trainer, f"{count} of the last {len(shares)} masks {what}; look at mask and its files")

    def _warn(self, what: str, trainer: Trainer, message: str) -> None:
        if what not in self._said:
            self._said.add(what)
            if trainer.is_global_zero:
                updates = inpainting(trainer.lightning_module).generator_updates
                _log.warning("after %s: %s", f"{updates:,} updates", message)


def _widen(limits: list[float], values: Tensor) -> None:
    limits[0], limits[1] = min(limits[0], values.min().item()), max(limits[1], values.max().item())
