"""Faults for training runs: a callback that kills its own process, and runs that are small enough to repeat."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

ROOT = Path(__file__).parents[1]
SMALL = (
    "trainer=cpu",
    "model=tiny",
    "threads=1",
    "dataset.image_size=32",
    "dataset.batch_size=8",
    "dataset.workers=0",
    "dataset.train.repeat=4",  # 24 images: an epoch is three batches
    "dataset.validation.repeat=2",
    "dataset.validation_batch_size=2",
    "mask.box=[16,16]",
    "mask.inset=[2,2]",
    "model.generator.width=4",
    "model.critic_steps=2",
    "model.warmup_steps=1",
    "optimizer.lr=1e-3",
    "+model.generator_schedule._target_=torch.optim.lr_scheduler.CosineAnnealingLR",
    "+model.generator_schedule._partial_=true",
    "+model.generator_schedule.T_max=${updates}",
    "updates=8",
    "trainer.val_check_interval=4",
    "callbacks.ema.decay=0.9",
    "callbacks.checkpoints.every=1",
    "callbacks.pictures=null",
    "callbacks.attention_pictures=null",
)


class Fault(Callback):
    """Do something terrible to this process at a batch.

    Args:
        batch: Number of batches seen when it happens.
        what: A signal's name; "raise"; "save": SIGKILL in the middle of the next save; "spoil": images of the batch,
            and of `repeat` - 1 later ones, are not numbers.
        when: The hook in which it happens.
        rank: In which process.
        repeat: For how many batches.
    """

    def __init__(
        self, batch: int, what: str = "SIGKILL", when: str = "on_train_batch_end", rank: int = 0, repeat: int = 1
    ) -> None:
        self.batch, self.what, self.when, self.rank, self.repeat = batch, what, when, rank, repeat

    def _strike(self, trainer: Trainer, module: LightningModule) -> None:
        if not self.batch <= module.batches_seen < self.batch + self.repeat or trainer.global_rank != self.rank:
            return
        print("fault now", flush=True)
        if self.what == "raise":
            raise RuntimeError("a fault that a test asked for")
        if self.what == "save":
            os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        else:
            os.kill(os.getpid(), signal.Signals[self.what])

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, *_: Any) -> None:
        if self.what == "spoil":
            if self.batch <= module.batches_seen < self.batch + self.repeat and trainer.global_rank == self.rank:
                batch.image[0, :, 0, 0] = torch.nan
        elif self.when == "on_train_batch_start":
            self._strike(trainer, module)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if self.what != "spoil" and self.when == "on_train_batch_end":
            self._strike(trainer, module)

    def on_validation_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if self.when == "on_validation_batch_start":
            self._strike(trainer, module)


def fault(**arguments: Any) -> list[str]:
    """Return overrides that add a fault."""
    arguments = {"_target_": "faults.Fault", **arguments}
    return [f"+callbacks.fault.{name}={value}" for name, value in arguments.items()]


def start(output: Path, *overrides: str, launcher: tuple[str, ...] = (), **environment: str) -> subprocess.Popen[str]:
    """Start a run in a process group of its own; its output goes to a file beside its folder."""
    tests = str(ROOT / "tests")
    log = output.with_name(output.name + ".log").open("a")
    command = [sys.executable, *launcher, str(ROOT / "train.py"), *SMALL, f"output={output}", *overrides]
    return subprocess.Popen(
        [*command, f"hydra.run.dir={output}/hydra"],
        cwd=output.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": tests, **environment},
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(output: Path, *overrides: str, **arguments: Any) -> int:
    """Run to the end and return the exit code; negative for a signal."""
    process = start(output, *overrides, **arguments)
    try:
        return finish(process)
    finally:
        end(process)


def finish(process: subprocess.Popen[str], seconds: float = 400) -> int:
    """Wait for a run's end and return its exit code."""
    wait_for(lambda: process.poll() is not None, seconds, process)
    return process.wait()


def end(process: subprocess.Popen[str]) -> None:
    """Leave nothing of a run behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def log_of(output: Path) -> str:
    return output.with_name(output.name + ".log").read_text()


def wait_for(condition: Any, seconds: float = 60, process: subprocess.Popen[str] | None = None) -> float:
    """Wait, and return how long: with a run, less the time that its processes wait for a core on a busy machine."""
    begin, before, held = time.monotonic(), _held(process), 0.0
    looked = begin
    while not condition():
        now = time.monotonic()
        if process is not None and now - looked > min(0.2, 0.1 * (now - begin)):  # the last look misses little
            after = _held(process)
            held += min(now - looked, sum(after[thread] - before.get(thread, 0) for thread in after))
            looked, before = now, before | after
        assert now - begin - held < seconds, "what a test waited for did not happen"
        time.sleep(0.02)
    return max(0.0, time.monotonic() - begin - held)


def _held(process: subprocess.Popen[str] | None) -> dict[str, float]:
    """Return the seconds for which each thread of a run's group was ready and had no core; empty but on Linux."""
    found = {}
    for pid in members(process.pid) if process else ():
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                found[path.parent.name] = int(path.read_text().split()[1]) / 1e9
    return found


def members(group: int) -> list[int]:
    """Return the processes of a group that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, own = path.read_text().rpartition(")")[2].split()[:3]
            if int(own) == group and state != "Z":
                found.append(int(path.parent.name))
    return found


def digest(output: Path, name: str = "last.ckpt") -> str:
    """Return the SHA-256 of all weights, optimizer states, counters and the average of a checkpoint."""
    checkpoint = torch.load(output / "checkpoints" / name, weights_only=True)
    parts = ("state_dict", "optimizer_states", "lr_schedulers", "counters", "generator_average")
    found = hashlib.sha256()
    _add(found, {part: checkpoint.get(part) for part in parts})
    return found.hexdigest()


def _add(found: Any, value: Any) -> None:
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            found.update(str(key).encode())
            _add(found, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _add(found, item)
    elif isinstance(value, torch.Tensor):
        found.update(str((value.dtype, value.shape)).encode() + value.contiguous().numpy().tobytes())
    else:
        found.update(repr(value).encode())
