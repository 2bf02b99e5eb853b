"""Signals to whole runs, at moments that lie before, in and after training. `make test-attack` runs it."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from faults import digest, end, fault, finish, log_of, run, start, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(0)]  # each wait has a limit, see test_faults.py
ENDS = {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129}
LOGS = (  # every batch, on the disk at once: whatever a kill leaves is there
    "logger=[csv,tensorboard]",
    "trainer.log_every_n_steps=1",
    "+logger.csv.flush_logs_every_n_steps=1",
    "+logger.tensorboard.flush_secs=0",
)


def rows_of(output: Path) -> list[dict[str, str]]:
    """Return what metrics.csv holds but for empty cells and what a clock measured."""
    with (output / "csv" / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if v and not k.startswith("speed/")} for row in csv.DictReader(file)]


def points_of(output: Path) -> dict[str, list[Any]]:
    """Return steps and values of all curves of TensorBoard but for what a clock measured."""
    found = EventAccumulator(str(output / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    names = [name for name in found.Tags()["scalars"] if not name.startswith("speed/")]
    return {name: [(point.step, point.value) for point in found.Scalars(name)] for name in names}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("signals") / "undisturbed"
    assert run(output, *LOGS) == 0, log_of(output)
    return output


@pytest.mark.parametrize("name", ENDS)
def test_each_signal_saves_and_ends_with_its_code_and_changes_nothing(
    name: str, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    assert run(output, *LOGS, *fault(batch=5, what=name)) == ENDS[name], log_of(output)
    assert f"stopped by {name} after" in log_of(output)
    assert "Traceback" not in log_of(output) + (output / "output.log").read_text()
    assert run(output, *LOGS, "resume=auto") == 0, log_of(output)
    assert digest(output) == digest(undisturbed)
    assert rows_of(output) == rows_of(undisturbed)
    assert points_of(output) == points_of(undisturbed)


def test_a_killed_run_has_every_point_of_its_loggers_once(undisturbed: Path, tmp_path: Path) -> None:
    """The kill comes four batches and a validation after the checkpoint: their points are on the disk already."""
    output = tmp_path / "run"
    assert run(output, *LOGS, "callbacks.checkpoints.every=3", *fault(batch=9)) == -9
    saved = torch.load(output / "checkpoints" / "last.ckpt", weights_only=True)
    assert len(rows_of(output)) > saved["logged"]["metrics.csv"] - 1
    assert run(output, *LOGS, "callbacks.checkpoints.every=3", "resume=auto") == 0, log_of(output)
    assert rows_of(output) == rows_of(undisturbed)
    assert points_of(output) == points_of(undisturbed)


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("moment", ["hydra", "output.log", "config.yaml"])
def test_before_the_first_batch_a_signal_ends_with_its_code_and_a_line(moment: str, name: str, tmp_path: Path) -> None:
    """The moments are those at which a run has made its folder, its log, and its record."""
    output = tmp_path / "run"
    process = start(output, "updates=100000", "trainer.val_check_interval=100000")
    try:
        wait_for((output / moment).exists, 300, process)
        os.kill(process.pid, signal.Signals[name])
        assert finish(process) == ENDS[name], log_of(output)
    finally:
        end(process)
    assert "Traceback" not in log_of(output)
    assert name != "SIGINT" or "interrupted" in log_of(output) or "stopped by SIGINT" in log_of(output)


def test_a_second_ctrl_c_does_not_wait_for_the_batch(tmp_path: Path) -> None:
    output = tmp_path / "run"
    process = start(output, "updates=100000", "trainer.val_check_interval=100000")
    try:
        wait_for((output / "checkpoints" / "last.ckpt").exists, 300, process)
        for _ in range(2):
            os.kill(process.pid, signal.SIGINT)
        assert finish(process) == 130, log_of(output)
    finally:
        end(process)
    assert "Traceback" not in log_of(output)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed", "16-mixed"])
def test_a_killed_run_continues_to_the_bit_in_every_precision(precision: str, tmp_path: Path) -> None:
    """64 bits once passed through 32 on the way from the checkpoint to the network."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    setting = f"trainer.precision={precision}"
    assert run(whole, setting) == 0, log_of(whole)
    assert run(killed, setting, *fault(batch=6)) == -9
    assert run(killed, setting, "resume=auto") == 0, log_of(killed)
    assert digest(killed) == digest(whole)
