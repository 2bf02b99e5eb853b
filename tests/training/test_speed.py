"""Faster ways to compute a step change its results by rounding alone."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.optim import Adam

from gicinpaint.losses import gradient_norm
from gicinpaint.training.module import InpaintingModule
from gicinpaint.training.speed import hasten
from runs import batches, fit, small_module

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*have no `val_dataloader`", "ignore:`isinstance"
)


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def trained(
    precision: str = "64-true", channels_last: bool = False, fused: bool = False
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return weights and losses after two updates of the generator and four of the critics."""
    optimizer = partial(Adam, lr=1e-3, betas=(0.5, 0.9), fused=fused)
    module = small_module(critic_steps=2, generator_optimizer=optimizer, critic_optimizer=optimizer)
    hasten(module, channels_last=channels_last, compiled=False)
    trainer = fit(module, updates=2, precision=precision)
    losses = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("train/")}
    return module.state_dict(), losses


def test_weights_after_training_with_channels_last_are_those_of_the_plain_networks() -> None:
    """In float64, where a step of Adam does not turn rounding into full steps."""
    (expected, _), (actual, _) = trained(), trained(channels_last=True)
    assert actual.keys() == expected.keys()
    assert actual["generator.coarse_network.encoder.stem.weight"].is_contiguous(memory_format=torch.channels_last)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-7, atol=1e-9, msg=name)


def test_weights_after_training_with_fused_optimizers_are_those_of_plain_ones() -> None:
    for network in ("generator", "critic"):
        assert inspect.signature(InpaintingModule).parameters[f"{network}_optimizer"].default.keywords["fused"]
    (expected, _), (actual, _) = trained(), trained(fused=True)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-7, atol=1e-9, msg=name)


def test_fused_optimizers_are_refused_where_they_would_clip_scaled_gradients() -> None:
    factory = partial(Adam, fused=True)
    module = small_module(generator_optimizer=factory, critic_optimizer=factory, grad_clip_norm=1.0)
    with pytest.raises(ValueError, match=r"optimizer\.fused must be false with trainer\.precision=16-mixed"):
        fit(module, plugins=[MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))])


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_generator_has_the_outputs_gradients_and_names_of_the_plain_one(backend: str) -> None:
    modules, found = (small_module().double(), small_module().double()), []
    hasten(modules[1], channels_last=False, compiled=True, backend=backend)
    batch = batches(1)[0]
    for module in modules:
        completed = module(batch.image.double(), batch.mask.double())
        completed.square().sum().backward()
        found.append([completed.detach(), *(weight.grad for weight in module.generator.parameters())])
    assert modules[0].state_dict().keys() == modules[1].state_dict().keys()
    torch.testing.assert_close(found[1], found[0], rtol=1e-7, atol=1e-9)


def test_bfloat16_changes_losses_by_its_rounding_and_the_penalty_is_computed_in_float32() -> None:
    """bfloat16 has 8 bits: sums of products are off by about 1 %; the penalty of the same images is not."""
    (_, exact), (_, mixed) = trained("32-true"), trained("bf16-mixed")
    assert exact.keys() == mixed.keys()
    for name in ("train/generator/reconstruction", "train/generator/known", "train/critic/global_penalty"):
        torch.testing.assert_close(mixed[name].float(), exact[name], rtol=0.03, atol=0, msg=name)
    critic = small_module().critics["global"]
    real, fake = torch.rand(2, 3, 3, 16, 16)
    mask, alpha = torch.ones(3, 1, 16, 16), torch.rand(3, 1, 1, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = gradient_norm(critic, real, fake, mask, alpha)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, gradient_norm(critic, real, fake, mask, alpha))
