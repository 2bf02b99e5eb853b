"""Adversarial losses of critics and generator: Wasserstein, hinge, least squares, non-saturating."""

from typing import Protocol

from torch import Tensor
from torch.nn import functional as F


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
