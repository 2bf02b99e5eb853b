from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import golden
from gicinpaint.losses import (
    CriticLoss,
    Hinge,
    InpaintingLoss,
    LeastSquares,
    Terms,
    Wasserstein,
    gradient_norm,
    known_l1,
)
from gicinpaint.models.compositing import Box, composite, crop_box
from gicinpaint.models.critics import Critic, GlobalCritic, LocalCritic
from gicinpaint.weights import convert

FILES = golden.paths("losses_*.npz")
PARTS = ("global", "local")


class Case:
    """A golden file's inputs in our terms; its box is the same for every image."""

    def __init__(self, path: Path) -> None:
        self.values = values = golden.load(path)
        self.image = values["batch_data"] / 127.5 - 1
        self.mask = values["mask"]
        top, left, height, width = values["bbox_tlhw"].tolist()
        b = len(self.image)
        self.box = Box(torch.full((b,), top), torch.full((b,), left), height, width)
        self.coarse_only = values["meta"]["config"]["PRETRAIN_COARSE_NETWORK"]
        self.coarse = values["x_stage1"].requires_grad_()
        self.refined = None if self.coarse_only else values["x_stage2"].requires_grad_()
        self.completed = composite(self.image, self.coarse if self.refined is None else self.refined, self.mask)
        self.sizes = {"global": tuple(self.image.shape[-2:]), "local": (height, width)}
        self.critics = {part: self._critic(part) for part in PARTS}

    def _critic(self, part: str) -> Critic:
        kind = {"global": GlobalCritic, "local": LocalCritic}[part]
        critic = kind(self.values["meta"]["cnum_critics"], self.sizes[part])
        critic.load_state_dict(self._converted(golden.tensorflow_variables(self.values), part))
        return critic

    def _converted(self, variables: dict[str, np.ndarray], part: str) -> dict[str, Tensor]:
        return convert(variables, self.sizes["global"], self.sizes["local"])[f"{part}_critic"]

    def seen(self, part: str, image: Tensor) -> Tensor:
        return crop_box(image, self.box) if part == "local" else image

    def alpha(self, part: str) -> Tensor:
        return self.values[f"alpha_{part}"].reshape(-1, 1, 1, 1)

    def critic_terms(self) -> Terms:
        loss, completed = InpaintingLoss(), self.completed.detach()
        mask = self.mask.expand(len(self.image), -1, -1, -1)
        terms: Terms = {"total": torch.zeros(())}
        for part in PARTS:
            critic, real, fake = self.critics[part], self.seen(part, self.image), self.seen(part, completed)
            norm = gradient_norm(critic, real, fake, self.seen(part, mask), self.alpha(part))
            found = loss.critic(part, critic(real), critic(fake), norm)
            terms = {**terms, **found, "total": terms["total"] + found["total"]}
        return terms

    def assert_gradients(self, loss: Tensor, name: str) -> None:
        expected = golden.tensorflow_gradients(self.values, name)
        loss.backward()
        for part, critic in self.critics.items():
            actual = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in critic.named_parameters()}
            golden.assert_gradients_equal(actual, self._converted(expected, part))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def _close(actual: Tensor | None, expected: Tensor) -> None:
    assert actual is not None
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=0)


def test_both_kinds_of_golden_files_are_there() -> None:
    assert {Case(path).coarse_only for path in FILES} == {False, True}


def test_critic_losses_and_penalties_equal_the_golden_ones(case: Case) -> None:
    terms = case.critic_terms()
    for name, ours in (
        ("d_loss_global", "global_critic"),
        ("d_loss_local", "local_critic"),
        ("penalty_global", "global_penalty"),
        ("penalty_local", "local_penalty"),
        ("d_loss", "total"),
    ):
        _close(terms[ours], case.values[name])


def test_gradients_of_the_critics_loss_equal_the_golden_ones(case: Case) -> None:
    case.assert_gradients(case.critic_terms()["total"], "d_loss")


def test_gradients_of_the_penalty_equal_the_golden_ones(case: Case) -> None:
    terms = case.critic_terms()
    penalty = 10 * (terms["global_penalty"] + terms["local_penalty"])
    _close(penalty, case.values["gp_loss"])
    case.assert_gradients(penalty, "gp_loss")


def test_generator_losses_and_gradients_equal_the_golden_ones(case: Case) -> None:
    scores = {part: case.critics[part](case.seen(part, case.completed)) for part in PARTS}
    for part, score in scores.items():
        _close(Wasserstein().generator_loss(score), case.values[f"g_loss_{part}"])
    given = {} if case.coarse_only else scores  # the released pretraining has no adversarial term
    terms = InpaintingLoss().generator(case.coarse, case.refined, case.image, case.mask, case.box, given)
    for name, ours in (("l1_loss", "reconstruction"), ("ae_loss", "known"), ("g_loss", "total")):
        _close(terms[ours], case.values[name])
    terms["total"].backward()
    assert golden.relative_norm(case.coarse.grad, case.values["grad_g_loss_x_stage1"]) < 1e-3
    if case.refined is not None:
        assert golden.relative_norm(case.refined.grad, case.values["grad_g_loss_x_stage2"]) < 1e-3


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


def test_weights_join_the_generators_terms() -> None:
    image, coarse, refined = (_random(2, 3, 8, 8, seed=seed) for seed in range(3))
    mask = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    mask[..., 2:5, 2:5] = 1
    box = Box(torch.tensor([1, 2]), torch.tensor([2, 1]), 5, 5)
    double = torch.float64
    scores = {
        "global": torch.tensor([[1.0], [3.0]], dtype=double),
        "local": torch.tensor([[-1.0], [0.0]], dtype=double),
    }
    loss = InpaintingLoss(
        Wasserstein(), coarse_weight=2, reconstruction_weight=3, known_weight=5, adversarial_weight=7, global_weight=11
    )
    terms = loss.generator(coarse, refined, image, mask, box, scores)
    hole = 2 * loss.reconstruction(coarse, image, mask, box) + loss.reconstruction(refined, image, mask, box)
    known = 2 * known_l1(coarse, image, mask) + known_l1(refined, image, mask)
    torch.testing.assert_close(terms["total"], 3 * hole + 5 * known + 7 * (11 * -2.0 + 0.5))
    alone = loss.generator(coarse, None, image, mask, box)
    assert set(alone) == {"total", "reconstruction", "known"}
    torch.testing.assert_close(
        alone["total"], 6 * loss.reconstruction(coarse, image, mask, box) + 10 * known_l1(coarse, image, mask)
    )


def test_a_critics_own_loss_replaces_the_common_one() -> None:
    """By hand: scores 3 and -1; least squares halve the squared distances, hinge losses stop at 1 and -1."""
    own = {"patch": CriticLoss(LeastSquares(), weight=0.5), "local": None}
    loss = InpaintingLoss(Hinge(), penalty_weight=0, adversarial_weight=2, critics=own)
    real, completed = torch.tensor([[3.0]]), torch.tensor([[-1.0]])
    assert loss.critic("patch", real, completed)["total"].item() == 0.5 * (2**2 + 1)
    assert loss.critic("local", real, completed)["total"].item() == 0
    image, mask, box = torch.zeros(1, 3, 4, 4), torch.ones(1, 1, 4, 4), Box(torch.tensor([0]), torch.tensor([0]), 4, 4)
    terms = loss.generator(image, None, image, mask, box, {"patch": completed, "local": completed})
    assert terms["patch_adversarial"].item() == 0.5 * 2**2
    assert terms["total"].item() == 0.5 * 2 + 2 * 1


def test_a_critics_terms_are_its_loss_its_penalty_and_what_it_said() -> None:
    """By hand: means 2 and -1 of the scores, 3 apart; norms 1 and 2, so a penalty of 0.5, of weight 4."""
    real, completed = torch.tensor([[1.0], [3.0]], requires_grad=True), torch.tensor([[-2.0], [0.0]])
    norm = torch.tensor([1.0, 2.0], requires_grad=True)
    terms = InpaintingLoss(penalty_weight=4).critic("global", real, completed, norm)
    assert {name: term.item() for name, term in terms.items()} == {
        "total": -3 + 4 * 0.5,
        "global_critic": -3,
        "global_penalty": 0.5,
        "global_scores/real": 2,
        "global_scores/completed": -1,
        "global_scores/wasserstein": 3,
        "global_scores/gradient_norm": 1.5,
    }
    assert {name for name, term in terms.items() if term.requires_grad} == {"total", "global_critic", "global_penalty"}


def test_without_a_penalty_there_is_no_norm_to_tell() -> None:
    terms = InpaintingLoss(penalty_weight=0).critic("local", torch.ones(2, 1), torch.zeros(2, 1))
    assert terms["total"].item() == -1
    assert not [name for name in terms if "penalty" in name or "norm" in name]


def test_a_penalty_without_norms_is_reported() -> None:
    with pytest.raises(ValueError, match="a gradient penalty needs gradient_norm, got None; pass the norms"):
        InpaintingLoss().critic("local", torch.ones(2, 1), torch.zeros(2, 1))


def test_a_critics_loss_without_adversary_is_reported() -> None:
    with pytest.raises(ValueError, match="a critic's loss needs an adversary, got None; pass one"):
        InpaintingLoss(None).critic("global", torch.zeros(1, 1), torch.zeros(1, 1))
