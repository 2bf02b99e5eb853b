"""All losses of the training algorithm, joined by their weights."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gicinpaint.compositing import Box
from gicinpaint.losses.adversaries import Adversary, Wasserstein
from gicinpaint.losses.reconstruction import BoxReconstruction, known_l1


class CriticScores(NamedTuple):
    """What one critic said of a batch, for the log alone: means as detached scalars.

    Attributes:
        real: Score of real images.
        completed: Score of completed images.
        wasserstein: The first minus the second: with the Wasserstein adversary, the estimate of the distance.
        gradient_norm: Norm of its gradient in the hole, which the penalty pulls to 1; None without a penalty.
    """

    real: Tensor
    completed: Tensor
    wasserstein: Tensor
    gradient_norm: Tensor | None

    @classmethod
    def of(cls, real: Tensor, completed: Tensor, norm: Tensor | None) -> "CriticScores":
        """Return the means of scores (B, 1) of real and completed images and of gradient norms (B,)."""
        real, completed = real.detach().mean(), completed.detach().mean()
        return cls(real, completed, real - completed, None if norm is None else norm.detach().mean())


class CriticTerms(NamedTuple):
    """The critics' loss and its parts, scalars; a part of an absent critic is None. The scores are for the log."""

    total: Tensor
    global_critic: Tensor | None
    local_critic: Tensor | None
    global_penalty: Tensor | None
    local_penalty: Tensor | None
    global_scores: CriticScores | None = None
    local_scores: CriticScores | None = None


class GeneratorTerms(NamedTuple):
    """The generator's loss and its parts, scalars; a part that does not apply is None."""

    total: Tensor
    reconstruction: Tensor
    known: Tensor
    global_adversarial: Tensor | None
    local_adversarial: Tensor | None


class InpaintingLoss:
    """All losses of the training algorithm and the weights that join them.

    Args:
        adversary: What critics and generator play, or None to train on reconstruction alone.
        reconstruction: Error of the hole.
        coarse_weight: Weight of the first stage within each reconstruction term, against 1 for the second.
        reconstruction_weight: Weight of the hole's error.
        known_weight: Weight of the known pixels' error.
        adversarial_weight: Weight of the adversary in the generator's loss.
        global_weight: Weight of the global critic within the adversary, against 1 for the local one.
        penalty_weight: Weight of the gradient penalties in the critics' loss; 0 leaves them out.

    Source:
        Yu et al. 2018, sections 3.2 and 4.2; the weights are the released configuration's.
    """

    def __init__(
        self,
        adversary: Adversary | None = Wasserstein(),  # noqa: B008  (no state: safe to share)
        reconstruction: Callable[[Tensor, Tensor, Tensor, Box], Tensor] = BoxReconstruction(),  # noqa: B008
        coarse_weight: float = 1.2,
        reconstruction_weight: float = 1.2,
        known_weight: float = 1.2,
        adversarial_weight: float = 0.001,
        global_weight: float = 1.0,
        penalty_weight: float = 10.0,
    ) -> None:
        self.adversary = adversary
        self.reconstruction = reconstruction
        self.coarse_weight = coarse_weight
        self.reconstruction_weight = reconstruction_weight
        self.known_weight = known_weight
        self.adversarial_weight = adversarial_weight
        self.global_weight = global_weight
        self.penalty_weight = penalty_weight

    def generator(
        self,
        coarse: Tensor,
        refined: Tensor | None,
        image: Tensor,
        mask: Tensor,
        box: Box,
        global_scores: Tensor | None = None,
        local_scores: Tensor | None = None,
    ) -> GeneratorTerms:
        """Return the generator's loss.

        Args:
            coarse: First stage's output, (B, 3, H, W).
            refined: Second stage's output, if there is one.
            image: Ground truth, (B, 3, H, W), [-1, 1].
            mask: Hole mask, (B, 1, H, W).
            box: Rectangle around each hole.
            global_scores: The global critic's scores of the completed images, (B, 1); None leaves the term out.
            local_scores: The local critic's scores of their boxes, likewise.
        """
        reconstruction = self.coarse_weight * self.reconstruction(coarse, image, mask, box)
        known = self.coarse_weight * known_l1(coarse, image, mask)
        if refined is not None:
            reconstruction = reconstruction + self.reconstruction(refined, image, mask, box)
            known = known + known_l1(refined, image, mask)
        total = self.reconstruction_weight * reconstruction + self.known_weight * known
        global_term, local_term = (self._against(scores) for scores in (global_scores, local_scores))
        if global_term is not None:
            total = total + self.adversarial_weight * self.global_weight * global_term
        if local_term is not None:
            total = total + self.adversarial_weight * local_term
        return GeneratorTerms(total, reconstruction, known, global_term, local_term)

    def critic(self, real_scores: Tensor, completed_scores: Tensor) -> Tensor:
        """Return one critic's loss, without its penalty, from its scores (B, 1)."""
        if self.adversary is None:
            raise ValueError("a critic's loss needs an adversary, got None; pass one, e.g. Wasserstein()")
        return self.adversary.critic_loss(real_scores, completed_scores)

    def critics(
        self,
        global_loss: Tensor | None,
        local_loss: Tensor | None,
        global_penalty: Tensor | None = None,
        local_penalty: Tensor | None = None,
    ) -> CriticTerms:
        """Return the sum of both critics' losses and weighted penalties, scalars.

        Raises:
            ValueError: If no part is given.
        """
        losses = [loss for loss in (global_loss, local_loss) if loss is not None]
        penalties = [self.penalty_weight * term for term in (global_penalty, local_penalty) if term is not None]
        if not losses and not penalties:
            raise ValueError("the critics' loss needs at least one part, got None for all; pass a critic's loss")
        total = torch.stack([*losses, *penalties]).sum()
        return CriticTerms(total, global_loss, local_loss, global_penalty, local_penalty)

    def _against(self, scores: Tensor | None) -> Tensor | None:
        return None if scores is None or self.adversary is None else self.adversary.generator_loss(scores)
