"""Separate batches and one Adam clock for both networks, against two iterations of the second paper's script."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.optim import SGD, Adam

import golden
from gicinpaint import GatedGenerator, PatchCritic
from gicinpaint.data import Batch
from gicinpaint.models.compositing import Box
from gicinpaint.training.gradients import set_clock
from gicinpaint.training.module import InpaintingModule
from gicinpaint.weights import convert
from gicinpaint.weights.tf_write import revert
from runs import batches, fit, loader, small_module

LOSS = Path(__file__).parents[2] / "conf" / "loss" / "hinge_v2.yaml"
UPDATES = ("step1_d", "step1_g", "step2_d", "step2_g")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*have no `val_dataloader`", "ignore:`isinstance"
)


class Note(Callback):
    """Note losses and variables after every batch."""

    def __init__(self) -> None:
        self.losses: list[dict[str, Tensor]] = []
        self.states: list[dict[str, dict[str, Tensor]]] = []

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.losses.append({name: value.clone() for name, value in trainer.callback_metrics.items()})
        networks = {"generator": module.generator, "patch_critic": module.critics["patch"]}
        self.states.append({k: {n: v.clone() for n, v in net.state_dict().items()} for k, net in networks.items()})


def released_module(start: dict[str, Any], **options: Any) -> InpaintingModule:
    weights = convert(golden.tensorflow_variables(start))
    meta = start["meta"]
    generator, critic = GatedGenerator(meta["cnum_generator"]), PatchCritic(meta["cnum_discriminator"])
    generator.load_state_dict(weights["generator"])
    critic.load_state_dict(weights["patch_critic"])
    loss = instantiate(OmegaConf.load(LOSS), _convert_="all")
    adam = partial(Adam, lr=1e-4, betas=(0.5, 0.999), fused=True)
    optimizers: Any = {"generator_optimizer": adam, "critic_optimizer": adam}
    return InpaintingModule(generator, {"patch": critic}, loss, critic_steps=1, **optimizers, **options)


def batch_of(values: dict[str, Any], update: str) -> Batch:
    image, mask = values[f"{update}/batch_data"] / 127.5 - 1, values[f"{update}/mask"]
    b, _, h, w = image.shape
    return Batch(image, mask.expand(b, -1, -1, -1).contiguous(), Box(torch.zeros(b), torch.zeros(b), h, w))


@pytest.mark.skipif(not golden.SHARED_V2.is_dir(), reason="the golden iterations are not beside this checkout")
def test_two_iterations_end_with_the_golden_losses_variables_and_moments() -> None:
    start, values, end = (
        golden.load(golden.SHARED_V2 / name) for name in ("e2e_64x64.npz", "train_c8_64x64.npz", "ckpt_c8_expected.npz")
    )
    module, note = released_module(start, separate_batches=True, joint_clock=True), Note()
    fit(module, note, updates=2, data=loader([batch_of(values, update) for update in UPDATES]))
    assert module.batches_seen == 4
    for number, update in enumerate(UPDATES):
        kind, name = ("critic", "d_loss") if update.endswith("_d") else ("generator", "g_loss")
        torch.testing.assert_close(
            note.losses[number][f"train/{kind}/total"], values[f"{update}/{name}"], atol=1e-5, rtol=0
        )
        assert values[f"{update}/beta1_power"] == 0.5 ** (number + 2)  # TensorFlow keeps the next update's
        after = golden.tensorflow_variables(
            {f"var/{n}": v for n, v in golden.section(values, f"{update}/after/").items()}
        )
        for tensorflow_name, array in after.items():
            found = revert(note.states[number])[tensorflow_name]
            np.testing.assert_allclose(found, array, atol=2e-6, rtol=0, err_msg=f"{update} {tensorflow_name}")
    expected = convert(golden.tensorflow_variables(end))
    for part, state in note.states[-1].items():
        for name, found in state.items():
            torch.testing.assert_close(found, expected[part][name], atol=2e-6, rtol=0, msg=f"{part} {name}")
    steps = [{float(state["step"]) for state in optimizer.state.values()} for optimizer in module.optimizers()]
    assert steps == [{4.0}, {3.0}]


def test_a_clock_of_its_own_is_another_result() -> None:
    ends = []
    for joint in (False, True):
        module = small_module(critic_steps=1, joint_clock=joint)
        fit(module, updates=3)
        steps = [{float(state["step"]) for state in optimizer.state.values()} for optimizer in module.optimizers()]
        ends.append((steps, module.generator.coarse_network.encoder.stem.weight.detach().clone()))
    assert [steps for steps, _ in ends] == [[{3.0}, {3.0}], [{6.0}, {5.0}]]
    assert not torch.equal(ends[0][1], ends[1][1])


@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_step_after_others_is_that_of_tensorflows_adam(amsgrad: bool) -> None:
    """By hand: with the first moments at 0 and t = 3, step = lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)."""
    first, second = (nn.Parameter(torch.tensor([1.0], dtype=torch.float64)) for _ in range(2))
    one, other = (Adam([weight], lr=0.1, betas=(0.5, 0.9), eps=0.01, amsgrad=amsgrad) for weight in (first, second))
    for _ in range(2):
        first.grad = torch.ones_like(first)
        set_clock(one, [one, other])
        one.step()
    second.grad = torch.full_like(second, 0.2)
    set_clock(other, [one, other])
    other.step()
    m, v = 0.5 * 0.2, 0.1 * 0.04
    step = 0.1 * (1 - 0.9**3) ** 0.5 / (1 - 0.5**3) * m / (v**0.5 + 0.01)
    torch.testing.assert_close(second.detach(), torch.tensor([1.0 - step], dtype=torch.float64), atol=1e-7, rtol=0)


def test_a_resumed_run_goes_on_with_the_clock(tmp_path: Path) -> None:
    """Six updates in one run, and three, a checkpoint and three."""
    options: Any = {"critic_steps": 1, "joint_clock": True, "separate_batches": True}
    whole, before, after = (small_module(**options) for _ in range(3))
    fit(whole, updates=4)
    fit(before, updates=2).save_checkpoint(tmp_path / "two.ckpt")
    fit(after, updates=4, data=loader(batches(12)[4:]), ckpt_path=tmp_path / "two.ckpt")
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, after.state_dict()[name]), name


def test_each_network_has_batches_of_its_own_after_the_warm_up() -> None:
    seen: list[str] = []

    class Watched(InpaintingModule):
        def _step(self, network: str, optimizer: Any, terms: dict[str, Tensor]) -> bool:
            seen.append(f"{network} {self.batches_seen}" + (" scored" if "global_adversarial" in terms else ""))
            return super()._step(network, optimizer, terms)

    small = small_module(critic_steps=2, warmup_steps=1, separate_batches=True)
    small.__class__ = Watched
    fit(small, updates=3)
    assert seen == [
        "generator 0",
        "critics 1",
        "generator 2 scored",
        "critics 3",
        "critics 4",
        "generator 5 scored",
    ]


def test_another_optimizer_than_adam_is_named() -> None:
    module = small_module(joint_clock=True, critic_optimizer=partial(SGD, lr=0.1))
    with pytest.raises(TypeError, match="joint_clock needs Adam for both networks, got SGD"):
        module.configure_optimizers()
