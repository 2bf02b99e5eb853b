"""What only an accelerator can show: the same numbers as the processor, in each precision. `make test-gpu` runs it."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gicinpaint import ContextualAttention, Generator, Inpainter, cli
from gicinpaint.attention import FactorizedAttention, ReferenceAttention, TiledAttention, UnfoldAttention
from gicinpaint.weights.pretrained import load_generator

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

BACKENDS = {
    "reference": ReferenceAttention(),
    "unfold": UnfoldAttention(),
    "factorized": FactorizedAttention(),
    "tiled": TiledAttention(),
    "tiled, compiled": TiledAttention(compile=True),
}
DEFAULT = "weights/contextual_w16"


@pytest.fixture(autouse=True)
def exact_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 rounds factors to 10 bits: comparisons with the processor go without."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("rate", [1, 2])
def test_attention_and_its_gradient_equal_the_processors(name: str, rate: int) -> None:
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(2, 16, 32, 48, generator=rng)
    mask = torch.zeros(2, 1, 32, 48)
    mask[..., 8:20, 12:30] = 1
    weight = torch.randn(features.shape, generator=rng)
    found = {}
    for device, backend in (("cpu", ReferenceAttention()), ("cuda", BACKENDS[name])):
        x = features.to(device).requires_grad_()
        output = ContextualAttention(rate=rate, backend=backend)(x, mask=mask.to(device))
        output.backward(weight.to(device))
        found[device] = (output.detach().cpu(), x.grad.cpu())
    for on_cpu, on_cuda in zip(found["cpu"], found["cuda"], strict=True):
        torch.testing.assert_close(on_cuda, on_cpu, rtol=1e-4, atol=1e-4 * on_cpu.abs().max().item())


@pytest.mark.parametrize(("dtype", "decibels"), [(None, 80), (torch.float16, 45), (torch.bfloat16, 30)])
def test_a_trained_generator_completes_as_on_the_processor(dtype: torch.dtype | None, decibels: float) -> None:
    generator = load_generator(DEFAULT)
    rng = torch.Generator().manual_seed(0)
    image, mask = torch.rand(1, 3, 128, 128, generator=rng) * 2 - 1, torch.zeros(1, 1, 128, 128)
    mask[..., 40:90, 30:80] = 1
    masked = image * (1 - mask)
    with torch.inference_mode():
        expected = generator(masked, mask).refined
        with torch.autocast("cuda", dtype=dtype or torch.float16, enabled=dtype is not None):
            found = generator.to("cuda")(masked.cuda(), mask.cuda()).refined
    error = (found.float().cpu() - expected).square().mean().item()
    assert 10 * math.log10(4 / max(error, 1e-20)) > decibels


def test_the_inpainter_keeps_known_pixels_and_fills_alike() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (96, 120, 3), dtype=np.uint8))
    mask = np.zeros((96, 120), np.uint8)
    mask[30:60, 40:80] = 255
    results = [np.asarray(Inpainter.from_pretrained(DEFAULT, device=d)(image, mask), int) for d in ("cpu", "cuda")]
    assert abs(results[0] - results[1]).max() <= 1
    assert (results[1][mask == 0] == np.asarray(image)[mask == 0]).all()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_training_goes_on_from_a_checkpoint(precision: str, tmp_path: Path) -> None:
    arguments = ["train", "experiment=quickstart", "trainer=default", "trainer.accelerator=gpu", "updates=4"]
    arguments += [f"trainer.precision={precision}", "trainer.limit_val_batches=1", "model.warmup_steps=0"]
    assert cli.main([*arguments, f"hydra.run.dir={tmp_path}"]) == 0
    arguments[arguments.index("updates=4")] = "updates=6"
    assert cli.main([*arguments, f"resume={tmp_path}", f"hydra.run.dir={tmp_path / 'more'}"]) == 0
    counters = torch.load(tmp_path / "more" / "checkpoints" / "last.ckpt", weights_only=True)["counters"]
    assert counters["generator_updates"] == 6


def test_a_wide_generator_trains_on_a_large_batch_within_the_memory() -> None:
    torch.cuda.reset_peak_memory_stats()
    generator = Generator(32).to("cuda")
    image = torch.randn(4, 3, 256, 256, device="cuda")
    mask = torch.zeros(4, 1, 256, 256, device="cuda")
    mask[..., 64:192, 64:192] = 1
    completion = generator(image * (1 - mask), mask)
    (completion.coarse.square().mean() + completion.refined.square().mean()).backward()
    assert torch.cuda.max_memory_allocated() < 8e9
