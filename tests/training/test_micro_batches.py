"""Micro-batches: the same gradients, critics' penalty included, for less memory."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.optim import SGD

from gicinpaint.training.gradients import split
from runs import batches, fit, loader, small_module

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*have no `val_dataloader`", "ignore:`isinstance"
)


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_micro_batches_train_as_the_whole_batch(count: int) -> None:
    """In float64, where the order of sums does not show; the batch of 5 does not divide evenly into 2 or 3."""
    runs = []
    for parts in (1, count):
        sgd = partial(SGD, lr=0.1)
        module = small_module(critic_steps=2, micro_batches=parts, generator_optimizer=sgd, critic_optimizer=sgd)
        trainer = fit(module, updates=2, data=loader(batches(4, b=5)), precision="64-true")
        runs.append((module.state_dict(), trainer.callback_metrics))
    for name, value in runs[0][0].items():
        torch.testing.assert_close(runs[1][0][name], value, rtol=1e-10, atol=1e-12)
    for name, value in runs[0][1].items():
        torch.testing.assert_close(runs[1][1][name], value, rtol=1e-6, atol=1e-6)
    assert any("penalty" in name for name in runs[0][1])


def test_micro_batches_are_the_batch_in_order() -> None:
    (batch,) = batches(1, b=5)
    micro_batches = split(batch, 3)
    assert torch.equal(torch.cat([micro_batch.batch.image for micro_batch in micro_batches]), batch.image)
    assert torch.equal(torch.cat([micro_batch.batch.box.left for micro_batch in micro_batches]), batch.box.left)
    assert [len(micro_batch.batch.mask) for micro_batch in micro_batches] == [1, 2, 2]
    assert sum(micro_batch.share for micro_batch in micro_batches) == pytest.approx(1)


def test_a_count_of_micro_batches_out_of_range_is_reported() -> None:
    with pytest.raises(ValueError, match="micro_batches must be at least 1, got 0; 1 takes each batch as a whole"):
        small_module(micro_batches=0)
