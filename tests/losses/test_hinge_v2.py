"""loss=hinge_v2 against the second paper's released losses, terms and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

import golden
from gicinpaint import PatchCritic
from gicinpaint.losses import InpaintingLoss
from gicinpaint.models.compositing import Box, composite
from gicinpaint.weights import convert

YAML = Path(__file__).parents[2] / "conf" / "loss" / "hinge_v2.yaml"
FILES = golden.paths_v2("losses_*.npz")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_terms_and_gradients_equal_the_golden_ones(path: Path) -> None:
    values = golden.load(path)
    config = OmegaConf.load(YAML)
    config.adversarial_weight = values["meta"]["config"]["gan_loss_alpha"]
    config.reconstruction_weight = values["meta"]["config"]["l1_loss_alpha"]
    loss: InpaintingLoss = instantiate(config, _convert_="all")
    with_mask = values["meta"]["config"]["gan_with_mask"]
    critic = PatchCritic(values["meta"]["cnum_discriminator"], 4 if with_mask else 3)
    critic.load_state_dict(convert(golden.tensorflow_variables(values))["patch_critic"])
    image, mask = values["batch_data"] / 127.5 - 1, values["mask"].expand(len(values["batch_data"]), -1, -1, -1)
    coarse, refined = values["x_stage1"].requires_grad_(), values["x_stage2"].requires_grad_()
    both = torch.cat([image, composite(image, refined, mask)])
    scores = critic(both, torch.cat([mask, mask]) if with_mask else None)
    real, completed = scores.chunk(2)

    found = loss.critic("patch", real, completed)
    torch.testing.assert_close(found["total"], values["d_loss"], atol=0, rtol=1e-5)
    names = [name for name, _ in critic.named_parameters()]
    gradients = dict(zip(names, gradient_of(found["total"], list(critic.parameters())), strict=True))
    state = {name: value for name, value in golden.tensorflow_variables(values).items() if name.endswith("/u")}
    expected = convert(state | golden.tensorflow_gradients(values, "d_loss"))["patch_critic"]  # u has no gradient
    golden.assert_gradients_equal(gradients, {name: expected[name] for name in names}, 1e-4)

    terms = loss.generator(
        coarse, refined, image, mask, Box(torch.zeros(1), torch.zeros(1), *mask.shape[-2:]), {"patch": completed}
    )
    torch.testing.assert_close(terms["reconstruction"], values["ae_loss"] / config.reconstruction_weight)
    torch.testing.assert_close(terms["patch_adversarial"], values["gan_g_loss"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(terms["total"], values["g_loss"], atol=1e-5, rtol=1e-5)
    for stage, gradient in zip(("x_stage1", "x_stage2"), gradient_of(terms["total"], [coarse, refined]), strict=True):
        assert golden.relative_norm(gradient, values[f"grad_g_loss_{stage}"]) < 1e-4


def gradient_of(loss: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs, retain_graph=True)
