"""Faster ways to compute a step change its results by rounding alone."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from omegaconf import OmegaConf
from torch.optim import SGD, Adam

from gicinpaint.config.validation import ConfigurationError
from gicinpaint.losses import gradient_norm
from gicinpaint.training.module import InpaintingModule
from gicinpaint.training.precision import hasten, settle_precision
from runs import ROOT, batches, fit, loader, small_module

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
    assert hasten(module, channels_last=channels_last, compiled=False) == ""
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


@pytest.mark.parametrize("fused", [False, True])
def test_clipping_under_float16s_scale_limits_the_step_itself(fused: bool) -> None:
    """A step of plain descent is as long as learning rate times clipped norm; a fused one unscales by itself."""
    factory = partial(SGD, lr=0.1, fused=fused)
    module = small_module(adversary=False, generator_optimizer=factory, grad_clip_norm=1e-2)
    before = torch.cat([weight.detach().flatten().clone() for weight in module.generator.parameters()])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    trainer = fit(module, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    after = torch.cat([weight.detach().flatten() for weight in module.generator.parameters()])
    assert trainer.callback_metrics["train/generator/gradient_norm"] > 1e-2
    assert torch.linalg.vector_norm(after - before).item() == pytest.approx(0.1 * 1e-2, rel=1e-2)


def test_an_overflow_of_float16_lowers_the_scale_and_is_skipped_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    module = small_module(adversary=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    trainer = fit(
        module,
        updates=1,
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
        data=loader(batches(200)),
    )
    assert module.batches_seen > 4
    assert scaler.get_scale() == 2.0 ** (120 - module.batches_seen + 1)
    assert (trainer.global_step, module.generator_updates) == (1, 1)
    assert "skipped" not in caplog.text


class _Device:
    """What torch says about processor and accelerator."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *instructions: str, cuda: bool | None = None) -> None:
        brand = "Intel Xeon" if "Intel" in instructions else "AMD EPYC"
        found = dict.fromkeys(("avx2", *instructions), True) | {"avx512_fp16": True, "cpu_name": brand}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda is not None)
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or cuda
        )
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("accelerator", "instructions", "cuda", "expected", "reason"),
    [
        ("cpu", ["avx512_bf16"], None, "bf16-mixed", "the processor has avx512_bf16"),
        ("cpu", ["avx512_bf16", "amx_bf16"], None, "bf16-mixed", "the processor has avx512_bf16 and amx_bf16"),
        (
            "cpu",
            ["avx512_bf16", "Intel"],
            None,
            "32-true",
            "an Intel processor with avx512_bf16 and without amx_bf16 is slower in bfloat16",
        ),
        ("cpu", ["avx512_bf16", "amx_bf16", "Intel"], None, "bf16-mixed", "the processor has avx512_bf16 and amx_bf16"),
        ("cpu", [], None, "32-true", "the processor has no bfloat16 instructions"),
        ("cpu", [], True, "32-true", "the processor has no bfloat16 instructions"),
        ("auto", [], None, "32-true", "the processor has no bfloat16 instructions"),
        ("auto", [], True, "bf16-mixed", "a GPU computes in bfloat16"),
        ("gpu", ["amx_bf16"], False, "32-true", "a GPU does not compute in bfloat16"),
    ],
)
def test_auto_is_what_the_device_is_fast_at(
    accelerator: str,
    instructions: list[str],
    cuda: bool | None,
    expected: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _Device(monkeypatch, *instructions, cuda=cuda)
    config = OmegaConf.create({"trainer": {"precision": "auto", "accelerator": accelerator}})
    assert settle_precision(config) == f"precision: {expected}, because {reason}"
    assert config.trainer.precision == expected


def test_without_a_list_of_instructions_auto_stays_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    _Device(monkeypatch)
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    config = OmegaConf.create({"trainer": {"precision": "auto", "accelerator": "cpu"}})
    assert "no bfloat16 instructions" in settle_precision(config)
    assert config.trainer.precision == "32-true"


def test_a_precision_that_was_asked_for_is_kept_in_silence() -> None:
    for precision in ("32-true", "64-true", "bf16-mixed", "16-mixed"):
        config = OmegaConf.create({"trainer": {"precision": precision, "accelerator": "cpu"}})
        assert settle_precision(config) == ""
        assert config.trainer.precision == precision


@pytest.mark.parametrize("width", ["bf16", "16"])
def test_weights_of_16_bits_are_refused_with_what_keeps_them_whole(width: str) -> None:
    config = OmegaConf.create({"trainer": {"precision": f"{width}-true", "accelerator": "cpu"}})
    with pytest.raises(ConfigurationError, match=rf"got {width}-true; use {width}-mixed, which keeps the weights in"):
        settle_precision(config)


def test_recipes_that_mean_the_fastest_name_no_precision() -> None:
    texts = {path.stem: path.read_text() for path in (ROOT / "conf" / "experiment").glob("*.yaml")}
    assert not [name for name, text in texts.items() if "bf16-mixed" in text]
    assert {name for name, text in texts.items() if "precision: auto" in text} == {"faces_64", "demo_model"}


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_generator_has_the_outputs_gradients_and_names_of_the_plain_one(backend: str) -> None:
    modules, found = (small_module().double(), small_module().double()), []
    assert hasten(modules[1], channels_last=False, compiled=True, backend=backend).startswith(
        "compile: the first update"
    )
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
