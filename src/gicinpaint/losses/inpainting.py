"""All losses of the training algorithm, joined by their weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

from gicinpaint.losses.adversarial import Adversary, Wasserstein, penalty
from gicinpaint.losses.reconstruction import BoxReconstruction, known_l1
from gicinpaint.models.compositing import Box

Reconstruction = Callable[[Tensor, Tensor, Tensor, Box], Tensor]
Terms = dict[str, Tensor]  # scalars by the names that the log gives them; "total" is what is minimised


class CriticLoss(NamedTuple):
    """The adversarial loss between one critic and the generator, and its weights."""

    adversary: Adversary
    weight: float = 0.001  # of the critic's scores in the generator's loss
    penalty_weight: float = 0.0  # of the gradient penalty in the critic's loss; 0 leaves it out


@dataclass(eq=False)
class InpaintingLoss:
    """All losses of the training algorithm and the weights that join them.

    Source:
        Yu et al. 2018, sections 3.2 and 4.2; the weights are the released configuration's.
    """

    adversary: Adversary | None = field(default_factory=Wasserstein)  # None: train on reconstruction alone
    reconstruction: Reconstruction = field(default_factory=BoxReconstruction)  # error of the hole
    coarse_weight: float = 1.2  # of the first stage within each reconstruction term, against 1 for the second
    reconstruction_weight: float = 1.2
    known_weight: float = 1.2  # of the known pixels' error
    adversarial_weight: float = 0.001  # of the adversary in the generator's loss
    global_weight: float = 1.0  # of the global critic within the adversary, against 1 for the local one
    penalty_weight: float = 10.0  # of the gradient penalties in the critics' loss; 0 leaves them out
    critics: Mapping[str, CriticLoss | None] | None = field(default_factory=dict)  # that differ from the above, by name

    def of_critic(self, name: str) -> CriticLoss | None:
        """Return the adversarial loss of a critic with its weights; None on reconstruction alone."""
        if self.critics and (own := self.critics.get(name)):
            return own
        weight = self.adversarial_weight * (self.global_weight if name == "global" else 1.0)
        return None if self.adversary is None else CriticLoss(self.adversary, weight, self.penalty_weight)

    def generator(
        self,
        coarse: Tensor,
        refined: Tensor | None,
        image: Tensor,
        mask: Tensor,
        box: Box,
        scores: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Terms:
        """Return the generator's loss: `total`, `reconstruction`, `known` and each critic's `NAME_adversarial`.

        Args:
            coarse: First stage's output, (B, 3, H, W).
            refined: Second stage's output, if there is one.
            image: Ground truth, (B, 3, H, W), [-1, 1].
            mask: Hole mask, (B, 1, H, W).
            box: Rectangle around each hole.
            scores: Each critic's scores of the completed images, by its name.
        """
        reconstruction = self.coarse_weight * self.reconstruction(coarse, image, mask, box)
        known = self.coarse_weight * known_l1(coarse, image, mask)
        if refined is not None:
            reconstruction = reconstruction + self.reconstruction(refined, image, mask, box)
            known = known + known_l1(refined, image, mask)
        terms = {"reconstruction": reconstruction, "known": known}
        total = self.reconstruction_weight * reconstruction + self.known_weight * known
        for name, completed in scores.items():
            loss = self._needed(name)
            terms[f"{name}_adversarial"] = loss.adversary.generator_loss(completed)
            total = total + loss.weight * terms[f"{name}_adversarial"]
        return {"total": total, **terms}

    def critic(self, name: str, real: Tensor, completed: Tensor, gradient_norm: Tensor | None = None) -> Terms:
        """Return one critic's loss, and means of its scores for the log.

        Args:
            name: The critic's name.
            real: Its scores of real images, of any shape.
            completed: Its scores of completed images, of the same shape.
            gradient_norm: Norm of its gradient in each hole, (B,); needed where the penalty has a weight.

        Returns:
            `total`; `NAME_critic` and `NAME_penalty`, its parts; the means `NAME_scores/real`, `NAME_scores/completed`,
            their difference `NAME_scores/wasserstein`, which with the Wasserstein adversary estimates the distance, and
            `NAME_scores/gradient_norm`.
        """
        loss = self._needed(name)
        total = loss.adversary.critic_loss(real, completed)
        terms = {f"{name}_critic": total}
        means = {"real": real.detach().mean(), "completed": completed.detach().mean()}
        means["wasserstein"] = means["real"] - means["completed"]
        if loss.penalty_weight:
            if gradient_norm is None:
                raise ValueError("a gradient penalty needs gradient_norm, got None; pass the norms or penalty_weight=0")
            terms[f"{name}_penalty"] = penalty(gradient_norm)
            total = total + loss.penalty_weight * terms[f"{name}_penalty"]
            means["gradient_norm"] = gradient_norm.detach().mean()
        return {"total": total, **terms} | {f"{name}_scores/{key}": mean for key, mean in means.items()}

    def _needed(self, name: str) -> CriticLoss:
        if (loss := self.of_critic(name)) is None:
            raise ValueError("a critic's loss needs an adversary, got None; pass one, e.g. Wasserstein()")
        return loss
