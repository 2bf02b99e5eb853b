"""What a run shows and says: its opening, the progress bar, sheets of validation images, how it ended."""

import logging
import math
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar, Timer
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.trainer.states import RunningStage
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn

from gicinpaint.attention.visualize import attention_of, draw_completions
from gicinpaint.config.progress_bar import Bar
from gicinpaint.config.validation import JobError
from gicinpaint.data import Batch, InpaintingDataModule
from gicinpaint.losses import Wasserstein
from gicinpaint.training.callbacks.save_and_stop import SaveByUpdates
from gicinpaint.training.checkpoint import BEST
from gicinpaint.training.loggers import show_picture
from gicinpaint.training.module import InpaintingModule, inpainting

_SMALL_BATCH = 8  # with fewer images the Wasserstein critics are known to fail

_ENLARGED = partial(draw_completions, smallest_width=128)  # titles need that much room

_log = logging.getLogger(__name__)


class UpdatesProgressBar(ProgressBar):
    """A bar over generator updates with losses, images per second (by ThroughputMonitor) and the time that remains."""

    def __init__(self, updates: int) -> None:
        super().__init__()
        self.updates = updates
        self._enabled = True
        self._bar: Bar | None = None

    def disable(self) -> None:
        """Show nothing, as on every process but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open the bar at the updates already made."""
        super().on_train_start(trainer, module)
        left = [timer.time_remaining() for timer in _callbacks(trainer, Timer)]
        limits = [f", stops after {timedelta(seconds=round(seconds))}" for seconds in left if seconds is not None]
        if self._enabled:
            self._bar = Bar(
                total=self.updates,
                initial=inpainting(module).generator_updates,
                desc="training",
                unit=" updates",
                file=sys.stdout,
                mininterval=0.5,
                bar_format="{desc} {n}/{total} updates |{bar}| {elapsed} passed, {remaining} left{postfix}"
                + "".join(limits),
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
        if not (trainer.is_global_zero and self._image is not None and self._mask is not None):
            return
        generator, updates = inpainting(module).generator, inpainting(module).generator_updates
        if self.of_attention and attention_of(generator) is None:
            return
        sheet = self.draw(generator, self._image, self._mask)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.last_path = self.folder / f"updates_{updates:07d}.png"
        sheet.save(self.last_path)
        show_picture(trainer.loggers, f"pictures/{self.folder.name}", sheet, updates)


def opening(
    config: DictConfig, module: InpaintingModule, data: InpaintingDataModule, trainer: Trainer, checkpoint: Path | None
) -> str:
    """Return what is about to happen, in a few lines."""
    parameters = sum(parameter.numel() for parameter in module.generator.parameters())
    shared = f" ({data.batch_size // trainer.world_size} on each of {trainer.world_size} devices)"
    start = f"continues {checkpoint}" if checkpoint else "a new run"
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
        f"output folder: {config.output}"
    )


def report(trainer: Trainer) -> str:
    """Return the last validation as a table, and where pictures and checkpoints lie."""
    found = _validation(trainer)
    columns = {"l1": "L1 %", "l2": "L2 %", "psnr": "PSNR dB", "tv": "TV %", "tv_ratio": "TV ratio"}
    columns["patch_distance"] = "patch distance"
    shown = [column for column in columns if f"validation/completed/hole/{column}" in found]
    lines = [f"{'in the hole':14}" + "".join(f"{columns[c]:>{len(columns[c]) + 3}}" for c in shown)] if shown else []
    for row in ("mean_colour", "coarse", "completed") if shown else ():
        line = f"{row.replace('_', ' '):14}"
        for column in shown:
            digits = 4 if column == "patch_distance" else 2
            line += f"{found.get(f'validation/{row}/hole/{column}', math.nan):{len(columns[column]) + 3}.{digits}f}"
        lines.append(line)
    lines += [f"picture      {one.last_path}" for one in _callbacks(trainer, SavePictures) if one.last_path]
    for one in _callbacks(trainer, SaveByUpdates):
        best = one.folder / BEST
        lines += [f"checkpoint   {one.last_path}"] + ([f"the best     {best}"] if best.exists() else [])
    return "\n".join(lines)


def profile(trainer: Trainer) -> str:
    """Return what `trainer.profiler` measured, empty without one."""
    return cast(Profiler, trainer.profiler).summary()  # type: ignore[attr-defined]


def time_over(trainer: Trainer, module: InpaintingModule, updates: int) -> str:
    """Return a line if a run's time, `trainer.max_time`, was over before its updates were made, else nothing."""
    timers = _callbacks(trainer, Timer)
    if not timers or module.generator_updates >= updates:
        return ""
    passed = timedelta(seconds=round(timers[0].time_elapsed(RunningStage.TRAINING)))
    return (
        f"stopped after {passed} at {module.generator_updates:,} of {updates:,} updates, by trainer.max_time; "
        "continue with resume=auto, which has as much time again"
    )


def best_value(trainer: Trainer) -> float | None:
    """Return the best monitored value, or the last one if it was never compared, or None if it was not logged.

    Raises a JobError if no value of the last validation is a number.
    """
    # The mean colour needs no weights, so it is a number always.
    found = {name: value for name, value in _validation(trainer).items() if "/mean_colour/" not in name}
    if found and not any(map(math.isfinite, found.values())):
        raise JobError(
            "no value of the validation is a number: the weights or the images are not finite; lower optimizer.lr or "
            "set model.grad_clip_norm=10, and start from best.ckpt if there is one"
        )
    saved = next(iter(_callbacks(trainer, SaveByUpdates)), None)
    if saved is not None and math.isfinite(saved.best):
        return saved.best
    value = trainer.callback_metrics.get(saved.monitor if saved else "validation/completed/hole/l1")
    return None if value is None else value.item()


def _validation(trainer: Trainer) -> dict[str, float]:
    return {name: v.item() for name, v in trainer.callback_metrics.items() if name.startswith("validation/")}


def _callbacks(trainer: Trainer, kind: type[Callback]) -> list[Any]:
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]  # type: ignore[attr-defined]
