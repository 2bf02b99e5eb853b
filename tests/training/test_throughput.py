"""Measurements of a training in this process; the clock is the test's."""

from __future__ import annotations

import time

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

import runs
from gicinpaint.training.callbacks import ThroughputMonitor


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


class Stub:
    """Just what the callback asks of trainer, module and batch."""

    world_size = 2

    def __init__(self, callback: ThroughputMonitor, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.callback, self.clock, self.updates = callback, clock, 0
        self.optimizers = [torch.optim.SGD([torch.zeros(1)], lr=0.25), torch.optim.SGD([torch.zeros(1)], lr=0.5)]
        self.image = torch.zeros(3, 1)
        self.logged: dict[str, float] = {}
        monkeypatch.setattr("gicinpaint.training.callbacks.health.inpainting", lambda _: self)
        callback.on_train_start(self, self)

    @property
    def generator_updates(self) -> int:
        return self.updates

    def log(self, name: str, value: float) -> None:
        self.logged[name] = value

    def log_dict(self, values: dict[str, float]) -> None:
        self.logged |= values

    def batch(self, waiting: float, working: float, updates: int) -> None:
        self.clock.now += waiting
        self.callback.on_train_batch_start(self, self, self, 0)
        self.clock.now += working
        self.updates += updates
        self.callback.on_train_batch_end(self, self, None, self, 0)

    def validation(self, seconds: float) -> None:
        self.callback.on_validation_start(self, self)
        self.clock.now += seconds
        self.callback.on_validation_end(self, self)


def test_speed_waiting_and_time_left_are_those_of_the_window(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: two batches of 3 images on 2 processes in 8 s, of which 2 s waiting; 98 updates at 8 s each remain."""
    run = Stub(ThroughputMonitor(updates=100, window=2), clock, monkeypatch)
    run.batch(waiting=50, working=50, updates=1)  # leaves the window
    run.batch(waiting=1, working=3, updates=0)
    run.batch(waiting=1, working=3, updates=1)
    assert run.logged["speed/images_per_second"] == pytest.approx(12 / 8)
    assert run.logged["speed/waiting_share"] == pytest.approx(0.25)
    assert run.logged["speed/hours_left"] == pytest.approx(98 * 8 / 3600)
    assert run.logged["learning_rate/generator"] == 0.25
    assert run.logged["learning_rate/critic"] == 0.5


def test_validation_is_no_waiting_but_takes_its_share_of_the_time_left(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: 4 s of training and 2 s of validation per update so far, 9 updates left."""
    run = Stub(ThroughputMonitor(updates=10), clock, monkeypatch)
    run.batch(waiting=1, working=1, updates=0)
    run.validation(2)
    run.batch(waiting=1, working=1, updates=1)
    assert run.logged["speed/images_per_second"] == pytest.approx(12 / 4)
    assert run.logged["speed/waiting_share"] == pytest.approx(0.5)
    assert run.logged["speed/hours_left"] == pytest.approx(9 * 4 * 1.5 / 3600)


def test_without_an_update_nothing_is_said_about_the_time_left(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Stub(ThroughputMonitor(updates=10), clock, monkeypatch)
    run.batch(waiting=1, working=1, updates=0)
    assert "speed/hours_left" not in run.logged


def test_gradient_norms_are_those_of_the_networks_before_their_step(tmp_path: object) -> None:
    """Expected: the root of the sum of squares, taken from the gradients that the step leaves behind."""
    module = runs.small_module()
    logger = CSVLogger(str(tmp_path))
    trainer = runs.fit(
        module, ThroughputMonitor(updates=1), updates=1, logger=logger, log_every_n_steps=1, accelerator="cpu"
    )
    for name, network in (("generator", module.generator), ("critic", module.critics)):
        squares = sum(float(p.grad.double().square().sum()) for p in network.parameters() if p.grad is not None)
        logged = trainer.callback_metrics[f"train/{name}/gradient_norm"]
        assert logged.item() == pytest.approx(squares**0.5, rel=1e-4), name
        assert logged > 0


def test_an_empty_window_is_refused() -> None:
    with pytest.raises(ValueError, match="window must be at least 1 batch, got 0"):
        ThroughputMonitor(updates=1, window=0)
