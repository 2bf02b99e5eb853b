"""What a run says: what is about to happen, how it ended, and where its results lie."""

import logging
import math
from datetime import timedelta
from pathlib import Path
from typing import cast

from lightning import Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.trainer.states import RunningStage
from omegaconf import DictConfig

from gicinpaint.config.validation import JobError
from gicinpaint.data import InpaintingDataModule
from gicinpaint.losses import Wasserstein
from gicinpaint.training.callbacks import SaveByUpdates, SavePictures
from gicinpaint.training.checkpoint import BEST
from gicinpaint.training.module import InpaintingModule

_SMALL_BATCH = 8  # with fewer images the Wasserstein critics are known to fail

_log = logging.getLogger(__name__)


def opening(
    config: DictConfig,
    module: InpaintingModule,
    data: InpaintingDataModule,
    trainer: Trainer,
    checkpoint: Path | None = None,
) -> str:
    """Return what is about to happen, in a few lines."""
    parameters = sum(parameter.numel() for parameter in module.generator.parameters())
    shared = f" ({data.batch_size // trainer.world_size} on each of {trainer.world_size} devices)"
    start = f"continues {checkpoint}" if checkpoint else "starts at zero"
    if data.batch_size < _SMALL_BATCH and module.critics and isinstance(module.loss.adversary, Wasserstein):
        _log.warning(
            "batches of %d images: Wasserstein critics are known to fail below %d; set dataset.batch_size=%d, and "
            "model.micro_batches=2 or more if memory is short",
            *(data.batch_size, _SMALL_BATCH, 2 * _SMALL_BATCH),
        )
    return (
        f"{len(data.train):,} training and {len(data.validation):,} validation images, {data.batch_size} per batch"
        f"{shared if trainer.world_size > 1 else ''}; "
        f"a generator of {parameters:,} parameters, {config.updates:,} updates; {start}\n"
        f"everything goes to {config.output}"
    )


def best_checkpoint(trainer: Trainer) -> Path | None:
    """Return where the best checkpoint lies, if checkpoints are saved."""
    folders = [callback.folder for callback in trainer.callbacks if isinstance(callback, SaveByUpdates)]  # type: ignore[attr-defined]
    return folders[0] / BEST if folders else None


def best_value(trainer: Trainer) -> float | None:
    """Return the best monitored value of a run; the last one if it was never compared, None if it was not logged."""
    saved = next((callback for callback in trainer.callbacks if isinstance(callback, SaveByUpdates)), None)  # type: ignore[attr-defined]
    if saved is not None and math.isfinite(saved.best):
        return saved.best
    value = trainer.callback_metrics.get(saved.monitor if saved else "validation/completed/hole/l1")
    return None if value is None else value.item()


def report(trainer: Trainer) -> str:
    """Return the last validation as a table, and where pictures and checkpoints lie."""
    found = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("validation/")}
    columns = {"l1": "L1 %", "l2": "L2 %", "psnr": "PSNR dB", "tv": "TV %", "tv_ratio": "TV ratio"}
    columns["patch_distance"] = "patch distance"
    shown = [column for column in columns if f"validation/completed/hole/{column}" in found]
    lines = [f"{'in the hole':14}" + "".join(f"{columns[c]:>{len(columns[c]) + 3}}" for c in shown)] if shown else []
    for row in ("mean_colour", "coarse", "completed"):
        values = [found.get(f"validation/{row}/hole/{column}", math.nan) for column in shown]
        cells = [
            f"{v:{len(columns[c]) + 3}.{4 if c == 'patch_distance' else 2}f}"
            for c, v in zip(shown, values, strict=True)
        ]
        lines += [f"{row.replace('_', ' '):14}" + "".join(cells)] if shown else []
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, SavePictures) and callback.last_path:
            lines.append(f"picture      {callback.last_path}")
        if isinstance(callback, SaveByUpdates):
            lines.append(f"checkpoint   {callback.last_path}")
    return "\n".join(lines)


def profile(trainer: Trainer) -> str:
    """Return what `trainer.profiler` measured, empty without one."""
    return cast(Profiler, trainer.profiler).summary()  # type: ignore[attr-defined]


def time_over(trainer: Trainer, module: InpaintingModule, updates: int) -> str:
    """Return a line if a run's time, `trainer.max_time`, was over before its updates were made, else nothing."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    if not timers or module.generator_updates >= updates:
        return ""
    passed = timedelta(seconds=round(timers[0].time_elapsed(RunningStage.TRAINING)))
    return (
        f"stopped after {passed} at {module.generator_updates:,} of {updates:,} updates, by trainer.max_time; "
        "continue with resume=auto, which has as much time again"
    )


def check_validation(trainer: Trainer) -> None:
    """Raise if no value of the last validation is a number.

    Raises:
        JobError: In that case.
    """
    found = [value.item() for name, value in trainer.callback_metrics.items() if name.startswith("validation/")]
    if found and not any(map(math.isfinite, found)):
        raise JobError(
            "no value of the validation is a number: the weights or the images are not finite; lower optimizer.lr or "
            "set model.grad_clip_norm=10, and start from best.ckpt if there is one"
        )
