from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import golden
from gicinpaint.models.critics import Critic, GlobalCritic, LocalCritic
from gicinpaint.weights import convert

PARTS = ["global", "local"]
FILES = golden.paths("critics_*.npz")


def _critic(values: dict[str, Any], part: str) -> Critic:
    sizes = {name: tuple(values[f"x_{name}"].shape[-2:]) for name in PARTS}
    state = convert(golden.tensorflow_variables(values), sizes["global"], sizes["local"])[f"{part}_critic"]
    kind = {"global": GlobalCritic, "local": LocalCritic}[part]
    critic = kind(values["meta"]["cnum"], sizes[part])
    critic.load_state_dict(state)
    return critic


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scores_and_input_gradients_equal_the_golden_ones(path: Path, part: str) -> None:
    values = golden.load(path)
    image = values[f"x_{part}"].requires_grad_()
    score = _critic(values, part)(image)
    torch.testing.assert_close(score, values[f"dout_{part}"], atol=1e-4, rtol=0)
    score.sum().backward()
    assert golden.relative_norm(image.grad, values[f"grad_x_{part}"]) < 1e-3
    assert golden.relative_norm(_critic(values, part).input_gradient(image).detach(), values[f"grad_x_{part}"]) < 1e-3


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (20, 18), (1, 5)])
def test_the_gradient_to_the_image_and_its_own_to_the_weights_are_those_of_autograd(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    critic = LocalCritic(3, size).double()
    for weight in critic.parameters():
        weight.data.uniform_(-0.3, 0.3)  # biases too
    image = (torch.rand(2, 3, *size, dtype=torch.float64) * 2 - 1).requires_grad_()
    (expected,) = torch.autograd.grad(critic(image).sum(), image, create_graph=True)
    actual = critic.input_gradient(image.detach())
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    weights = [weight for name, weight in critic.named_parameters() if name.endswith("weight")]
    direction = torch.rand(expected.shape, dtype=torch.float64)
    wanted = torch.autograd.grad((expected * direction).square().sum(), weights)
    found = torch.autograd.grad((actual * direction).square().sum(), weights)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_layer_equals_the_golden_one(path: Path, part: str) -> None:
    values = golden.load(path)
    x = values[f"x_{part}"]
    layers = _critic(values, part).features
    assert len(layers) == 4
    for i, layer in enumerate(layers):
        x = layer(x)
        torch.testing.assert_close(x[:1], values[f"act/{part}_conv{i + 1}"], atol=1e-4, rtol=0)


def test_the_golden_checkpoints_critics_give_its_scores() -> None:
    values = golden.load("ckpt_c8_expected.npz")
    state = convert(golden.tensorflow_variables(values))
    for part, critic, image in (
        ("global", GlobalCritic(8, (64, 64)), values["x"]),
        ("local", LocalCritic(8, (32, 32)), values["x_local"]),
    ):
        critic.load_state_dict(state[f"{part}_critic"])
        torch.testing.assert_close(critic(image), values[f"dout_{part}"], atol=1e-4, rtol=0)


def test_parameter_counts_are_those_of_the_layers() -> None:
    values = {path.stem: golden.load(path) for path in FILES}
    for case in values.values():
        count = sum(weight.numel() for part in PARTS for weight in _critic(case, part).parameters())
        assert count == case["meta"]["n_parameters"]
    kernels = 25 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 256)  # by hand, at the paper's width and sizes
    count = kernels + 64 + 128 + 256 + 256 + 16 * 16 * 256 + 1
    assert sum(weight.numel() for weight in GlobalCritic().parameters()) == count
    kernels = 25 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512)
    count = kernels + 64 + 128 + 256 + 512 + 8 * 8 * 512 + 1
    assert sum(weight.numel() for weight in LocalCritic().parameters()) == count


def test_a_score_does_not_depend_on_the_rest_of_the_batch() -> None:
    critic = LocalCritic(4, (18, 33))
    images = torch.rand(3, 3, 18, 33, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(critic(images), torch.cat([critic(image[None]) for image in images]), atol=1e-6, rtol=0)


def test_the_type_of_the_weights_is_kept() -> None:
    score = GlobalCritic(2, (16, 16)).double()(torch.zeros(1, 3, 16, 16, dtype=torch.float64))
    assert score.dtype == torch.float64


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            torch.zeros(2, 3, 16, 32),
            r"critic input must be \(B, 3, 16, 24\), got \(2, 3, 16, 32\); build the critic",
        ),
        (torch.zeros(2, 1, 16, 24), r"critic input must be \(B, 3, H, W\), got \(2, 1, 16, 24\)"),
        (torch.zeros(3, 16, 24), r"got \(3, 16, 24\)"),
        (torch.zeros(2, 3, 16, 24, dtype=torch.uint8), r"critic input must be floating point .* got torch.uint8; conv"),
        (
            torch.zeros(2, 3, 16, 24, dtype=torch.float64),
            r"must have the type of the weights, torch.float32, got torch.float64; convert it with .to\(",
        ),
        (torch.full((2, 3, 16, 24), 127.0), r"critic input must lie in \[-1, 1\], got values from 127 to 127"),
    ],
)
@pytest.mark.parametrize("kind", [GlobalCritic, LocalCritic])
def test_an_image_that_does_not_fit_is_reported(kind: type[Critic], image: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(2, (16, 24))(image)


@pytest.mark.parametrize("kind", [GlobalCritic, LocalCritic])
def test_a_width_without_a_channel_is_reported(kind: type[Critic]) -> None:
    with pytest.raises(ValueError, match="width must be at least 1 channel, got 0; the paper's is 64"):
        kind(0, (16, 24))


@pytest.mark.parametrize("size", [0, -3, (0, 16), (16,), (3, 16, 16)])
def test_an_image_size_that_is_none_is_reported(size: int | tuple[int, ...]) -> None:
    expected = (
        rf"image_size must be a height and a width in pixels, .* got {re.escape(str(size))}; pass e.g. \(256, 256\)"
    )
    with pytest.raises(ValueError, match=expected):
        LocalCritic(2, size)


def test_one_number_means_a_square() -> None:
    assert GlobalCritic(2, 32).image_size == GlobalCritic(2, [32, 32]).image_size == (32, 32)
