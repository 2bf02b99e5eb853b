"""The golden checkpoint and its values come from TensorFlow; others are written by tests/checkpoints.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import checkpoints
import golden
from gicinpaint.attention import ContextualAttention
from gicinpaint.models.critics import GlobalCritic, LocalCritic
from gicinpaint.models.generator import Generator
from gicinpaint.weights import convert, load_weights


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return golden.load("ckpt_c8_expected.npz")


def test_every_golden_variable_is_read(variables: dict[str, np.ndarray], expected: dict[str, Any]) -> None:
    assert {name: list(array.shape) for name, array in variables.items()} == dict(
        map(tuple, expected["meta"]["checkpoint_variables"])
    )
    weights = golden.section(expected, "var/")
    assert len(weights) == 84 + 20
    for name, weight in weights.items():
        array = variables[name]
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        if f"tf_var/{name}" in expected:
            np.testing.assert_array_equal(array, expected[f"tf_var/{name}"].numpy())
        else:
            np.testing.assert_array_equal(array, weight.numpy())
    assert variables["global_step"] == expected["meta"]["global_step"]
    assert variables["global_step"].dtype == np.int32
    assert variables["inpaint_net/conv1/kernel"].flags.writeable


def test_converted_dense_kernels_equal_the_permuted_golden_ones(
    variables: dict[str, np.ndarray], expected: dict[str, Any]
) -> None:
    parts = convert(variables)
    for part in ("global", "local"):
        weight = expected[f"var/discriminator/dout_{part}_fc/kernel"]
        assert torch.equal(parts[f"{part}_critic"]["score.weight"], weight)


def test_loaded_weights_reproduce_the_golden_outputs(released: Path, expected: dict[str, Any]) -> None:
    parts = load_weights(released)
    generator = Generator(width=8)
    generator.load_state_dict(parts["generator"])
    global_critic, local_critic = GlobalCritic(8, (64, 64)), LocalCritic(8, (32, 32))
    global_critic.load_state_dict(parts["global_critic"])
    local_critic.load_state_dict(parts["local_critic"])
    with torch.no_grad():
        completion = generator(expected["x"], expected["mask"])
        scores = global_critic(expected["x"]), local_critic(expected["x_local"])
    torch.testing.assert_close(completion.coarse, expected["x_stage1"], atol=1e-4, rtol=0)
    torch.testing.assert_close(completion.refined, expected["x_stage2"], atol=1e-4, rtol=0)
    torch.testing.assert_close(scores[0], expected["dout_global"], atol=1e-4, rtol=0)
    torch.testing.assert_close(scores[1], expected["dout_local"], atol=1e-4, rtol=0)


def test_converted_names_are_those_of_our_networks(variables: dict[str, np.ndarray]) -> None:
    parts = convert(variables)
    networks = {
        "generator": Generator(8, ContextualAttention()),
        "global_critic": GlobalCritic(8, (64, 64)),
        "local_critic": LocalCritic(8, (32, 32)),
    }
    for part, network in networks.items():
        own = network.state_dict()
        assert {name: weight.shape for name, weight in parts[part].items()} == {n: w.shape for n, w in own.items()}
        assert all(weight.dtype == torch.float32 and weight.is_contiguous() for weight in parts[part].values())


def _part(variables: dict[str, np.ndarray], *scopes: str) -> dict[str, np.ndarray]:
    return {name: array for name, array in variables.items() if name.startswith(scopes)}


def test_parts_that_are_absent_are_left_out(variables: dict[str, np.ndarray]) -> None:
    local = ("discriminator/discriminator_local", "discriminator/dout_local")
    assert convert(_part(variables, "inpaint_net/")).keys() == {"generator"}
    assert convert(_part(variables, *local)).keys() == {"local_critic"}
    assert convert(_part(variables, "inpaint_net/", *local)).keys() == {"generator", "local_critic"}
    assert convert({"lr": variables["lr"]}) == {}


@pytest.mark.parametrize("name", ["inpaint_net/xconv3/bias", "discriminator/dout_global_fc/kernel"])
def test_a_missing_variable_is_named(variables: dict[str, np.ndarray], name: str) -> None:
    with pytest.raises(ValueError, match=rf"must be complete, 1 are missing: {name}; pass all"):
        convert({key: array for key, array in variables.items() if key != name})


@pytest.mark.parametrize("name", ["inpaint_net/conv18/bias", "discriminator/extra", "inpaint_net/conv1/gamma"])
def test_an_unknown_variable_is_named(variables: dict[str, np.ndarray], name: str) -> None:
    with pytest.raises(ValueError, match=rf"got also {name}; convert"):
        convert(variables | {name: np.zeros(1, np.float32)})


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("inpaint_net/conv1/kernel", (8, 5, 5, 5)),
        ("inpaint_net/conv1/kernel", (5, 5, 5)),
        ("inpaint_net/pmconv4_downsample/kernel", (3, 3, 16, 16)),
        ("inpaint_net/allconv17/bias", (4,)),
        ("discriminator/discriminator_local/conv1/kernel", ()),
        ("discriminator/discriminator_local/conv4/kernel", (5, 5, 64, 32)),
        ("discriminator/dout_local_fc/kernel", (256,)),
        ("discriminator/dout_local_fc/kernel", (1, 256)),
        ("discriminator/dout_local_fc/kernel", (256, 2)),
        ("discriminator/dout_global_fc/kernel", (0, 1)),
        ("discriminator/dout_global_fc/bias", ()),
    ],
)
def test_a_wrong_shape_is_reported(variables: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> None:
    scope = name.rsplit("/", 2)[0]  # a wrong first kernel sets the width: a later layer of the part may be named
    with pytest.raises(ValueError, match=rf"{scope}.* must have "):
        convert(variables | {name: np.zeros(shape, np.float32)})


def test_a_wrong_type_is_reported(variables: dict[str, np.ndarray]) -> None:
    name = "inpaint_net/conv5/bias"
    with pytest.raises(ValueError, match=rf"{name} must be floating point, got int32; pass"):
        convert(variables | {name: variables[name].astype(np.int32)})


def test_optimizer_slots_do_not_change_the_result(variables: dict[str, np.ndarray]) -> None:
    weights = {name: array for name, array in variables.items() if name.endswith(("kernel", "bias"))}
    assert len(weights) == 104
    for part, state in convert(variables | {"inpaint_net/conv1/bias/Momentum": np.ones(8)}).items():
        for name, weight in convert(weights)[part].items():
            assert torch.equal(weight, state[name])


def test_a_critic_of_non_square_images_needs_their_size() -> None:
    values = golden.load("critics_c4_g60x76_l30x42.npz")
    own = golden.tensorflow_variables(values)
    with pytest.raises(
        ValueError, match=r"dout_global_fc/kernel must have .* got shape \(320, 1\); pass .* global_size"
    ):
        convert(own)
    with pytest.raises(ValueError, match=r"dout_local_fc/kernel must have .* pass .* local_size"):
        convert(own, global_size=(60, 76), local_size=(64, 64))
    parts = convert(own, global_size=(60, 76), local_size=(30, 42))
    for part in ("global", "local"):
        expected = values[f"var/discriminator/dout_{part}_fc/kernel"]
        assert torch.equal(parts[f"{part}_critic"]["score.weight"], expected)


def test_a_checkpoint_of_another_project_is_named(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path, [{"resnet/conv1": np.zeros(3, np.float32)}])
    with pytest.raises(
        ValueError, match=rf"{tmp_path.name} must hold variables below inpaint_net/ .* got resnet/conv1"
    ):
        load_weights(folder)


def test_a_checkpoint_of_another_release_is_named(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path, [{"inpaint_net/conv1/gated/kernel": np.zeros(3, np.float32)}])
    with pytest.raises(ValueError, match=rf"{tmp_path.name}.*: variables .* got also inpaint_net/conv1/gated/kernel"):
        load_weights(folder)
