"""Steps whose losses or gradients are not finite are skipped by name; large gradients are clipped."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from gicinpaint.losses import InpaintingLoss
from gicinpaint.training.gradients import GradientGuard, NonFiniteError
from runs import batches, fit, loader, small_module

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*have no `val_dataloader`", "ignore:`isinstance"
)


def spoiled(*which: int) -> Any:
    drawn = batches(12)
    for number in which:
        drawn[number].image[0, 1, 2, 3] = torch.nan
    return loader(drawn)


def test_a_batch_that_is_not_finite_is_skipped_and_the_rest_trains_as_if_it_were_not_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    module, twin = small_module(adversary=False), small_module(adversary=False)
    fit(module, updates=5, data=spoiled(2))
    good = batches(12)
    del good[2]
    fit(twin, updates=5, data=loader(good))
    assert (module.batches_seen, module.generator_updates) == (6, 5)
    for name, weight in twin.state_dict().items():
        assert torch.equal(module.state_dict()[name], weight), name
    (message,) = [record.message for record in caplog.records if record.name == "gicinpaint.training.gradients"]
    assert "skipped a step of the generator at batch 2 (generator update 2): " in message
    assert "reconstruction" in message


def test_the_critics_step_is_skipped_without_the_generators(caplog: pytest.LogCaptureFixture) -> None:
    module = small_module(critic_steps=2)
    fit(module, updates=2, data=spoiled(0))
    assert (module.batches_seen, module.generator_updates) == (4, 2)
    assert all(weight.isfinite().all() for weight in module.parameters())
    (message,) = [record.message for record in caplog.records if record.name == "gicinpaint.training.gradients"]
    assert "skipped a step of the critics at batch 0" in message
    assert "global_critic" in message


class Weights(Callback):
    """Note the weights after every batch."""

    def __init__(self) -> None:
        self.history: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.history.append({name: value.clone() for name, value in module.state_dict().items()})


def test_three_in_a_row_end_the_run_with_the_weights_before_them() -> None:
    module, weights = small_module(adversary=False), Weights()
    with pytest.raises(NonFiniteError, match=r"3 steps of the generator in a row were skipped, the last at batch 4"):
        fit(module, weights, updates=9, data=spoiled(2, 3, 4, 5))
    assert all(torch.equal(value, weights.history[1][name]) for name, value in module.state_dict().items())


def test_two_in_a_row_and_later_two_more_do_not() -> None:
    module = small_module(adversary=False)
    fit(module, updates=6, data=spoiled(1, 2, 4, 5))
    assert (module.batches_seen, module.generator_updates) == (10, 6)


def test_an_infinite_loss_with_finite_gradients_is_skipped_too() -> None:
    class Offset(InpaintingLoss):
        def generator(self, *arguments: Any, **named: Any) -> Any:
            terms = super().generator(*arguments, **named)
            return {**terms, "total": terms["total"] + torch.inf}

    module = small_module(adversary=False, loss=Offset(None))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(NonFiniteError, match="total is not finite"):
        fit(module, updates=1)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(("limit", "expected"), [(None, 5.0), (10.0, 5.0), (2.0, 2.0)])
def test_a_gradient_longer_than_the_limit_is_scaled_down_to_it(limit: float | None, expected: float) -> None:
    """The gradient (3, 4) has norm 5."""
    network = torch.nn.Linear(2, 1, bias=False)
    network.weight.grad = torch.tensor([[3.0, 4.0]])
    assert GradientGuard(limit).admit("generator", network, {}, "batch 0") == 5
    torch.testing.assert_close(network.weight.grad, torch.tensor([[3.0, 4.0]]) * expected / 5, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("limit", "expected"), [(10.0, 5.0), (2.0, 2.0)])
def test_the_limit_holds_for_the_gradient_without_its_scale(limit: float, expected: float) -> None:
    """Scaled by 1024, as before float16's scaler removes it."""
    network = torch.nn.Linear(2, 1, bias=False)
    network.weight.grad = torch.tensor([[3.0, 4.0]]) * 1024
    assert GradientGuard(limit).admit("generator", network, {}, "batch 0", scale=1024.0) == 5
    expected_gradient = torch.tensor([[3.0, 4.0]]) * 1024 * expected / 5
    torch.testing.assert_close(network.weight.grad, expected_gradient, rtol=1e-5, atol=0)


@pytest.mark.parametrize("which", [(), (1,), (0, 1)])
def test_a_skipped_step_neither_calls_the_optimizer_nor_counts_nor_leaves_gradients(which: tuple[int, ...]) -> None:
    calls = []

    def factory(parameters: Any) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(list(parameters), lr=1e-3)
        optimizer.register_step_pre_hook(lambda *_: calls.append(1))
        return optimizer

    class Gradients(Callback):
        left: ClassVar[list[bool]] = []

        def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
            self.left.append(any(weight.grad is not None for weight in module.parameters()))

    module, gradients = small_module(adversary=False, generator_optimizer=factory), Gradients()
    gradients.left.clear()
    trainer = fit(module, gradients, updates=3, data=spoiled(*which))
    assert (len(calls), trainer.global_step, module.batches_seen) == (3, 3, 3 + len(which))
    assert gradients.left == [number not in which for number in range(3 + len(which))]


def test_gradients_that_are_not_finite_are_named(caplog: pytest.LogCaptureFixture) -> None:
    network = torch.nn.Linear(2, 1)
    network.weight.grad, network.bias.grad = torch.tensor([[torch.inf, 0.0]]), torch.zeros(1)
    assert GradientGuard().admit("critics", network, {"total": torch.tensor(1.0)}, "batch 7") is None
    assert "skipped a step of the critics at batch 7: gradient of weight is not finite" in caplog.text


def test_overflow_of_scaled_gradients_does_not_count() -> None:
    guard, network = GradientGuard(), torch.nn.Linear(2, 1, bias=False)
    for _ in range(5):  # float16's scaler halves its scale after each
        network.weight.grad = torch.full((1, 2), torch.inf)
        assert guard.admit("generator", network, {"total": torch.tensor(1.0)}, "batch 0", scale=2.0) is None
    lost = {"total": torch.tensor(torch.nan)}
    for _ in range(2):
        network.weight.grad = torch.full((1, 2), torch.inf)
        assert guard.admit("generator", network, lost, "batch 0", scale=2.0) is None
    network.weight.grad = torch.full((1, 2), torch.inf)
    with pytest.raises(NonFiniteError):
        guard.admit("generator", network, lost, "batch 0", scale=2.0)


def test_a_limit_that_is_not_positive_is_reported() -> None:
    with pytest.raises(ValueError, match=r"grad_clip_norm must be positive, got 0; use e.g. 10, or null"):
        small_module(grad_clip_norm=0)
