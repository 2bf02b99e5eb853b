"""The table of faults of docs/reliability.md with real kills: `make test-faults`, 15 minutes on two cores.

Most of the time goes into starting runs, on one core; two tests at once use both.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from checkpoint_faults import assert_damage_is_found, assert_kills_leave_whole_files
from faults import digest, end, fault, log_of, members, run, start, wait_for
from gicinpaint.training.checkpoint import find_newest, read_checkpoint

# Each wait has a limit of its own, which a busy machine does not use up; a clock over whole tests would.
pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(0)]
LONGER = ("updates=40", "trainer.val_check_interval=12", "callbacks.checkpoints.every=3")
SETTINGS = [pytest.param(w, d, id=f"{w}-workers-{d}-processes") for w in (0, 2) for d in (1, 2)]


def options(workers: int, devices: int) -> tuple[str, ...]:
    return (*LONGER, f"dataset.workers={workers}", f"trainer.devices={devices}", "resume=auto")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Digests of the final state by the number of processes; workers must not change it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for devices in (1, 2):
        assert run(folder / str(devices), *options(0, devices)) == 0
    return {devices: digest(folder / str(devices)) for devices in (1, 2)}


def strike(output: Path, number: int, delay: float, *overrides: str) -> tuple[int, float, float]:
    """Send a signal some time after training has begun; return the exit code, and after how long the run had ended.

    The last number says for how long others of its processes outlived the first, in seconds too.
    """
    before = log_of(output).count("training ") if output.with_name(output.name + ".log").exists() else 0
    process = start(output, *overrides)
    try:
        wait_for(lambda: log_of(output).count("training ") > before + 1 or process.poll() is not None, 300, process)
        time.sleep(delay)
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        seconds = wait_for(lambda: process.poll() is not None, 120, process)
        return process.wait(), seconds, wait_for(lambda: not members(process.pid), 30, process)
    finally:
        end(process)


@pytest.mark.parametrize(("workers", "devices"), SETTINGS)
def test_random_kills_change_nothing(workers: int, devices: int, undisturbed: dict[int, str], tmp_path: Path) -> None:
    """Ten runs and 28 kills over the four settings."""
    draw = random.Random(10 * workers + devices)
    for attempt in range(3 if devices == 1 else 2):
        output = tmp_path / str(attempt)
        kills = 3 if devices == 1 or attempt == 0 else 2
        for _ in range(kills):
            code, *_ = strike(output, signal.SIGKILL, draw.uniform(0, 1), *options(workers, devices))
            assert code == -9, "the run was over before the kill; give LONGER more updates"
        assert run(output, *options(workers, devices)) == 0, log_of(output)
        assert digest(output) == undisturbed[devices]


def test_kills_around_the_edge_of_an_epoch_change_nothing(undisturbed: dict[int, str], tmp_path: Path) -> None:
    output = tmp_path / "edges"  # epochs of three batches; saved after every update
    for batch in (2, 3, 4, 5, 6):
        assert run(output, *options(2, 1), "callbacks.checkpoints.every=1", *fault(batch=batch)) == -9
    assert run(output, *options(2, 1)) == 0
    assert digest(output) == undisturbed[1]


@pytest.mark.parametrize(("workers", "devices"), SETTINGS)
def test_sigterm_saves_within_seconds_and_changes_nothing(
    workers: int, devices: int, undisturbed: dict[int, str], tmp_path: Path
) -> None:
    """Twenty over the four settings: at any time, and in validation."""
    draw = random.Random(100 * workers + devices)
    output = tmp_path / "run"
    for _ in range(4):
        code, seconds, outlived = strike(output, signal.SIGTERM, draw.uniform(0, 0.7), *options(workers, devices))
        assert code == 143, "the run was over before the signal, or did not heed it; see LONGER"
        assert seconds < 5
        assert outlived < 1  # 0.2 where ten others worked, and a shared core is slower too
    assert run(output, *options(workers, devices)) == 0, log_of(output)
    assert digest(output) == undisturbed[devices]
    other = tmp_path / "validation"
    when = fault(batch=12, what="SIGTERM", when="on_validation_batch_start", rank=devices - 1)
    assert run(other, *options(workers, devices), *when) == 143
    assert run(other, *options(workers, devices)) == 0
    assert digest(other) == undisturbed[devices]


def test_fifty_kills_during_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/dev/shm")  # another file system; nothing may pass through it
    assert_kills_leave_whole_files(tmp_path, kills=50, seed=1)


def test_fifty_truncations_and_four_hundred_flips(tmp_path: Path) -> None:
    assert_damage_is_found(tmp_path, truncations=50, flips=400, seed=1)


def test_a_run_kills_itself_while_it_saves(tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert run(output, *fault(batch=6, what="save")) == -9
    assert (find_newest(output / "checkpoints") or Path()).name == "last.ckpt"
    assert list((output / "checkpoints").glob(".*"))
    assert run(output, "resume=auto") == 0
    assert not list((output / "checkpoints").glob(".*"))


def test_a_full_disk_is_named_and_the_run_resumes_when_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=25m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        output = disk / "run"
        assert run(output) == 0
        good = {path.name: path.read_bytes() for path in (output / "checkpoints").iterdir()}
        free = shutil.disk_usage(disk).free
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(free - len(good["last.ckpt"]) // 2))
        assert run(output, "resume=auto", "updates=12", "model.generator_schedule.T_max=8") == 1
        assert "last.ckpt: the disk is full" in log_of(output) or "best.ckpt: the disk is full" in log_of(output)
        assert "Traceback" not in log_of(output)
        assert {path.name: path.read_bytes() for path in (output / "checkpoints").iterdir()} == good
        ballast.unlink()
        assert run(output, "resume=auto", "updates=12", "model.generator_schedule.T_max=8") == 0
        assert read_checkpoint(output / "checkpoints" / "last.ckpt")["counters"]["generator_updates"] == 12
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("what", ["SIGKILL", "raise"])
@pytest.mark.parametrize("when", ["on_train_batch_start", "on_train_batch_end", "on_validation_batch_start"])
def test_a_lost_process_ends_the_run(workers: int, rank: int, what: str, when: str, tmp_path: Path) -> None:
    """Twenty-four combinations."""
    output = tmp_path / "run"
    lost = fault(batch=4, what=what, when=when, rank=rank)
    process = start(output, f"dataset.workers={workers}", "trainer.devices=2", *lost)
    try:
        wait_for(lambda: "fault now" in log_of(output), 300, process)
        assert wait_for(lambda: process.poll() is not None and not members(process.pid), 30, process) < 10
        assert process.wait() != 0, log_of(output)
    finally:
        end(process)


def test_a_killed_reader_of_images_ends_the_run_and_it_resumes(undisturbed: dict[int, str], tmp_path: Path) -> None:
    import psutil

    output = tmp_path / "run"
    process = start(output, *options(2, 1))
    try:
        wait_for(lambda: "training 0" in log_of(output), 300, process)
        time.sleep(0.3)
        psutil.Process(process.pid).children()[0].kill()
        assert wait_for(lambda: process.poll() is not None, 30, process) < 5
        assert process.wait() == 1
    finally:
        end(process)
    assert "a process that reads images was lost" in log_of(output)
    assert run(output, *options(2, 1)) == 0
    assert digest(output) == undisturbed[1]


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("repeat", [1, 99])
def test_batches_that_are_not_finite(repeat: int, devices: int, tmp_path: Path) -> None:
    output = tmp_path / "run"
    code = run(output, f"trainer.devices={devices}", *fault(batch=5, what="spoil", rank=devices - 1, repeat=repeat))
    assert code == (0 if repeat == 1 else 1), log_of(output)
    assert "skipped a step of the critics at batch 5" in log_of(output)
    state = torch.load(output / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in state.values())


def test_an_explosion_in_the_last_update_fails_the_run(tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert run(output, "optimizer.lr=1e12", "updates=1", "trainer.val_check_interval=1") == 1
    assert "no value of the validation is a number" in log_of(output)
    assert "Traceback" not in log_of(output)
