"""Adversarial losses: Wasserstein with its gradient penalty, hinge, least squares, non-saturating."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from gicinpaint.attention.reference import without_autocast
from gicinpaint.checks import check_like, check_mask


class Adversary(Protocol):
    """What critics and generator minimise against each other; scores are (B, 1)."""

    def critic_loss(self, real: Tensor, completed: Tensor) -> Tensor:
        """Return the critic's loss from its scores of real and completed images."""
        ...

    def generator_loss(self, completed: Tensor) -> Tensor:
        """Return the generator's loss from a critic's scores of completed images."""
        ...


class Wasserstein:
    """Difference of mean scores (Yu et al. 2018, section 3.2): needs the gradient penalty."""

    def critic_loss(self, real: Tensor, completed: Tensor) -> Tensor:
        """Return the negative Wasserstein estimate."""
        return (completed - real).mean()

    def generator_loss(self, completed: Tensor) -> Tensor:
        """Return the negative mean score."""
        return -completed.mean()


class Hinge:
    """Scores pushed beyond -1 and 1 (Lim and Ye 2017).

    Args:
        scale: Factor on the critic's loss; the second paper's released code has 0.5.
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def critic_loss(self, real: Tensor, completed: Tensor) -> Tensor:
        """Return the mean distance of real scores below 1 plus that of completed scores above -1, scaled."""
        return self.scale * (F.relu(1 - real).mean() + F.relu(1 + completed).mean())

    def generator_loss(self, completed: Tensor) -> Tensor:
        """Return the negative mean score."""
        return -completed.mean()


class LeastSquares:
    """Scores pulled to 0 and 1 (Mao et al. 2017)."""

    def critic_loss(self, real: Tensor, completed: Tensor) -> Tensor:
        """Return half the squared distance of real scores to 1 plus that of completed scores to 0."""
        return 0.5 * ((real - 1).square().mean() + completed.square().mean())

    def generator_loss(self, completed: Tensor) -> Tensor:
        """Return half the squared distance of completed scores to 1."""
        return 0.5 * (completed - 1).square().mean()


class NonSaturating:
    """The original GAN's loss with the generator's non-saturating form (Goodfellow et al. 2014)."""

    def critic_loss(self, real: Tensor, completed: Tensor) -> Tensor:
        """Return the binary cross-entropy of telling real from completed."""
        return F.softplus(-real).mean() + F.softplus(completed).mean()

    def generator_loss(self, completed: Tensor) -> Tensor:
        """Return the cross-entropy of passing for real."""
        return F.softplus(-completed).mean()


def gradient_norm(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    mask: Tensor,
    alpha: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the norm of the critic's gradient in each image's hole, between real and completed images, (B,).

    Computed in float32 at least, whatever autocast says: in bfloat16 it is some percent off, in float16 it underflows.

    Args:
        critic: Maps images to one score each. One that knows the gradient of its scores to the images, a method
            `input_gradient` such as `Critic` has, is asked for it; any other is differentiated twice.
        real: Ground truth, as the critic sees it, (B, C, H, W), [-1, 1].
        fake: Completed images, likewise.
        mask: Hole mask, (B or 1, 1, H, W), {0, 1}; only the gradient inside counts.
        alpha: Place of each image between real (0) and fake (1), (B, 1, 1, 1); drawn uniformly if not given.
        generator: Source of that draw.

    Raises:
        ValueError: If the shapes differ or the mask is not binary.

    Source:
        Yu et al. 2018, section 3.2, and Gulrajani et al. 2017. Differs from the released code: the norm of
        a zero gradient has the derivative 0, not NaN.
    """
    check_like(fake, real, "fake", "real")
    check_mask(mask, real)
    b = real.shape[0]
    if alpha is None:
        device = real.device if generator is None else generator.device
        alpha = torch.rand(b, 1, 1, 1, generator=generator, device=device).to(real.device)
    elif alpha.shape != (b, 1, 1, 1):
        raise ValueError(f"alpha must be ({b}, 1, 1, 1), got {tuple(alpha.shape)}; pass one number per image")
    dtype = torch.promote_types(real.dtype, torch.float32)
    with torch.enable_grad(), without_autocast(real):
        real, fake = real.detach().to(dtype), fake.detach().to(dtype)
        between = real + alpha.to(dtype) * (fake - real)
        own_method: Callable[[Tensor], Tensor] | None = getattr(critic, "input_gradient", None)
        if own_method is not None:
            gradient = own_method(between)
        else:
            (gradient,) = torch.autograd.grad(critic(between.requires_grad_()).sum(), between, create_graph=True)
        return torch.linalg.vector_norm((gradient * mask.to(dtype)).flatten(1), dim=1)


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    mask: Tensor,
    alpha: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return how far the critic's gradient in the hole is from norm 1; arguments as `gradient_norm`."""
    with torch.enable_grad():
        return penalty(gradient_norm(critic, real, fake, mask, alpha, generator=generator))


def penalty(norm: Tensor) -> Tensor:
    """Return the mean squared distance of gradient norms (B,) from 1, a scalar."""
    return (norm - 1).square().mean()
