"""Gated layers and the second paper's generator against the released code's numbers, for every attention backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

import golden
from gicinpaint import ContextualAttention, GatedGenerator, Inpainter, PatchCritic
from gicinpaint.models import GatedConvolution, composite
from gicinpaint.models.compositing import Box
from gicinpaint.models.layers import Convolution, Upsample
from gicinpaint.weights import convert
from gicinpaint.weights.tf_write import revert

HINGE = Path(__file__).parents[2] / "conf" / "loss" / "hinge_v2.yaml"
PADDING = {"SAME": "zeros", "SYMMETRIC": "mirror"}
ACTIVATIONS = {"elu": nn.ELU, "relu": nn.ReLU}
LAYERS = list(golden.paths_v2("gated_*.npz"))
GENERATORS = golden.paths_v2("generator_*.npz")
ATTENTIONS = {
    path.stem: instantiate(config, _convert_="all")
    for path in golden.attention_files()
    if "_target_" in (config := OmegaConf.load(path))
}


def layer_of(meta: dict[str, Any]) -> nn.Module:
    padding = PADDING[meta["padding"]]
    if meta["what"] == "gen_deconv":
        return Upsample(meta["cin"], meta["cnum"] // 2, padding, nn.ELU(inplace=True), GatedConvolution)
    settings = (meta["ksize"], meta["stride"], meta["rate"], padding)
    if not meta["gated"]:
        return Convolution(meta["cin"], meta["cnum"], *settings)
    return GatedConvolution(meta["cin"], meta["cnum"] // 2, *settings, ACTIVATIONS[meta["activation"]](inplace=True))


@pytest.mark.parametrize("path", LAYERS, ids=lambda path: path.stem)
def test_layers_and_their_gradients_equal_the_golden_ones(path: Path) -> None:
    values = golden.load(path)
    layer = layer_of(values["meta"])
    weights = {name.rpartition("/")[2]: value for name, value in golden.section(values, "var/").items()}
    convolution = getattr(layer, "convolution", layer)
    convolution.load_state_dict({"weight": weights["kernel"], "bias": weights["bias"]})
    x = values["x"].requires_grad_()
    y = layer(x)
    torch.testing.assert_close(y, values["y"], atol=1e-5, rtol=1e-5)
    (y * values["g"]).sum().backward()
    assert golden.relative_norm(x.grad, values["grad_x"]) < 1e-5
    for kind, weight in (("kernel", convolution.weight), ("bias", convolution.bias)):
        expected = next(value for name, value in values.items() if name.startswith("grad/") and name.endswith(kind))
        assert golden.relative_norm(weight.grad, expected) < 1e-5


def variables_of(values: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return a generator file's variables in TensorFlow's layout; some come from another file or are drawn."""
    meta = values["meta"]
    if recipe := meta.get("weights_recipe"):
        rng, drawn = np.random.RandomState(recipe["seed"]), {}
        for name, shape in recipe["order"]:
            array = rng.standard_normal(shape)
            drawn[name] = array * (0.1 if len(shape) == 1 else 2.2 / np.sqrt(np.prod(shape[:3])))
        for kind in ("kernel", "bias"):
            drawn[f"inpaint_net/pmconv6/{kind}"] *= 0.15
        drawn["inpaint_net/pmconv9/kernel"] *= 5.0
        return {name: array.astype(np.float32) for name, array in drawn.items()}
    own = golden.tensorflow_variables(values)
    if (source := meta["weights_from"]).endswith(".npz"):
        source = source.removesuffix(".npz")
    found = golden.paths_v2(f"{source.partition('.npz')[0]}.npz") if source.startswith("generator") else []
    return (golden.tensorflow_variables(golden.load(found[0])) if found else {}) | own


def generator_of(values: dict[str, Any], attention: ContextualAttention) -> GatedGenerator:
    meta = values["meta"]
    generator = GatedGenerator(meta["cnum"], attention, PADDING[meta["padding"]], meta["guided"])
    generator.load_state_dict(convert(variables_of(values))["generator"])
    return generator


@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS)
@pytest.mark.parametrize("path", GENERATORS, ids=lambda path: path.stem)
def test_outputs_and_offsets_equal_the_golden_ones(path: Path, attention: ContextualAttention) -> None:
    values = golden.load(path)
    generator, masked, mask = generator_of(values, attention), values["x"][:, :3], values["mask"]
    sketch = values["x"][:, 3:] if values["meta"]["guided"] else None
    with torch.no_grad():
        completion = generator(masked, mask, return_offset=True, sketch=sketch)
    torch.testing.assert_close(completion.coarse, values["x_stage1"], atol=1e-4, rtol=0)
    torch.testing.assert_close(completion.refined, values["x_stage2"], atol=1e-4, rtol=0)
    completed = composite(masked, completion.prediction, mask)
    torch.testing.assert_close(completed, values["x_complete"], atol=1e-4, rtol=0)
    first, second = values["attention_top1"], values["attention_top2"]
    clear = first - second >= 1e-4 * first
    assert clear.float().mean() > 0.5
    index = completion.offset[:, 0] * (masked.shape[-1] // 8) + completion.offset[:, 1]
    assert torch.equal(index[clear], values["argmax_index"].long()[clear])


def test_every_layer_equals_the_golden_one() -> None:
    from gicinpaint.weights.tf_convert import generator_scopes

    values = golden.load(golden.paths_v2("generator_c8_64x64_rect.npz")[0])
    generator, seen = generator_of(values, ContextualAttention()), {}
    modules = dict(generator.named_modules())
    for scope, name in generator_scopes().items():
        seen_as = scope.rpartition("_conv")[0].rpartition("/")[2] if scope.endswith("_conv") else scope.split("/")[1]
        module = modules[name.removesuffix(".convolution")]
        module.register_forward_hook(
            lambda module, inputs, output, seen_as=seen_as: seen.__setitem__(seen_as, output.clone())
        )
    with torch.no_grad():
        generator(values["x"], values["mask"])
    expected = golden.section(values, "act/")
    layers = [name for name in expected if name in seen]
    assert len(layers) == 42
    for name in layers:
        found = seen[name][:1]
        if name in ("conv17", "allconv17"):  # the released layer comes before its bound
            found = found.atanh()
        torch.testing.assert_close(found, expected[name], atol=2e-4, rtol=1e-3, msg=name)


def test_the_released_network_has_the_published_number_of_parameters() -> None:
    assert sum(weight.numel() for weight in GatedGenerator().parameters()) == 4_052_478


def test_without_attention_the_branch_is_left_out() -> None:
    generator = GatedGenerator(8, attention=None)
    assert not any("attention" in name or "attended" in name for name in generator.state_dict())
    masked = torch.zeros(1, 3, 16, 24)
    assert generator(masked, torch.ones(1, 1, 16, 24)).refined.shape == masked.shape
    with pytest.raises(ValueError, match="return_offset needs an attention layer"):
        generator(masked, torch.ones(1, 1, 16, 24), return_offset=True)


def test_every_image_has_its_own_mask_and_sketch() -> None:
    torch.manual_seed(0)
    generator = GatedGenerator(8, guided=True)
    for weight in generator.parameters():  # as initialised every gate halves the features, until nothing is left
        weight.data *= 3
    image = torch.rand(2, 3, 32, 40) * 2 - 1
    mask, sketch = ((torch.rand(2, 1, 32, 40) < share).float() for share in (0.4, 0.1))
    masked = image * (1 - mask)
    with torch.no_grad():
        together = generator(masked, mask, sketch=sketch)
        for i in range(2):
            alone = generator(masked[i : i + 1], mask[i : i + 1], sketch=sketch[i : i + 1])
            torch.testing.assert_close(together.refined[i : i + 1], alone.refined, atol=1e-5, rtol=0)
        without, empty = generator(masked, mask), generator(masked, mask, sketch=torch.zeros_like(sketch))
        outside = generator(masked, mask, sketch=torch.maximum(sketch, 1 - mask))
    assert torch.equal(without.coarse, empty.coarse)
    assert torch.equal(outside.coarse, together.coarse)  # a sketch outside the hole has no effect
    assert together.refined.std() > 0.01
    assert not torch.allclose(without.coarse, together.coarse)


def test_before_training_a_residual_network_is_near_a_smooth_filling() -> None:
    from gicinpaint.models import fill_harmonically

    torch.manual_seed(0)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1
    masked = (torch.rand(1, 3, 32, 32) * 2 - 1) * (1 - mask)
    with torch.no_grad():
        completion = GatedGenerator(8, residual=True)(masked, mask)
    assert (completion.coarse - fill_harmonically(masked, mask)).abs().mean() < 0.1


@pytest.mark.parametrize(("residual", "open_gates"), [(False, False), (True, False), (False, True)])
def test_gates_start_at_a_half_as_released_or_open(residual: bool, open_gates: bool) -> None:
    torch.manual_seed(0)
    share = 0.9526 if residual or open_gates else 0.5  # 1 / (1 + e^-3)
    generator = GatedGenerator(8, residual=residual, open_gates=open_gates)
    for layer in (generator.coarse_network.encoder.half_size, generator.refinement_network.dilated_encoder.half_size):
        y = layer(torch.zeros(1, layer.in_channels, 4, 4))
        assert torch.equal(y, torch.zeros_like(y))  # of features 0
        features = layer.bias.detach().clone()
        features[: len(features) // 2] = 1
        layer.bias.data = features
        assert layer(torch.zeros(1, layer.in_channels, 4, 4)).mean().item() == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize("width", [0, 6, 2, -4])
def test_a_width_without_gates_in_every_layer_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match=rf"width must be a positive multiple of 4, got {width}; .* 48"):
        GatedGenerator(width)


def test_a_sketch_that_does_not_fit_is_named() -> None:
    masked, mask = torch.zeros(1, 3, 16, 16), torch.ones(1, 1, 16, 16)
    with pytest.raises(ValueError, match="a sketch needs a guided generator, got guided=False"):
        GatedGenerator(4)(masked, mask, sketch=mask)
    with pytest.raises(ValueError, match=r"sketch must have the image's height and width \(16, 16\), got \(8, 16\)"):
        GatedGenerator(4, guided=True)(masked, mask, sketch=mask[..., :8, :])


def gradients_of(loss: torch.Tensor, network: nn.Module) -> dict[str, torch.Tensor]:
    names, weights = zip(*network.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, weights, retain_graph=True), strict=True))


@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS)
@pytest.mark.parametrize("path", golden.paths_v2("e2e_*.npz"), ids=lambda path: path.stem)
def test_losses_and_gradients_of_both_networks_equal_the_golden_ones(
    path: Path, attention: ContextualAttention
) -> None:
    values = golden.load(path)
    meta, weights = values["meta"], convert(golden.tensorflow_variables(values))
    generator, critic = GatedGenerator(meta["cnum_generator"], attention), PatchCritic(meta["cnum_discriminator"])
    generator.load_state_dict(weights["generator"])
    critic.load_state_dict(weights["patch_critic"])
    loss = instantiate(OmegaConf.load(HINGE), _convert_="all")
    image, mask = values["batch_data"] / 127.5 - 1, values["mask"].expand(2, -1, -1, -1)
    completion = generator(values["x"], mask)
    completed = composite(image, completion.refined, mask)
    real, fake = critic(torch.cat([image, completed]), torch.cat([mask, mask])).chunk(2)
    box = Box(torch.zeros(2), torch.zeros(2), *mask.shape[-2:])
    terms = loss.generator(completion.coarse, completion.refined, image, mask, box, {"patch": fake})
    torch.testing.assert_close(terms["total"], values["g_loss"], atol=1e-4, rtol=1e-4)
    total = loss.critic("patch", real, fake)["total"]
    torch.testing.assert_close(total, values["d_loss"], atol=1e-4, rtol=1e-4)
    vectors = {name: value for name, value in golden.tensorflow_variables(values).items() if name.endswith("/u")}
    for part, found, loss_name, rest in (
        ("generator", gradients_of(terms["total"], generator), "g_loss", {}),
        ("patch_critic", gradients_of(total, critic), "d_loss", vectors),  # u has no gradient
    ):
        expected = convert(rest | golden.tensorflow_gradients(values, loss_name))[part]
        golden.assert_gradients_equal(found, {name: expected[name] for name in found}, 1e-4)


@pytest.mark.skipif(not golden.SHARED_V2.is_dir(), reason="the checkpoint of 298 entries is not beside this checkout")
def test_a_checkpoint_of_the_second_papers_code_fills_as_its_own_script_does() -> None:
    values = golden.load(golden.SHARED_V2 / "server_c8_64x96.npz")
    inpainter = Inpainter.from_checkpoint(golden.SHARED_V2 / "ckpt_c8", device="cpu")
    image, mask = (values[name][0].numpy().transpose(1, 2, 0) for name in ("image_u8", "mask_u8"))
    hole = mask[..., 0] > 127
    filled = inpainter(np.ascontiguousarray(image[..., ::-1]), hole)  # the authors read blue, green, red
    expected = values["result_u8"][0].numpy().transpose(1, 2, 0).astype(int)
    found = filled[..., ::-1].astype(int)
    assert np.abs(found - expected)[hole].max() <= 1
    assert np.array_equal(found[~hole], image[~hole])  # theirs are one level low at times


@pytest.mark.skipif(not golden.SHARED_V2.is_dir(), reason="the list of variables is not beside this checkout")
def test_the_full_networks_have_the_released_variables() -> None:
    meta = golden.load(golden.SHARED_V2 / "parameter_shapes.npz")["meta"]
    released = {item["name"]: tuple(item["tf_shape"]) for item in meta["variables"]}
    networks = {"generator": GatedGenerator().state_dict(), "patch_critic": PatchCritic().state_dict()}
    assert {name: array.shape for name, array in revert(networks).items()} == released
