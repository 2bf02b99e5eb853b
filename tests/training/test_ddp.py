"""Several processes train as one on the joint batch (gloo, on the processor)."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch

from faults import digest, fault, finish, log_of, run, start
from gicinpaint.training.callbacks.save_and_stop import SaveByUpdates

pytestmark = pytest.mark.timeout(0)  # each wait has a limit that a busy machine does not use up
DOUBLE = ("trainer.precision=64-true",)
# Adam divides a gradient by its own size: where a gradient is zero but for rounding, which depends on the order of
# sums, its steps are full ones of either sign. In float32 weights are therefore compared after steps of plain descent.
PLAIN = ("optimizer._target_=torch.optim.SGD", "~optimizer.betas", "optimizer.lr=1e-4")


def weights(output: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(output / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["counters"] == {"batches_seen": 14, "generator_updates": 8}
    return checkpoint["state_dict"]


def largest_difference(one: Path, other: Path) -> float:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert any(name.startswith("critics.local") for name in first)
    return max((first[name].double() - second[name].double()).abs().max().item() for name in first)


def test_two_processes_equal_one_on_the_joint_batch(tmp_path: Path) -> None:
    """With Adam, in float64; with rounding out of the way nothing is left."""
    for name, devices in {"one": 1, "two": 2}.items():
        assert run(tmp_path / name, f"trainer.devices={devices}", *DOUBLE) == 0, log_of(tmp_path / name)
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 1e-9
    log = log_of(tmp_path / "two")
    assert "8 per batch (4 on each of 2 devices)" in log
    assert log.count("a new run") == log.count("completed  ") == 1  # the second process says nothing


@pytest.mark.slow
def test_two_processes_equal_one_in_single_precision(tmp_path: Path) -> None:
    for name, devices in {"one": 1, "two": 2}.items():
        assert run(tmp_path / name, f"trainer.devices={devices}", *PLAIN) == 0, log_of(tmp_path / name)
    assert largest_difference(tmp_path / "one", tmp_path / "two") <= 1e-6


@pytest.mark.slow
def test_two_nodes_of_one_process_equal_one_node(tmp_path: Path) -> None:
    """Started by torchrun, as on a cluster."""
    assert run(tmp_path / "one", *DOUBLE) == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    nodes = []
    for rank in range(2):
        torchrun = ("-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", f"--node-rank={rank}")
        launcher = (*torchrun, "--master-addr=127.0.0.1", f"--master-port={port}")
        nodes.append(start(tmp_path / "two", "trainer.num_nodes=2", *DOUBLE, launcher=launcher))
    assert [finish(node) for node in nodes] == [0, 0], log_of(tmp_path / "two")
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 1e-9


@pytest.mark.slow
def test_a_batch_that_is_not_finite_in_one_process_is_skipped_in_all(tmp_path: Path) -> None:
    output = tmp_path / "spoiled"
    assert run(output, "trainer.devices=2", *fault(batch=5, what="spoil", rank=1)) == 0, log_of(output)
    log = log_of(output)
    assert "skipped a step of the critics at batch 5" in log
    assert "(process 1)" in log
    checkpoint = torch.load(output / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["counters"]["generator_updates"] == 8
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())


@pytest.mark.slow
def test_batches_that_stay_not_finite_in_one_process_end_all(tmp_path: Path) -> None:
    output = tmp_path / "spoiled"
    assert run(output, "trainer.devices=2", *fault(batch=4, what="spoil", rank=1, repeat=99)) == 1
    assert "3 steps of the critics in a row were skipped, the last at batch 6" in log_of(output)
    checkpoint = torch.load(output / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    assert len(digest(output, "previous.ckpt")) == 64


def test_alone_a_process_agrees_with_itself() -> None:
    trainer = type("Alone", (), {"world_size": 1})()
    assert SaveByUpdates._agree(trainer, 15, 0) == [15, 0]
