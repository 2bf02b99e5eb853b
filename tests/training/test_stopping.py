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
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.profilers import SimpleProfiler

from gicinpaint.config.validation import JobError
from gicinpaint.training.callbacks import StopAtUpdates
from gicinpaint.training.callbacks.progress import best_value, profile, time_over
from gicinpaint.training.callbacks.save_and_stop import InterruptionError, SignalNote
from runs import fit, small_module

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*have no `val_dataloader`", "ignore:`isinstance"
)


@pytest.mark.parametrize("updates", [0, -1])
def test_no_updates_at_all_are_reported(updates: int) -> None:
    with pytest.raises(ValueError, match=f"updates must be at least 1, got {updates}; the released limit is 1,000,000"):
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
    assert best_value(trainer(math.nan, 3.0)) is None  # a measure that cannot be taken here; none is monitored
    assert best_value(trainer()) is None


def test_a_profiler_tells_what_it_measured() -> None:
    assert "run_training_batch" in profile(fit(small_module(critic_steps=1), profiler=SimpleProfiler()))
    assert profile(fit(small_module(critic_steps=1))) == ""
