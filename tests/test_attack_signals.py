"""Signals to whole runs, at moments that lie before, in and after training. `make test-attack` runs it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from faults import digest, end, fault, log_of, run, start, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.faults]
ENDS = {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("signals") / "undisturbed"
    assert run(output) == 0, log_of(output)
    return output


@pytest.mark.parametrize("name", ENDS)
def test_each_signal_saves_and_ends_with_its_code_and_changes_nothing(
    name: str, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    assert run(output, *fault(batch=5, what=name)) == ENDS[name], log_of(output)
    assert f"stopped by {name} after" in log_of(output)
    assert "Traceback" not in log_of(output) + (output / "output.log").read_text()
    assert run(output, "resume=auto") == 0, log_of(output)
    assert digest(output) == digest(undisturbed)


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("moment", ["hydra", "output.log", "config.yaml"])
def test_before_the_first_batch_a_signal_ends_with_its_code_and_a_line(moment: str, name: str, tmp_path: Path) -> None:
    """The moments are those at which a run has made its folder, its log, and its record."""
    output = tmp_path / "run"
    process = start(output, "updates=100000", "trainer.val_check_interval=100000")
    try:
        wait_for((output / moment).exists, 300)
        os.kill(process.pid, signal.Signals[name])
        assert process.wait(300) == ENDS[name], log_of(output)
    finally:
        end(process)
    assert "Traceback" not in log_of(output)
    assert name != "SIGINT" or "interrupted" in log_of(output) or "stopped by SIGINT" in log_of(output)


def test_a_second_ctrl_c_does_not_wait_for_the_batch(tmp_path: Path) -> None:
    output = tmp_path / "run"
    process = start(output, "updates=100000", "trainer.val_check_interval=100000")
    try:
        wait_for((output / "checkpoints" / "last.ckpt").exists, 300)
        for _ in range(2):
            os.kill(process.pid, signal.SIGINT)
        assert process.wait(300) == 130, log_of(output)
    finally:
        end(process)
    assert "Traceback" not in log_of(output)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_a_killed_run_continues_to_the_bit_in_every_precision(precision: str, tmp_path: Path) -> None:
    """64 bits once passed through 32 on the way from the checkpoint to the network."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    setting = f"trainer.precision={precision}"
    assert run(whole, setting) == 0, log_of(whole)
    assert run(killed, setting, *fault(batch=6)) == -9
    assert run(killed, setting, "resume=auto") == 0, log_of(killed)
    assert digest(killed) == digest(whole)
