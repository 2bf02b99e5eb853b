"""Checkpoints for the authors' code: byte by byte those that TensorFlow wrote, and back from training checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import golden
from gicinpaint import ContextualAttention, GatedGenerator, Generator, PatchCritic
from gicinpaint.weights import convert, load_generator, read_checkpoint, save_generator
from gicinpaint.weights.tf_write import revert, write_checkpoint
from gicinpaint.weights.training_state import from_checkpoint, from_variables
from models import outputs, run_convert
from runs import fit, small_module

V2 = golden.SHARED_V2 / "ckpt_c8"
needs_v2 = pytest.mark.skipif(not V2.is_dir(), reason="the second paper's checkpoint is not beside this checkout")


def assert_same_files(found: Path, expected: Path) -> None:
    names = sorted(path.name for path in expected.iterdir())
    assert sorted(path.name for path in found.iterdir()) == names
    for name in names:
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name


def test_files_are_those_that_tensorflow_wrote(released: Path, tmp_path: Path) -> None:
    write_checkpoint(read_checkpoint(released), tmp_path / "written", "snap-0")
    assert_same_files(tmp_path / "written", released)


@needs_v2
def test_files_of_the_second_paper_are_those_that_tensorflow_wrote(tmp_path: Path) -> None:
    write_checkpoint(read_checkpoint(V2), tmp_path / "written", "snap-2")
    assert_same_files(tmp_path / "written", V2)


def test_many_variables_of_every_type_are_read_back(tmp_path: Path) -> None:
    """More than 256 entries, names that share much and little, empty and scalar arrays, another memory order."""
    rng = np.random.default_rng(0)
    kinds = ("float32", "float64", "int32", "int64", "uint8", "bool", "float16")
    variables: dict[str, Any] = {
        f"{'layer' * (i % 3)}/{i}/weights": (rng.standard_normal((i % 4, 3)) * 9).astype(kinds[i % len(kinds)])
        for i in range(300)
    }
    variables |= {"scalar": np.float32(2.5), "transposed": np.arange(6.0).reshape(2, 3).T, "ÿ": np.zeros(1, np.int8)}
    write_checkpoint({name: np.asarray(array) for name, array in variables.items()}, tmp_path)
    found = read_checkpoint(tmp_path)
    assert found.keys() == variables.keys()
    for name, array in variables.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == np.asarray(array).dtype


def test_a_type_that_no_reader_takes_is_named_and_no_checkpoint_is_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x must be of a numeric type, got <U1"):
        write_checkpoint({"x": np.array("a")}, tmp_path)
    assert not (tmp_path / "checkpoint").exists()


def test_reverted_networks_are_the_variables_they_came_from(variables: dict[str, np.ndarray]) -> None:
    found = revert(convert(variables))
    assert len(found) == 104
    for name, array in found.items():
        np.testing.assert_array_equal(array, variables[name])


def test_networks_that_were_never_released_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the generator must have the layers of a released network .* absent"):
        revert({"generator": GatedGenerator(4, attention=None).state_dict()})
    with pytest.raises(ValueError, match=r"the patch_critic must .* 6 tensors are absent .* features\.4\.bias"):
        revert({"patch_critic": PatchCritic(2, depth=4).state_dict()})


@pytest.mark.parametrize("network", [Generator, GatedGenerator])
@pytest.mark.parametrize("raw", ["false", "true"])
def test_a_model_goes_to_tensorflow_and_back(network: Any, raw: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = network(8, ContextualAttention())
    for weight in generator.parameters():
        weight.data *= 2
    save_generator(generator, tmp_path / "own")
    there = run_convert(
        tmp_path, f"source={tmp_path / 'own'}", f"output={tmp_path / 'tf'}", "to=tensorflow", f"raw={raw}"
    )
    assert there[0] == 0, there[2]
    assert "equal to the original to" in there[1]
    assert read_checkpoint(tmp_path / "tf").keys() == revert({"generator": generator.state_dict()}).keys()
    back = load_generator(tmp_path / "tf", raw=raw == "true")
    assert type(back) is network
    torch.testing.assert_close(outputs(back), outputs(generator.eval()), atol=1e-5, rtol=0)
    other = load_generator(tmp_path / "tf", raw=raw == "false")
    assert not torch.allclose(outputs(other), outputs(generator), atol=1e-3)


@pytest.mark.parametrize("raw", ["false", "true"])
def test_moments_critics_and_counts_go_to_a_checkpoint_and_back_to_every_byte(
    raw: str, released: Path, tmp_path: Path
) -> None:
    for number, folder in enumerate([released] + [V2] * V2.is_dir()):
        first, second = tmp_path / f"{number}.ckpt", tmp_path / f"tf{number}"
        there = run_convert(tmp_path, f"source={folder}", f"output={first}", "slots=true", f"raw={raw}")
        assert there[0] == 0, there[2]
        assert f"Adam's moments and {(0, 4)[number]} updates" in there[1]
        back = run_convert(tmp_path, f"source={first}", f"output={second}", "slots=true", "to=tensorflow", f"raw={raw}")
        assert back[0] == 0, back[2]
        assert_same_files(second, folder)


def test_training_goes_on_from_a_tensorflow_checkpoint(released: Path, tmp_path: Path) -> None:
    """One step of Adam by hand, from the moments of the checkpoint."""
    state = from_variables(read_checkpoint(released))
    run_convert(tmp_path, f"source={released}", f"output={tmp_path / 'x.ckpt'}", "slots=true", "raw=true")
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    generator = Generator(8)
    generator.load_state_dict(
        {k.removeprefix("generator."): v for k, v in checkpoint["state_dict"].items() if k.startswith("gen")}
    )
    optimizer = torch.optim.Adam(generator.parameters(), lr=7.0)
    optimizer.load_state_dict(checkpoint["optimizer_states"][0])
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"]) == (pytest.approx(1e-4), (0.5, 0.9))
    name, weight = next(iter(generator.named_parameters()))
    assert torch.equal(optimizer.state[weight]["exp_avg"], state.moments["exp_avg"]["generator"][name])
    assert checkpoint["counters"]["generator_updates"] == 0


def test_a_run_of_ours_tells_its_updates_to_tensorflow(tmp_path: Path) -> None:
    for joint, updates in ((False, 6), (True, 6)):
        module = small_module(critic_steps=1, joint_clock=joint)
        module.config = {"joint_clock": joint}
        fit(module, updates=3).save_checkpoint(tmp_path / "x.ckpt")
        state = from_checkpoint(tmp_path / "x.ckpt")
        assert (state.adam_updates, state.generator_updates) == (updates, 3)
        variables = state.variables()
        assert variables["beta1_power"] == pytest.approx(0.5**7)
        assert variables["global_step"] == 3
        weight = module.generator.coarse_network.encoder.stem.weight
        moment = module.optimizers()[0].state[weight]["exp_avg"]
        np.testing.assert_array_equal(variables["inpaint_net/conv1/kernel/Adam"], moment.permute(2, 3, 1, 0).numpy())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("source={own}", "output=x", "slots=true"), "slots=true needs a checkpoint of gicinpaint train, got"),
        (("source={released}", "output=x", "slots=true"), "output must be a file NAME.ckpt to be trained on from"),
        (("source={own}", "output=x.ckpt", "to=tensorflow"), "output must be a folder for a TensorFlow checkpoint"),
        (("source={residual}", "output=x", "to=tensorflow"), "the authors' code has no generator with residual=True"),
        (("source={bare}", "output=x.ckpt", "slots=true"), "needs a generator with both moments of every weight"),
    ],
)
def test_what_cannot_be_converted_is_one_line(
    overrides: tuple[str, ...], message: str, released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_generator(Generator(2), "own")
    save_generator(Generator(2, residual=True), "residual")
    write_checkpoint(revert({"generator": Generator(2).state_dict()}), "bare")
    paths = {"own": "own", "residual": "residual", "bare": "bare", "released": released}
    code, _, errors = run_convert(tmp_path, *(text.format(**paths) for text in overrides))
    assert code == 1
    assert message in errors
    assert len(errors.strip().splitlines()) == 1
