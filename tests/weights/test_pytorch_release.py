"""PyTorch conversions of the second paper's weights: their names, written down here in the order of the layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gicinpaint import GatedGenerator, PatchCritic
from gicinpaint.models.layers import Convolution
from gicinpaint.weights import load_generator
from gicinpaint.weights.pytorch_release import convert_release
from models import outputs, run_convert

ENCODER = ["1", "2_downsample", "3", "4_downsample", "5", "6"]
DILATED = ["7_atrous", "8_atrous", "9_atrous", "10_atrous"]
DECODER = ["11", "12", "13_upsample", "14", "15_upsample", "16", "17"]
AUTHORS = [f"conv{n}" for n in ENCODER + DILATED + DECODER] + [f"xconv{n}" for n in ENCODER + DILATED]
AUTHORS += [f"pmconv{n}" for n in [*ENCODER, "9", "10"]] + [f"allconv{n}" for n in DECODER]
DOWN = ["down_block1.conv1_downsample", "down_block1.conv2", "down_block2.conv1_downsample", "down_block2.conv2"]
UP = ["up_block1.conv1_upsample.conv", "up_block1.conv2", "up_block2.conv1_upsample.conv", "up_block2.conv2"]
BLOCKS = [f"stage1.{n}" for n in ["conv1", *DOWN, *(f"conv_bn{i}" for i in range(1, 8)), *UP, "conv_to_rgb"]]
BLOCKS += [f"stage2.conv_{n}" for n in ["conv1", *DOWN, *(f"conv_bn{i}" for i in range(1, 6))]]
BLOCKS += [f"stage2.ca_{n}" for n in ["conv1", *DOWN, "conv_bn1", "conv_bn4", "conv_bn5"]]
BLOCKS += [f"stage2.{n}" for n in ["conv_bn6", "conv_bn7", *UP, "conv_to_rgb"]]
NAMES = {
    "networks_tf": [f"{n}.conv.conv" if n.endswith("upsample") else f"{n}.conv" for n in AUTHORS],
    "networks": [f"{n}.conv" for n in BLOCKS],
}
PADDING = {"networks_tf": "zeros", "networks": "centered"}


def network(kind: str) -> GatedGenerator:
    torch.manual_seed(0)
    generator = GatedGenerator(8, padding=PADDING[kind])
    for weight in generator.parameters():
        weight.data = torch.randn_like(weight) * 0.2
    return generator.eval()


def published(kind: str, generator: nn.Module) -> dict[str, Any]:
    """Return what such a file holds: its layers come in the same order as ours."""
    layers = [layer for layer in generator.modules() if isinstance(layer, Convolution)]
    assert len(layers) == len(NAMES[kind]) == 42
    state = {}
    for name, layer in zip(NAMES[kind], layers, strict=True):
        state |= {f"{name}.weight": layer.weight.detach(), f"{name}.bias": layer.bias.detach()}
    if kind == "networks":
        state["stage2.contextual_attention.fuse_weight"] = torch.eye(3).reshape(1, 1, 3, 3)
    return state


def published_critic(critic: PatchCritic) -> dict[str, Any]:
    state = {}
    for i, layer in enumerate(critic.features):
        values = {"weight": layer.weight.detach(), "bias": layer.bias.detach(), "weight_u": layer.u[:, None]}
        state |= {f"conv{i + 1}.conv_sn.{name}": value for name, value in values.items()}
    return state


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("whole", [True, False])
def test_both_kinds_open_and_fill_as_the_network_they_came_from(kind: str, whole: bool, tmp_path: Path) -> None:
    generator = network(kind)
    state = published(kind, generator)
    more = {"D": {}, "G_optim": {"state": {}, "param_groups": []}, "n_iter": 7}
    torch.save({"G": state, **more} if whole else state, tmp_path / "states.pth")
    opened = load_generator(tmp_path / "states.pth")
    assert opened.settings["padding"] == PADDING[kind]
    assert torch.equal(outputs(opened), outputs(generator))
    assert outputs(generator).std() > 0.01


def test_a_conversion_becomes_a_folder_by_the_convert_job(tmp_path: Path) -> None:
    torch.save({"G": published("networks", network("networks"))}, tmp_path / "states.pth")
    code, output, errors = run_convert(tmp_path, f"source={tmp_path / 'states.pth'}", f"output={tmp_path / 'own'}")
    assert code == 0, errors
    assert "equal to the original to 0" in output
    assert torch.equal(outputs(load_generator(tmp_path / "own")), outputs(network("networks")))
    code, _, errors = run_convert(tmp_path, f"source={tmp_path / 'own'}", f"output={tmp_path / 'tf'}", "to=tensorflow")
    assert code == 1
    assert "the authors' code has no generator with padding=centered" in errors


def test_the_critic_of_the_authors_weights_comes_with_its_vectors() -> None:
    torch.manual_seed(1)
    critic, other = PatchCritic(2), PatchCritic(2)
    file = {"G": published("networks_tf", network("networks_tf")), "D": published_critic(critic)}
    parts, padding = convert_release(file)
    assert padding == "zeros"
    other.load_state_dict(parts["patch_critic"])
    image, mask = torch.rand(1, 3, 32, 32) * 2 - 1, torch.ones(1, 1, 32, 32)
    assert torch.equal(other(image, mask), critic(image, mask))
    parts, _ = convert_release({**file, "G": published("networks", network("networks"))})
    assert parts.keys() == {"generator"}  # its critic pads otherwise


def test_centered_padding_is_that_of_a_plain_convolution_at_every_stride() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 2, 12, 15)
    for stride, dilation in ((1, 1), (2, 1), (1, 4)):
        ours = Convolution(2, 3, 3, stride, dilation, "centered")
        plain = nn.Conv2d(2, 3, 3, stride, padding=dilation, dilation=dilation)
        plain.load_state_dict(ours.state_dict())
        assert torch.equal(ours(x), plain(x))
    with pytest.raises(ValueError, match="input_gradient needs a convolution padded with 'zeros', got another"):
        Convolution(2, 3, 3, 2, padding="centered").input_gradient(torch.zeros(1, 3, 6, 8), (12, 15))


@pytest.mark.parametrize("kind", NAMES)
def test_a_layer_that_is_absent_or_left_over_is_named(kind: str, tmp_path: Path) -> None:
    state = published(kind, network(kind))
    last = f"{NAMES[kind][-1]}.bias"
    torch.save({"G": {name: value for name, value in state.items() if name != last}}, tmp_path / "less.pth")
    with pytest.raises(ValueError, match=rf"less.pth: the generator of a PyTorch .* 1 are absent .* first {last}"):
        load_generator(tmp_path / "less.pth")
    torch.save({"G": {**state, "extra.weight": torch.zeros(1)}}, tmp_path / "more.pth")
    with pytest.raises(ValueError, match=r"1 are absent or left over, the first extra\.weight"):
        load_generator(tmp_path / "more.pth")
    torch.save({"G": {**state, last: 3}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="got other things than tensors"):
        load_generator(tmp_path / "other.pth")
    first = f"{NAMES[kind][0]}.weight"
    torch.save({"G": {**state, first: torch.zeros(8)}}, tmp_path / "flat.pth")
    with pytest.raises(ValueError, match="its kernels must have four axes"):
        load_generator(tmp_path / "flat.pth")


def test_code_in_a_conversion_is_refused(tmp_path: Path) -> None:
    torch.save({"G": network("networks_tf")}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="was refused and nothing in it was run"):
        load_generator(tmp_path / "code.pth")
