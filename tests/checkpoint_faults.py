"""Training checkpoints that are killed while they are written, and damaged afterwards."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import torch

from gicinpaint.config.atomic_files import remove_partial
from gicinpaint.training.checkpoint import AtomicCheckpointIO, find_newest, read_checkpoint


def checkpoint(number: int = 0, size: int = 1000) -> dict[str, Any]:
    return {
        "state_dict": {"weight": torch.full((size,), float(number))},
        "optimizer_states": [{"step": torch.tensor(number)}],
        "counters": {"batches_seen": number, "generator_updates": number},
        "global_step": number,
        "pytorch-lightning_version": "2.6.6",
    }


def number_of(path: Path) -> int:
    return read_checkpoint(path)["counters"]["batches_seen"]


def assert_kills_leave_whole_files(folder: Path, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    path, previous = folder / "last.ckpt", folder / "previous.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint(0), path)
    newest = 0
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            for number in range(newest + 1, newest + 10**6):
                AtomicCheckpointIO().save_checkpoint(checkpoint(number, 300_000), path, {"previous": previous})
        before, begin = path.stat().st_mtime_ns, time.monotonic()
        while path.stat().st_mtime_ns == before:  # until a save has ended, however long it takes here
            time.sleep(0.001)
        time.sleep(draw.uniform(0, time.monotonic() - begin))  # a moment in the next ones
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = find_newest(folder)
        assert found == path
        assert number_of(path) >= newest
        assert all(read_checkpoint(file) for file in folder.glob("*.ckpt"))
        newest = number_of(path)
    assert newest > 0
    remove_partial(folder)
    assert {file.name for file in folder.iterdir()} <= {"last.ckpt", "previous.ckpt"}


def assert_damage_is_found(folder: Path, truncations: int, flips: int, seed: int) -> None:
    """A damaged newest file gives way to the one before, unless the damage is in bytes that nothing reads."""
    draw = random.Random(seed)
    last = folder / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint(1), folder / "previous.ckpt")
    AtomicCheckpointIO().save_checkpoint(checkpoint(2), last)
    whole, found = last.read_bytes(), 0
    for attempt in range(truncations + flips):
        damaged = bytearray(whole)
        if attempt < truncations:
            del damaged[draw.randrange(len(whole)) :]
        else:
            damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        last.write_bytes(damaged)
        newest = find_newest(folder)
        assert newest is not None
        if newest == last:
            read = read_checkpoint(last)
            assert torch.equal(read["state_dict"]["weight"], checkpoint(2)["state_dict"]["weight"])
            assert read["counters"] == checkpoint(2)["counters"]
        else:
            found += 1
            assert number_of(newest) == 1
    assert found >= truncations + flips // 2
