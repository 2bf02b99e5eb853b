"""Warnings about runs that go on but not well, each once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gicinpaint.training.callbacks import TrainingHealth
from runs import batches, fit, small_module

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*have no `val_dataloader`", "ignore:`isinstance"
)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "gicinpaint.training.callbacks.health"]


def trainer(**metrics: float) -> Any:
    values = {name.replace("__", "/"): torch.tensor(value) for name, value in metrics.items()}
    module = small_module()
    state = SimpleNamespace(fn="fit")
    return SimpleNamespace(callback_metrics=values, is_global_zero=True, lightning_module=module, state=state)


def test_validation_that_stays_worse_is_told_once_and_also_after_a_resume(caplog: pytest.LogCaptureFixture) -> None:
    advice, module = TrainingHealth(patience=3), small_module()
    for value in (5.0, 4.0, 4.5, 4.4, 4.0):
        advice.on_validation_end(trainer(validation__completed__hole__l1=value), module)
        resumed = TrainingHealth(patience=3)
        resumed.load_state_dict(advice.state_dict())
        advice = resumed
    (message,) = messages(caplog)
    assert "was best after 0 updates (4.00) and has not been better in 3 validations (4.00 now)" in message
    for _ in range(4):
        advice.on_validation_end(trainer(validation__completed__hole__l1=6.0), module)
    assert len(messages(caplog)) == 1


@pytest.mark.parametrize(("share", "told"), [(0.3, 1), (0.05, 0)])
def test_waiting_for_images_is_told_after_a_hundred_batches(
    share: float, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    advice, (batch,) = TrainingHealth(), batches(1)
    for _ in range(99):
        advice.on_train_batch_end(trainer(speed__waiting_share=share), small_module(), None, batch, 0)
    assert not messages(caplog)
    for _ in range(2):
        advice.on_train_batch_end(trainer(speed__waiting_share=share), small_module(), None, batch, 0)
    assert len(messages(caplog)) == told
    assert not told or "30% of the time goes into waiting for images" in messages(caplog)[0]


@pytest.mark.parametrize(("size", "told"), [(6, 0), (12, 1), (2, 1)])
def test_holes_unlike_those_trained_on_are_told(size: int, told: int, caplog: pytest.LogCaptureFixture) -> None:
    """Training has holes of 6 x 6 in 16 x 16: 14.1 %."""
    advice, (batch,) = TrainingHealth(), batches(1)
    advice.on_train_batch_end(trainer(), small_module(), None, batch, 0)
    mask = torch.zeros_like(batch.mask)
    mask[..., :size, :size] = 1
    advice.on_validation_batch_end(trainer(), small_module(), None, batch._replace(mask=mask), 0)
    advice.on_validation_end(trainer(), small_module())
    assert len(messages(caplog)) == told
    assert not told or "training of 14.1% to 14.1%" in messages(caplog)[0]


@pytest.mark.parametrize(("full", "words"), [(0, "without a hole"), (1, "that were all hole")])
def test_masks_that_are_empty_or_full_are_counted_and_told_once(
    full: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 100 batches of 2 masks each, the first mask of 30 batches and both of 5 are spoilt: 40 of 200."""
    advice, (batch,), state, module = TrainingHealth(), batches(1), trainer(), small_module()
    for number in range(200):
        mask = batch.mask.clone()
        mask[: 2 if number % 100 < 5 else int(number % 100 < 35)] = full
        advice.on_train_batch_end(state, module, None, batch._replace(mask=mask), number)
    (message,) = messages(caplog)
    assert f"40 of the last 200 masks {words}" in message


def test_a_checkpoint_holds_the_trained_holes(tmp_path: Any) -> None:
    fit(small_module(), TrainingHealth(), updates=1).save_checkpoint(tmp_path / "last.ckpt")
    holes = torch.load(tmp_path / "last.ckpt", weights_only=True)["trained_holes"]
    assert holes == {"smallest": pytest.approx(36 / 256), "largest": pytest.approx(36 / 256)}
    resumed = TrainingHealth()
    fit(small_module(), resumed, updates=2, ckpt_path=tmp_path / "last.ckpt")
    assert resumed.trained == [holes["smallest"], holes["largest"]]


def test_numbers_out_of_range_are_reported() -> None:
    with pytest.raises(ValueError, match=r"must be at least 1 and waiting_share a share, got 0, 1.25 and 0.1; use 10"):
        TrainingHealth(patience=0)
