"""Seconds and memory of a method, against work whose cost is known."""

import time
from pathlib import Path

import pytest
import torch

from gicinpaint.evaluation.measuring import Cost

LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets earlier peaks")


@LINUX
def test_peak_memory_is_the_most_that_was_held_at_once_beyond_the_start() -> None:
    held = torch.ones(20, 2**18)  # 20 MiB that count for nothing
    cost = Cost(torch.device("cpu"))
    for mebibytes in (30, 100, 50):  # the largest counts, not the sum and not the last
        with cost.running():
            torch.ones(mebibytes, 2**18)
    assert 99 < cost.peak / 2**20 < 115
    assert held.sum() == held.numel()


def test_seconds_add_up_over_pieces() -> None:
    cost = Cost(torch.device("cpu"), seconds=2.0)
    for _ in range(2):
        with cost.running():
            time.sleep(0.05)
    assert cost.seconds >= 2.1  # sleeping may take longer, never shorter
