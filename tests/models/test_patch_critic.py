"""The patch critic against the released discriminator's numbers, and its spectral norm against numpy's."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributed import destroy_process_group, init_process_group
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

import golden
from gicinpaint import PatchCritic

FILES = golden.paths_v2("discriminator_*.npz")
SCOPE = "discriminator/sn_patch_gan"


def scope_of(name: str) -> tuple[str, str]:
    """Return the TensorFlow scope and kind of one of our names."""
    layer, kind = name.removeprefix("features.").split(".")
    return f"{SCOPE}/conv{int(layer) + 1}", {"weight": "kernel", "bias": "bias", "u": "kernel_sn/u"}[kind]


def critic_of(values: dict[str, Any], **options: Any) -> PatchCritic:
    critic = PatchCritic(values["meta"]["cnum"], values["meta"]["input_channels"], **options)
    state = {name: values["var/" + "/".join(scope_of(name))] for name in critic.state_dict()}
    critic.load_state_dict({name: value[0] if name.endswith("u") else value for name, value in state.items()})
    return critic


def score(critic: PatchCritic, x: Tensor) -> Tensor:
    """Return the scores as TensorFlow flattens them: row, column, channel."""
    return critic(x[:, :3], x[:, 3:] if x.shape[1] > 3 else None).permute(0, 2, 3, 1).flatten(1)


def state_of_u(critic: PatchCritic) -> dict[str, Tensor]:
    return {"/".join(scope_of(name)): value[None] for name, value in critic.named_buffers()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scores_and_vectors_equal_the_golden_ones_after_1_2_and_21_runs(path: Path) -> None:
    values = golden.load(path)
    critic = critic_of(values)
    for run in range(1, 22):
        with torch.no_grad():
            critic.train(run % 2 == 1)  # the vectors move in evaluation too
            found = score(critic, values["x"])
        if run in (1, 2, 21):
            expected = values["dout" if run == 1 else f"dout_run{run}"]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
            for name, vector in state_of_u(critic).items():
                torch.testing.assert_close(vector, values[f"u_run{run}/{name}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_gradients_to_input_and_weights_equal_the_golden_ones(path: Path) -> None:
    values = golden.load(path)
    critic, x = critic_of(values), values["x"].requires_grad_()
    found = score(critic, x)
    (found * values["g"]).sum().backward()
    assert golden.relative_norm(x.grad, values["grad_x"]) < 1e-4
    for name, weight in critic.named_parameters():
        assert weight.grad is not None
        assert golden.relative_norm(weight.grad, values["grad/" + "/".join(scope_of(name))]) < 1e-4, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_detached_vectors_give_the_same_scores_and_other_kernel_gradients(path: Path) -> None:
    values = golden.load(path)
    x, gradients = values["x"], []
    for detach in (False, True):
        critic = critic_of(values, detach=detach)
        found = score(critic, x)
        torch.testing.assert_close(found, values["dout"], atol=1e-5, rtol=1e-5)
        (found * values["g"]).sum().backward()
        gradients.append([layer.weight.grad for layer in critic.features])
    differences = [golden.relative_norm(other, exact) for exact, other in zip(*gradients, strict=True)]
    assert max(differences) > 1e-3
    assert max(differences) < 0.1


def test_a_detached_kernel_gradient_is_that_of_a_constant_direction() -> None:
    """By hand: d(W / s) with s = u W v and constant u, v."""
    torch.manual_seed(0)
    critic = PatchCritic(2, depth=1, detach=True).double()
    layer = critic.features[0]
    matrix, u = layer.weight.detach().flatten(1), layer.u.clone()
    v = u @ matrix
    v = v / v.norm()
    u = matrix @ v
    u = u / u.norm()
    sigma = float(u @ matrix @ v)
    image, mask = torch.rand(1, 3, 6, 6).double(), torch.ones(1, 1, 6, 6).double()
    free = (layer.weight.detach() / sigma).requires_grad_()
    padded = torch.nn.functional.pad(torch.cat([image, mask], 1), (1, 2, 1, 2))
    output = torch.nn.functional.leaky_relu(torch.nn.functional.conv2d(padded, free, stride=2), 0.2)
    (direction,) = torch.autograd.grad(output.sum(), free)
    expected = direction / sigma - (direction * free.detach()).sum() * torch.outer(u, v).reshape(free.shape) / sigma
    critic(image, mask).sum().backward()
    torch.testing.assert_close(layer.weight.grad, expected, atol=1e-10, rtol=0)


def test_after_many_calls_every_kernel_has_the_largest_singular_value_one() -> None:
    torch.manual_seed(0)
    critic = PatchCritic(4, depth=3)
    x = torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)
    with torch.no_grad():
        for _ in range(300):
            critic(*x)
    for layer in critic.features:
        matrix = layer.weight.detach().flatten(1)
        sigma = layer.u @ matrix @ torch.nn.functional.normalize(layer.u @ matrix, dim=0)
        np.testing.assert_allclose(sigma.numpy(), np.linalg.svd(matrix.numpy())[1][0], rtol=1e-4)


def test_a_linear_critic_adds_one_score_that_may_fall_as_far_as_it_rises() -> None:
    """By hand: the C scores of the same layers, convolved with the last kernel over its largest singular value."""
    torch.manual_seed(0)
    critic = PatchCritic(4, depth=2, linear=True).double()
    image, mask = torch.rand(2, 3, 24, 20).double() * 2 - 1, torch.ones(1, 1, 24, 20).double()
    with torch.no_grad():
        critic.features[-1].bias.fill_(-0.5)
        for _ in range(300):
            found = critic(image, mask)
        released = PatchCritic(4, depth=2).double()
        released.load_state_dict({k: v for k, v in critic.state_dict().items() if not k.startswith("features.2")})
        scores = released(image, mask).numpy()
    kernel = critic.features[-1].weight.detach().numpy()
    kernel = kernel / np.linalg.svd(kernel.reshape(1, -1))[1][0]
    padded = np.pad(scores, ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = -0.5 + sum(
        np.einsum("bchw,c->bhw", padded[:, :, i : i + 6, j : j + 5], kernel[0, :, i, j])
        for i in range(3)
        for j in range(3)
    )
    np.testing.assert_allclose(found[:, 0].numpy(), expected, atol=1e-6)
    assert found.shape == (2, 1, 6, 5)
    assert found.min() < -0.5 < found.max()


@pytest.mark.parametrize(("h", "w"), [(1, 1), (3, 7), (64, 65), (61, 130)])
@pytest.mark.parametrize("depth", [1, 2, 4, 6])
def test_any_size_has_one_column_of_scores_per_patch(h: int, w: int, depth: int) -> None:
    scores = PatchCritic(2, depth=depth)(torch.zeros(2, 3, h, w), torch.zeros(1, 1, h, w))
    channels = {1: 2, 2: 4}.get(depth, 8)
    assert scores.shape == (2, channels, -(-h // 2**depth), -(-w // 2**depth))


def test_each_image_is_scored_with_its_own_mask() -> None:
    torch.manual_seed(0)
    critic = PatchCritic(3, depth=3).double()
    image = torch.rand(2, 3, 20, 28, dtype=torch.float64) * 2 - 1
    mask = (torch.rand(2, 1, 20, 28) < 0.5).double()
    alone = [copy.deepcopy(critic)(image[i : i + 1], mask[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(copy.deepcopy(critic)(image, mask), torch.cat(alone))
    shared = copy.deepcopy(critic)(image, mask[:1])
    assert not torch.allclose(shared[1], alone[1][0])
    torch.testing.assert_close(shared[:1], alone[0])


def test_counts_of_parameters_and_state_are_the_released_ones() -> None:
    critic = PatchCritic()
    assert sum(weight.numel() for weight in critic.parameters()) == 5_946_816
    assert sum(vector.numel() for vector in critic.buffers()) == 1_216


def test_the_vectors_travel_in_the_state_dict() -> None:
    torch.manual_seed(0)
    critic, other = PatchCritic(2, depth=2), PatchCritic(2, depth=2)
    x = torch.rand(1, 3, 8, 8), torch.ones(1, 1, 8, 8)
    critic(*x)
    other.load_state_dict(critic.state_dict())
    assert torch.equal(critic(*x), other(*x))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width must be at least 1 channel, got 0"),
        ({"in_channels": 2}, "3 or 4 in_channels and a depth of at least 1, got 2 and 6"),
        ({"depth": 0}, "got 4 and 0; the released values are 4 and 6"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PatchCritic(**settings)


def test_inputs_that_do_not_fit_are_named() -> None:
    critic, image = PatchCritic(2, depth=2), torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match="needs the mask, got None; pass it, or use in_channels=3"):
        critic(image)
    with pytest.raises(ValueError, match=r"mask must have the image's height and width \(8, 8\), got \(8, 9\)"):
        critic(image, torch.zeros(1, 1, 8, 9))
    with pytest.raises(ValueError, match=r"critic input must be \(B, 3, H, W\)"):
        critic(image[:, :1], torch.zeros(1, 1, 8, 8))


def _train_apart(rank: int, folder: str) -> None:
    """Train on images of this process's own, as DDP does, and store what became of the critic."""
    init_process_group("gloo", f"file://{folder}/meet", world_size=2, rank=rank)
    torch.manual_seed(rank)  # weights and vectors start apart: DDP takes those of the first process
    critic = DistributedDataParallel(PatchCritic(2, depth=3))
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.01)
    for _ in range(4):
        optimizer.zero_grad()
        critic(torch.rand(2, 3, 16, 16) * 2 - 1, torch.ones(2, 1, 16, 16)).square().mean().backward()
        optimizer.step()
    torch.save(critic.module.state_dict(), f"{folder}/{rank}.pt")
    destroy_process_group()


def test_copies_in_two_processes_stay_equal_with_their_vectors(tmp_path: Path) -> None:
    spawn(_train_apart, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert any(name.endswith(".u") for name in first)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_the_vectors_travel_in_a_checkpoint(tmp_path: Path) -> None:
    critic, image, mask = PatchCritic(2, depth=3), torch.rand(1, 3, 16, 16) * 2 - 1, torch.ones(1, 1, 16, 16)
    critic(image, mask)
    torch.save(critic.state_dict(), tmp_path / "critic.pt")
    opened = PatchCritic(2, depth=3)
    opened.load_state_dict(torch.load(tmp_path / "critic.pt", weights_only=True))
    assert torch.equal(opened(image, mask), critic(image, mask))
