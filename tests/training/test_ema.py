"""The generator's running average against a plain loop over the recorded weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from gicinpaint.metrics import RegionL1
from gicinpaint.training.callbacks import GeneratorEMA
from runs import batches, fit, loader, small_module

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*have no `val_dataloader`", "ignore:`isinstance"
)
DECAY = 0.5  # reached after nine updates: (1 + 8) / (10 + 8)


class Record(Callback):
    """Note the generator's weights at the start and after every update."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.seen = 0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._note(module)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if module.generator_updates > self.seen:
            self.seen = module.generator_updates
            self._note(module)

    def _note(self, module: LightningModule) -> None:
        self.weights.append({name: value.double() for name, value in module.generator.state_dict().items()})


def averaged(history: list[dict[str, Tensor]], decay: float) -> dict[str, Tensor]:
    result = history[0]
    for n, weights in enumerate(history[1:]):
        d = min(decay, (1 + n) / (10 + n))
        result = {name: d * result[name] + (1 - d) * weights[name] for name in result}
    return result


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name].double(), expected[name], rtol=1e-5, atol=1e-7)


def test_the_average_follows_the_generators_updates_alone() -> None:
    average, record = GeneratorEMA(DECAY), Record()
    fit(small_module(critic_steps=2), average, record, updates=12)
    assert len(record.weights) == 13
    assert_equal(average.average, averaged(record.weights, DECAY))
    # without the warm-up of the decay the initial weights would weigh 2^-12; a constant 0.5 gives another average
    constant = record.weights[0]
    for weights in record.weights[1:]:
        constant = {name: 0.5 * constant[name] + 0.5 * weights[name] for name in constant}
    assert any((average.average[name].double() - constant[name]).abs().max() > 1e-5 for name in constant)


def test_validation_measures_the_average_and_training_goes_on_without_it() -> None:
    average, record = GeneratorEMA(DECAY), Record()
    module = small_module(adversary=False)
    trainer = fit(module, average, record, updates=4, val_check_interval=4, check_val_every_n_epoch=None)
    expected, trained = RegionL1(), RegionL1()
    other = small_module(adversary=False)
    for metric, weights in ((expected, averaged(record.weights, DECAY)), (trained, record.weights[-1])):
        other.generator.load_state_dict(weights)
        with torch.no_grad():
            for image, mask, _ in batches(12):
                metric.update(other(image, mask), image, mask)
    measured = trainer.callback_metrics["validation/completed/hole/l1"].item()
    assert measured == pytest.approx(expected.compute().item(), rel=1e-5)
    assert abs(measured - trained.compute().item()) > 1e-3
    assert_equal(module.generator.state_dict(), record.weights[-1])


def test_without_the_callback_or_a_decay_training_is_the_same() -> None:
    runs = []
    for callbacks in ([], [GeneratorEMA()], [GeneratorEMA(0.9)]):
        module = small_module(critic_steps=2)
        fit(module, *callbacks, updates=3, val_check_interval=2, check_val_every_n_epoch=None)
        runs.append(module.state_dict())
    for other in runs[1:]:
        assert all(torch.equal(other[name], value) for name, value in runs[0].items())


class SaveInValidation(Callback):
    """Save while the average stands in for the generator."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_validation_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if not self.path.exists():
            trainer.save_checkpoint(self.path, weights_only=False)


def test_a_checkpoint_holds_both_and_a_resumed_average_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "middle.ckpt"
    whole, record = GeneratorEMA(DECAY), Record()
    options = {"val_check_interval": 6, "check_val_every_n_epoch": None}
    fit(small_module(critic_steps=2), whole, record, SaveInValidation(path), updates=5, **options)

    checkpoint = torch.load(path, weights_only=True)
    generator = {
        name.removeprefix("generator."): value.double()
        for name, value in checkpoint["state_dict"].items()
        if name.startswith("generator.")
    }
    assert checkpoint["counters"]["generator_updates"] == 3
    assert_equal(generator, record.weights[3])
    assert_equal(checkpoint["generator_average"], averaged(record.weights[:4], DECAY))

    resumed = GeneratorEMA(DECAY)
    fit(small_module(critic_steps=2), resumed, updates=5, data=loader(batches(12)[6:]), ckpt_path=path)
    assert resumed.updates == whole.updates == 5
    for name, value in whole.average.items():
        assert torch.equal(resumed.average[name], value), name


def test_a_checkpoint_without_an_average_starts_one(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    fit(small_module(critic_steps=2), updates=2).save_checkpoint(path)
    start = torch.load(path, weights_only=True)
    average = GeneratorEMA(DECAY)
    module = small_module(critic_steps=2)
    fit(module, average, updates=3, ckpt_path=path)
    first = {name: start["state_dict"][f"generator.{name}"].double() for name in average.average}
    last = {name: value.double() for name, value in module.generator.state_dict().items()}
    assert_equal(average.average, averaged([first, last], DECAY))


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_out_of_range_is_reported(decay: float) -> None:
    with pytest.raises(ValueError, match=rf"decay must lie in \[0, 1\), got {decay}; use e.g. 0.999"):
        GeneratorEMA(decay)
