"""When and how runs end: by updates, by their time, by signals, and with a validation that is no number."""

from __future__ import annotations

import math
import os
import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.profilers import SimpleProfiler

from gicinpaint.config.validation import JobError
from gicinpaint.training.callbacks import SaveByUpdates, StopAtUpdates
from gicinpaint.training.callbacks.progress import UpdatesProgressBar, best_value, profile, time_over
from gicinpaint.training.callbacks.save_and_stop import InterruptionError, SignalNote
from gicinpaint.training.checkpoint import AtomicCheckpointIO
from runs import fit, small_module

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*have no `val_dataloader`", "ignore:`isinstance"
)


@pytest.mark.parametrize("updates", [0, -1])
def test_no_updates_at_all_are_reported(updates: int) -> None:
    with pytest.raises(ValueError, match=f"updates must be at least 1, got {updates}"):
        StopAtUpdates(updates)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_each_signal_that_asks_to_end_is_noted_and_given_back(name: str, code: int) -> None:
    number = signal.Signals[name]
    before = signal.getsignal(number)
    note = SignalNote()
    note.install()
    try:
        os.kill(os.getpid(), number)
        assert note.number == number
        assert InterruptionError(note.number).exit_code == code
    finally:
        note.restore()
    assert signal.getsignal(number) == before


def test_a_thread_listens_to_no_signals_and_needs_none() -> None:
    before = signal.getsignal(signal.SIGTERM)
    notes: list[Any] = []

    def work() -> None:
        note = SignalNote()
        note.install()
        notes.append(signal.getsignal(signal.SIGTERM))
        note.restore()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert notes == [before]


def test_a_run_whose_time_is_over_says_where_it_stands_and_how_it_goes_on(tmp_path: Any) -> None:
    module = small_module(critic_steps=1)
    trainer = fit(module, updates=10**6, max_time={"seconds": 0})
    assert module.generator_updates < 100
    said = time_over(trainer, module, 1250)
    assert said.startswith(f"stopped after 0:00:00 at {module.generator_updates} of 1,250 updates")
    assert "continue with resume=auto" in said
    assert time_over(trainer, module, module.generator_updates) == ""
    made = module.generator_updates
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed = small_module(critic_steps=1)
    fit(resumed, updates=made + 3, max_time={"minutes": 10}, ckpt_path=tmp_path / "last.ckpt")
    assert resumed.generator_updates == made + 3  # the time that was over is not the resumed run's


def test_a_resumed_run_has_all_of_its_time_again(tmp_path: Any) -> None:
    first = Timer(duration={"seconds": 1000})
    first._offset = 999.0  # as if the run before had taken so long
    module = small_module(critic_steps=1)
    fit(module, first, updates=1).save_checkpoint(tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["Timer"]["time_elapsed"]["train"] > 999
    second = Timer(duration={"seconds": 1000})
    fit(small_module(critic_steps=1), second, updates=2, ckpt_path=tmp_path / "last.ckpt")
    assert second.time_elapsed("train") < 900


def test_a_run_that_was_not_limited_says_nothing_about_time() -> None:
    module = small_module(critic_steps=1)
    assert time_over(fit(module, updates=1), module, 1250) == ""


def test_a_validation_without_a_number_fails_the_run() -> None:
    def trainer(*values: float) -> Any:
        return SimpleNamespace(
            callback_metrics={f"validation/{i}": torch.tensor(value) for i, value in enumerate(values)}
            | {"train/x": torch.tensor(1.0)},
            callbacks=[],
        )

    with pytest.raises(JobError, match="no value of the validation is a number"):
        best_value(trainer(math.nan, math.inf))
    exploded = trainer(math.nan)  # the row of the mean colour needs no network
    exploded.callback_metrics["validation/mean_colour/hole/l1"] = torch.tensor(5.0)
    with pytest.raises(JobError, match="no value of the validation is a number"):
        best_value(exploded)
    assert best_value(trainer(math.nan, 3.0)) is None  # a measure that cannot be taken here; none is monitored
    assert best_value(trainer()) is None


class Explosion(Callback):
    """Let the learning rate explode after three updates."""

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if module.generator_updates == 3:
            trainer.optimizers[0].param_groups[0]["lr"] = 1.0


def test_the_best_checkpoint_outlives_an_explosion(tmp_path: Any) -> None:
    """Every update saves, so `last` and `previous` are both lost; the issue is that nothing else was there."""
    saved = SaveByUpdates(tmp_path, every=1)
    module = small_module(critic_steps=1)
    fit(module, saved, Explosion(), updates=6, val_check_interval=1, plugins=[AtomicCheckpointIO()])
    largest = {}
    for name in ("best", "previous", "last"):
        state = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["state_dict"]
        largest[name] = max(value.abs().max().item() for key, value in state.items() if key.startswith("generator."))
    assert largest["best"] < 0.9 < min(largest["previous"], largest["last"])
    assert math.isfinite(saved.best)


def test_the_bar_says_when_the_time_will_be_over(capsys: pytest.CaptureFixture[str]) -> None:
    fit(small_module(critic_steps=1), UpdatesProgressBar(5), max_time={"minutes": 10}, enable_progress_bar=True)
    assert ", stops after 0:10:00" in capsys.readouterr().out
    fit(small_module(critic_steps=1), UpdatesProgressBar(5), enable_progress_bar=True)
    assert "stops after" not in capsys.readouterr().out


def test_a_profiler_tells_what_it_measured() -> None:
    assert "run_training_batch" in profile(fit(small_module(critic_steps=1), profiler=SimpleProfiler()))
    assert profile(fit(small_module(critic_steps=1))) == ""
