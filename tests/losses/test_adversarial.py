from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gicinpaint.losses import (
    Adversary,
    Hinge,
    LeastSquares,
    NonSaturating,
    Wasserstein,
    gradient_penalty,
)
from gicinpaint.models.critics import LocalCritic


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


# Adversaries: expected values are the closed forms of the cited papers, in NumPy

_REAL, _COMPLETED = np.array([0.3, 2.0, -1.5]), np.array([-0.4, -3.0, 1.25])


@pytest.mark.parametrize(
    ("adversary", "critic_loss", "generator_loss"),
    [
        (Wasserstein(), _COMPLETED.mean() - _REAL.mean(), -_COMPLETED.mean()),
        (Hinge(), (0.7 + 0 + 2.5) / 3 + (0.6 + 0 + 2.25) / 3, -_COMPLETED.mean()),
        (
            LeastSquares(),
            (0.49 + 1 + 6.25) / 6 + (0.16 + 9 + 1.5625) / 6,
            (1.96 + 16 + 0.0625) / 6,
        ),
        (
            NonSaturating(),
            -np.log(1 / (1 + np.exp(-_REAL))).mean() - np.log(1 - 1 / (1 + np.exp(-_COMPLETED))).mean(),
            -np.log(1 / (1 + np.exp(-_COMPLETED))).mean(),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_adversaries_equal_their_closed_forms(adversary: Adversary, critic_loss: float, generator_loss: float) -> None:
    real, completed = torch.from_numpy(_REAL)[:, None], torch.from_numpy(_COMPLETED)[:, None]
    assert adversary.critic_loss(real, completed).item() == pytest.approx(critic_loss)
    assert adversary.generator_loss(completed).item() == pytest.approx(generator_loss)


@pytest.mark.parametrize("adversary", [Wasserstein(), Hinge(), LeastSquares(), NonSaturating()])
def test_a_critic_gains_by_real_scores_and_the_generator_by_completed_ones(adversary: Adversary) -> None:
    real, completed = (torch.zeros(2, 1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    adversary.critic_loss(real, completed).backward()
    assert (real.grad < 0).all()
    assert (completed.grad >= 0).all()
    completed.grad = None
    adversary.generator_loss(completed).backward()
    assert (completed.grad < 0).all()


# Gradient penalty


class _Linear(nn.Module):
    """A critic whose gradient is its weight, everywhere."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, image: Tensor) -> Tensor:
        return (image * self.weight).sum(dim=(1, 2, 3))[:, None]


def _hole() -> Tensor:
    mask = torch.zeros(1, 1, 6, 6, dtype=torch.float64)
    mask[..., 1:4, 2:5] = 1
    return mask


def test_penalty_is_zero_when_the_gradient_norm_in_the_hole_is_one() -> None:
    weight = _random(3, 6, 6)
    inside = (weight * _hole()[0]).norm()
    image, fake = _random(2, 3, 6, 6, seed=1), _random(2, 3, 6, 6, seed=2)
    assert gradient_penalty(_Linear(weight / inside), image, fake, _hole()).item() == pytest.approx(0, abs=1e-20)
    assert gradient_penalty(_Linear(3 * weight / inside), image, fake, _hole()).item() == pytest.approx(4)


def test_penalty_lies_at_the_given_place_between_real_and_completed() -> None:
    """The critic 0.5 * |x|^2 has the gradient x, so the norm is that of the interpolated image."""
    image, fake = _random(2, 3, 6, 6, seed=1), _random(2, 3, 6, 6, seed=2)
    alpha, mask = torch.tensor([0.0, 0.25], dtype=torch.float64).reshape(2, 1, 1, 1), _hole()
    norms = [(image[0] * mask[0]).norm(), ((0.75 * image[1] + 0.25 * fake[1]) * mask[0]).norm()]
    expected = sum((norm.item() - 1) ** 2 for norm in norms) / 2
    penalty = gradient_penalty(lambda x: 0.5 * x.square().sum(dim=(1, 2, 3))[:, None], image, fake, mask, alpha)
    assert penalty.item() == pytest.approx(expected)


def test_a_critics_own_gradient_has_the_derivatives_of_one_that_is_differentiated_twice() -> None:
    torch.manual_seed(0)
    critic, mask, alpha = LocalCritic(3, (20, 18)).double(), torch.ones(1, 1, 20, 18), torch.full((2, 1, 1, 1), 0.3)
    image, fake = _random(2, 3, 20, 18, seed=1), _random(2, 3, 20, 18, seed=2)
    weights = [layer.weight for layer in critic.features]
    known = torch.autograd.grad(gradient_penalty(critic, image, fake, mask, alpha), weights)
    found = torch.autograd.grad(gradient_penalty(lambda x: critic(x), image, fake, mask, alpha), weights)
    for one, other in zip(known, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_critics_own_gradient_is_the_one_whose_norm_is_taken() -> None:
    class Own(_Linear):
        def input_gradient(self, image: Tensor) -> Tensor:
            return torch.full_like(image, 2.0)

    image, fake = _random(2, 3, 6, 6, seed=1), _random(2, 3, 6, 6, seed=2)
    penalty = gradient_penalty(Own(_random(3, 6, 6)), image, fake, _hole())
    assert penalty.item() == pytest.approx(((4 * 3 * 9) ** 0.5 - 1) ** 2)


def test_penalty_places_come_from_the_given_generator() -> None:
    image, fake, mask = _random(2, 3, 6, 6, seed=1), _random(2, 3, 6, 6, seed=2), _hole()

    def penalty(seed: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        return gradient_penalty(lambda x: x.square().sum(dim=(1, 2, 3)), image, fake, mask, generator=generator).item()

    assert penalty(1) == penalty(1) != penalty(2)


def test_a_critic_of_zeros_has_finite_gradients() -> None:
    critic = LocalCritic(2, (16, 16))
    for weight in critic.parameters():
        nn.init.zeros_(weight)
    image = _random(2, 3, 16, 16, dtype=torch.float32)
    penalty = gradient_penalty(critic, image, -image, torch.ones(1, 1, 16, 16))
    assert penalty.item() == 1
    penalty.backward()
    gradients = [weight.grad for weight in critic.parameters() if weight.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_an_empty_hole_has_finite_gradients() -> None:
    critic = LocalCritic(2, (16, 16))
    image = _random(2, 3, 16, 16, dtype=torch.float32)
    penalty = gradient_penalty(critic, image, -image, torch.zeros(1, 1, 16, 16))
    assert penalty.item() == 1
    penalty.backward()
    assert all(p.grad is None or not p.grad.any() for p in critic.parameters())


def test_penalty_is_computed_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    critic, mask, alpha = LocalCritic(4, (32, 32)), torch.ones(1, 1, 32, 32), torch.full((2, 1, 1, 1), 0.5)
    image, fake = _random(2, 3, 32, 32, dtype=torch.float32), _random(2, 3, 32, 32, seed=1, dtype=torch.float32)
    expected = gradient_penalty(critic, image, fake, mask, alpha)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert critic(image).dtype == torch.bfloat16
        actual = gradient_penalty(critic, image, fake, mask, alpha)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)


def test_penalty_of_half_precision_images_is_computed_in_float32() -> None:
    image = _random(2, 3, 6, 6, dtype=torch.float32).bfloat16()
    penalty = gradient_penalty(_Linear(torch.ones(3, 6, 6)), image, -image, torch.ones(1, 1, 6, 6))
    assert penalty.dtype == torch.float32
    assert penalty.item() == pytest.approx((108**0.5 - 1) ** 2)


def test_penalty_needs_no_outer_gradients_and_leaves_the_images_alone() -> None:
    image = _random(1, 3, 6, 6, dtype=torch.float32).requires_grad_()
    critic = _Linear(torch.ones(3, 6, 6))
    with torch.no_grad():
        penalty = gradient_penalty(critic, image, image, torch.ones(1, 1, 6, 6))
    penalty.backward()
    assert critic.weight.grad is not None
    assert image.grad is None


def test_penalty_inputs_that_do_not_fit_are_reported() -> None:
    image, mask, critic = torch.zeros(2, 3, 4, 4), torch.ones(1, 1, 4, 4), _Linear(torch.ones(3, 4, 4))
    with pytest.raises(ValueError, match=r"fake must have the shape of real, \(2, 3, 4, 4\), got \(1, 3, 4, 4\)"):
        gradient_penalty(critic, image, image[:1], mask)
    with pytest.raises(ValueError, match=r"alpha must be \(2, 1, 1, 1\), got \(2, 1\); pass one number per image"):
        gradient_penalty(critic, image, image, mask, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="mask must hold only 0"):
        gradient_penalty(critic, image, image, 0.5 * mask)
    with pytest.raises(ValueError, match="mask must have the image's height and width"):
        gradient_penalty(critic, image, image, torch.ones(1, 1, 4, 5))
