from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader

from gicinpaint.losses import Hinge, InpaintingLoss
from gicinpaint.metrics import RegionL1
from gicinpaint.models.compositing import crop_box, mask_out
from gicinpaint.models.critics import GlobalCritic, LocalCritic
from gicinpaint.models.generator import CoarseGenerator, Generator
from gicinpaint.training.callbacks import StopAtUpdates
from gicinpaint.training.module import InpaintingModule
from runs import batches, small_module

PARTS = ("global", "local")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*have no `val_dataloader`", "ignore:`isinstance"
)


# Schedule, with networks of width 2 on 16 x 16 images


def _weights(network: nn.Module) -> list[Tensor]:
    return [weight.detach().clone() for weight in network.parameters()]


def _moved(before: list[Tensor], after: list[Tensor]) -> bool:
    return any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


class Watch(Callback):
    """Note weights and gradients after every batch."""

    def __init__(self) -> None:
        self.weights: dict[str, list[list[Tensor]]] = {"generator": [], "critics": []}
        self.gradients: dict[str, list[list[Tensor | None]]] = {"generator": [], "critics": []}
        self.counts: list[tuple[int, int]] = []

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._note(module)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self._note(module)
        self.counts.append((module.batches_seen, module.generator_updates))

    def _note(self, module: LightningModule) -> None:
        for name in self.weights:
            network = getattr(module, name)
            self.weights[name].append(_weights(network))
            self.gradients[name].append([None if p.grad is None else p.grad.clone() for p in network.parameters()])

    def moves(self, name: str) -> list[bool]:
        history = self.weights[name]
        return [_moved(before, after) for before, after in pairwise(history)]


def _fit(module: InpaintingModule, *callbacks: Callback, updates: int = 1, **arguments: Any) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=-1,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, StopAtUpdates(updates)],
        **arguments,
    )
    trainer.fit(module, DataLoader(batches(12), batch_size=None))
    return trainer


def test_five_critic_updates_go_with_one_generator_update() -> None:
    module, watch = small_module(), Watch()
    _fit(module, watch, updates=2)
    assert watch.moves("critics") == [True] * 10
    assert watch.moves("generator") == 2 * [False, False, False, False, True]
    assert watch.counts == [(n, n // 5) for n in range(1, 11)]
    for before, after in ((0, 5), (5, 10)):  # nothing is left out of the optimizers
        for name, history in watch.weights.items():
            moved = [not torch.equal(a, b) for a, b in zip(history[before], history[after], strict=True)]
            names = [n for n, _ in getattr(module, name).named_parameters()]
            still = {n for n, m in zip(names, moved, strict=True) if not m}
            assert still <= {"global.score.bias", "local.score.bias"}  # their gradients cancel


def test_gradients_stay_on_their_own_side() -> None:
    module, watch = small_module(), Watch()
    _fit(module, watch)
    assert all(gradient is None for batch in watch.gradients["generator"][:-1] for gradient in batch)
    assert all(gradient is not None for gradient in watch.gradients["generator"][-1])
    assert all(weight.requires_grad for weight in module.parameters())


class _Recorder:
    """An optimizer factory that notes the gradients of both networks at each step."""

    def __init__(self) -> None:
        self.seen: list[list[Tensor]] = []

    def __call__(self, parameters: Iterator[nn.Parameter]) -> Optimizer:
        optimizer = SGD(list(parameters), lr=1e-3)
        weights = optimizer.param_groups[0]["params"]
        optimizer.register_step_pre_hook(lambda *_: self.seen.append([w.grad.clone() for w in weights]))
        return optimizer


def test_the_generators_step_leaves_the_critics_gradients_alone() -> None:
    recorder = _Recorder()
    module, watch = small_module(critic_optimizer=recorder), Watch()
    _fit(module, watch)
    last = watch.gradients["critics"][-1]  # after the generator's step of the fifth batch
    assert len(recorder.seen) == 5
    assert all(torch.equal(before, after) for before, after in zip(recorder.seen[-1], last, strict=True))


def test_the_generator_answers_to_the_updated_critics() -> None:
    """Its loss on the fifth batch is that of the critics after, not before, their fifth update."""
    module, watch = small_module(), Watch()
    trainer = _fit(module, watch)
    image, mask, box = batches(12)[4]
    twin = small_module()
    twin.critics.load_state_dict(module.critics.state_dict())
    completed = twin(image, mask)  # the generator had not moved yet
    for part in PARTS:
        score = twin.critics[part](crop_box(completed, box) if part == "local" else completed)
        logged = trainer.callback_metrics[f"train/generator/{part}_adversarial"]
        torch.testing.assert_close(logged, -score.mean(), rtol=1e-5, atol=1e-7)


def test_warm_up_leaves_the_critics_untouched() -> None:
    module, watch = small_module(warmup_steps=3), Watch()
    _fit(module, watch, updates=4)
    assert watch.moves("generator") == [True, True, True, False, True]
    assert watch.moves("critics") == [False, False, False, True, True]
    assert watch.counts == [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4)]


def test_warm_up_trains_on_reconstruction_alone() -> None:
    module = small_module(warmup_steps=1)
    trainer = _fit(module)
    assert not [name for name in trainer.callback_metrics if "adversarial" in name or "critic/" in name]
    assert trainer.callback_metrics["train/generator/total"] > 0


@pytest.mark.parametrize("generator", [Generator(2), CoarseGenerator(2)], ids=lambda g: type(g).__name__)
def test_without_adversary_every_batch_updates_the_generator(generator: nn.Module) -> None:
    module, watch = small_module(adversary=False), Watch()
    module.generator = generator
    _fit(module, watch, updates=3)
    assert len(module.configure_optimizers()[0]) == 1
    assert not module.critics
    assert watch.moves("generator") == [True] * 3
    assert watch.counts == [(1, 1), (2, 2), (3, 3)]


def test_frozen_parts_keep_their_weights_and_the_rest_takes_the_step_it_would_have_taken() -> None:
    """With SGD a step depends on the parameter's own gradient alone, which freezing others does not change."""
    whole, part = (
        small_module(adversary=False, generator_optimizer=partial(SGD, lr=0.1), freeze=freeze)
        for freeze in ([], ["coarse_network", "refinement_network.decoder.image"])
    )
    before = {name: value.clone() for name, value in part.generator.state_dict().items()}
    for module in (whole, part):
        _fit(module, updates=1)
    for name, value in part.generator.state_dict().items():
        frozen = name.startswith(("coarse_network", "refinement_network.decoder.image"))
        expected = before[name] if frozen else whole.generator.state_dict()[name]
        torch.testing.assert_close(value, expected, atol=0, rtol=0)
    assert _moved(list(before.values()), list(part.generator.state_dict().values()))


def test_critics_train_beside_a_frozen_first_stage() -> None:
    module, watch = small_module(critic_steps=2, freeze=["coarse_network"]), Watch()
    before = _weights(module.generator.coarse_network)
    _fit(module, watch, updates=2)
    assert watch.moves("critics") == [True] * 4
    assert watch.moves("generator") == [False, True, False, True]
    assert not _moved(before, _weights(module.generator.coarse_network))


@pytest.mark.parametrize("part", PARTS)
def test_one_critic_is_enough(part: str) -> None:
    critic = GlobalCritic(2, (16, 16)) if part == "global" else LocalCritic(2, (8, 8))
    module, watch = small_module(critics={part: critic}, critic_steps=2), Watch()
    trainer = _fit(module, watch)
    assert watch.moves("critics") == [True, True]
    assert watch.moves("generator") == [False, True]
    adversarial = [name for name in trainer.callback_metrics if name.endswith("adversarial")]
    assert adversarial == [f"train/generator/{part}_adversarial"]


def test_a_penalty_of_weight_zero_is_not_computed() -> None:
    module = small_module(loss=InpaintingLoss(Hinge(), penalty_weight=0), critic_steps=1)
    trainer = _fit(module)
    assert not [name for name in trainer.callback_metrics if "penalty" in name]
    assert trainer.callback_metrics["train/critic/total"] > 0


def test_runs_of_one_seed_are_alike_and_of_another_are_not() -> None:
    """Weights and batches are the same: only the places of the penalty depend on the seed."""
    runs = []
    for seed in (1, 1, 2):
        module = small_module(seed=seed)
        _fit(module)
        runs.append(_weights(module.critics))
    assert not _moved(runs[0], runs[1])
    assert _moved(runs[0], runs[2])


def test_every_process_takes_its_part_of_the_joint_batchs_places() -> None:
    module = small_module(seed=3)
    _fit(module)
    trainer = module.trainer
    whole = module._penalty_places(torch.zeros(4, 3, 16, 16))

    parts = []
    for rank in range(2):
        module._trainer = type("_Two", (), {"world_size": 2, "global_rank": rank})()
        parts.append(module._penalty_places(torch.zeros(2, 3, 16, 16)))
    module._trainer = trainer
    assert torch.equal(torch.cat(parts, dim=1), whole)
    assert whole.shape == (2, 4, 1, 1, 1)
    assert len(whole.unique()) == 8
    module.batches_seen += 1
    assert not torch.isin(module._penalty_places(torch.zeros(4, 3, 16, 16)), whole).any()


# Validation, forward and checkpoints


def test_validation_measures_both_stages_in_the_hole() -> None:
    module, drawn = small_module(), batches(3)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    (figures,) = trainer.validate(module, DataLoader(drawn, batch_size=None), verbose=False)
    stages = {"coarse": RegionL1(), "completed": RegionL1()}
    with torch.no_grad():
        for image, mask, _ in drawn:
            completion = module.generator(mask_out(image, mask), mask)
            stages["coarse"].update(completion.coarse, image, mask)
            stages["completed"].update(completion.refined, image, mask)
    for stage, metric in stages.items():
        assert figures[f"validation/{stage}/hole/l1"] == pytest.approx(metric.compute().item())
    columns = {name.rsplit("/", 1)[1] for name in figures if name.startswith("validation/completed/hole/")}
    assert columns == {"l1", "l2", "psnr", "tv", "tv_ratio", "patch_distance"}
    assert all(math.isfinite(value) for value in figures.values())


def test_calling_the_module_fills_the_hole_alone() -> None:
    module, (batch,) = small_module(), batches(1)
    with torch.no_grad():
        completed = module(batch.image, batch.mask)
        refined = module.generator(mask_out(batch.image, batch.mask), batch.mask).refined
    hole = batch.mask.bool().expand_as(refined)
    assert torch.equal(completed[~hole], batch.image[~hole])
    assert torch.equal(completed[hole], refined[hole])


def test_a_checkpoint_carries_counters_and_configuration_and_opens_safely(tmp_path: Path) -> None:
    module = small_module(critic_steps=2)
    module.config = {"critic_steps": 2, "generator": {"width": 2}, "names": ["a", None]}
    trainer = _fit(module, updates=2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["counters"] == {"batches_seen": 4, "generator_updates": 2}
    assert checkpoint["config"] == module.config
    for name, weight in module.state_dict().items():
        assert torch.equal(checkpoint["state_dict"][name], weight)
    other = small_module(critic_steps=2)
    other.on_load_checkpoint(checkpoint)
    assert (other.batches_seen, other.generator_updates) == (4, 2)


# Errors


def test_a_frozen_part_outside_a_list_is_reported() -> None:
    with pytest.raises(
        TypeError, match=r"freeze must be a list of parts, got 'coarse_network'; write \[coarse_network\]"
    ):
        small_module(freeze="coarse_network")


def test_an_adversary_without_critic_is_reported() -> None:
    with pytest.raises(ValueError, match="needs a critic, got none; pass one, or a loss without adversary"):
        InpaintingModule(Generator(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"critic_steps": 0}, "critic_steps must be at least 1, got 0; the paper's is 5"),
        ({"warmup_steps": -1}, "warmup_steps must not be negative, got -1; 0 switches the warm-up off"),
        ({"freeze": ["coarse"]}, "parts of the generator, such as coarse_network, refinement_network, got 'coarse'"),
        ({"freeze": ["coarse_network", "refinement_network"]}, "freeze must leave something to train, got coarse_ne"),
    ],
)
def test_a_setting_out_of_range_is_reported(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_module(**arguments)
