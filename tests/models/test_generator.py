from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

import golden
from gicinpaint.attention import ContextualAttention
from gicinpaint.models.compositing import composite, mask_out
from gicinpaint.models.generator import CoarseGenerator, CoarseNetwork, Generator, RefinementNetwork
from gicinpaint.models.harmonic_fill import fill_harmonically
from gicinpaint.weights import convert
from gicinpaint.weights.tf_convert import generator_scopes

FILES = golden.paths("generator_*.npz")
PADDING = {"SAME": "zeros", "SYMMETRIC": "mirror"}


def _attentions() -> dict[str, ContextualAttention]:
    """Build every attention of conf/attention; files whose layer is null have no backend."""
    found = {}
    for path in golden.attention_files():
        config = OmegaConf.load(path)
        if "_target_" in config:
            found[path.stem] = instantiate(config, _convert_="all")
    return found


ATTENTIONS = _attentions()
every_attention = pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS)


@lru_cache
def _values(name: str) -> dict[str, Any]:
    return golden.load(next(path for path in golden.paths(f"{name}.npz")))


def _generator(name: str, attention: ContextualAttention | None, padding: str = "SAME") -> Generator:
    """Build the generator of a golden file, whose weights may lie in another file."""
    values = _values(name)
    width = values["var/inpaint_net/conv1/kernel"].shape[0]
    generator = Generator(width, attention, PADDING[padding])
    generator.load_state_dict(convert(golden.tensorflow_variables(values))["generator"])
    return generator


def _golden_generator(values: dict[str, Any], stem: str, attention: ContextualAttention) -> Generator:
    source = values["meta"]["weights_from"]
    return _generator(stem if source == "this file" else source, attention, values["meta"]["padding"])


def _case(h: int, w: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return three images with three different masks: a rectangle, scattered blocks and an L."""
    random = torch.Generator().manual_seed(h * w)
    image = torch.rand(3, 3, h, w, generator=random) * 2 - 1
    mask = torch.zeros(3, 1, h, w)
    mask[0, :, 8:32, 16:40] = 1
    mask[1] = (
        (torch.rand(1, h // 8, w // 8, generator=random) < 0.3).float().repeat_interleave(8, 1).repeat_interleave(8, 2)
    )
    mask[2, :, h // 2 :, : w // 4] = 1
    mask[2, :, h - 10 :, :] = 1
    return mask_out(image, mask), mask


def test_the_attentions_are_found() -> None:
    assert {"reference", "unfold"} <= ATTENTIONS.keys()


@every_attention
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_outputs_and_offsets_equal_the_golden_ones(path: Path, attention: ContextualAttention) -> None:
    values = golden.load(path)
    with torch.no_grad():
        completion = _golden_generator(values, path.stem, attention)(values["x"], values["mask"], return_offset=True)
    torch.testing.assert_close(completion.coarse, values["x_stage1"], atol=1e-4, rtol=0)
    torch.testing.assert_close(completion.refined, values["x_stage2"], atol=1e-4, rtol=0)
    completed = composite(values["x"], completion.prediction, values["mask"])
    torch.testing.assert_close(completed, values["x_complete"], atol=1e-4, rtol=0)
    first, second = values["attention_top1"], values["attention_top2"]
    clear = (first - second >= 1e-4 * first)[:, None].expand_as(completion.offset)
    assert clear.float().mean() > 0.5
    assert completion.offset.dtype == torch.int64
    assert torch.equal(completion.offset[clear], values["offset_abs"].long()[clear])


@every_attention
def test_every_layer_equals_the_golden_one(attention: ContextualAttention) -> None:
    values = _values("generator_c8_64x64")
    generator = _generator("generator_c8_64x64", attention)
    modules = dict(generator.named_modules())
    seen: dict[str, torch.Tensor] = {}

    def keep(scope: str) -> Any:
        return lambda module, inputs, output: seen.__setitem__(scope, output)

    names = {scope: name.removesuffix(".convolution") for scope, name in generator_scopes().items()}
    hooks = [modules[name].register_forward_hook(keep(scope)) for scope, name in names.items()]
    hooks.append(generator.refinement_network.attention.register_forward_hook(keep("contextual_attention")))
    hooks.append(
        generator.refinement_network.attention.register_forward_pre_hook(
            lambda module, inputs, named: seen.__setitem__("mask_s", named["mask"]), with_kwargs=True
        )
    )
    with torch.no_grad():
        generator(values["x"], values["mask"])
    for hook in hooks:
        hook.remove()
    expected = golden.section(values, "act/")
    assert seen.keys() == expected.keys()
    for scope, activation in expected.items():
        if scope.endswith(("/conv17", "/allconv17")):
            activation = activation.clamp(-1, 1)  # ours clips in the layer, the released code after it
        torch.testing.assert_close(
            seen[scope][:1], activation, atol=1e-4, rtol=0, msg=lambda text, s=scope: f"{s}: {text}"
        )


@every_attention
def test_the_golden_checkpoint_gives_its_outputs(attention: ContextualAttention) -> None:
    values = _values("ckpt_c8_expected")
    with torch.no_grad():
        completion = _generator("ckpt_c8_expected", attention)(values["x"], values["mask"])
    torch.testing.assert_close(completion.coarse, values["x_stage1"], atol=1e-4, rtol=0)
    torch.testing.assert_close(completion.refined, values["x_stage2"], atol=1e-4, rtol=0)


@every_attention
def test_an_8_bit_image_gives_the_golden_completion_of_the_test_script(attention: ContextualAttention) -> None:
    values = _values("server_c8_64x96")
    mask = (values["mask_u8"][:1, :1] > 127.5).float()
    masked = mask_out(values["image_u8"] / 127.5 - 1, mask)
    assert torch.equal(mask, values["mask"])
    torch.testing.assert_close(masked, values["x"], atol=1e-6, rtol=0)
    with torch.no_grad():
        completion = _generator("ckpt_c8_expected", attention)(masked, mask)
    torch.testing.assert_close(completion.coarse, values["x_stage1"], atol=1e-4, rtol=0)
    torch.testing.assert_close(completion.refined, values["x_stage2"], atol=1e-4, rtol=0)
    completed = composite(masked, completion.prediction, mask)
    torch.testing.assert_close(completed, values["complete"], atol=1e-4, rtol=0)


@every_attention
@pytest.mark.parametrize("padding", ["SAME", "SYMMETRIC"])
@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_every_image_of_a_batch_equals_its_own_batch_of_one(
    size: tuple[int, int], padding: str, attention: ContextualAttention
) -> None:
    generator = _generator("generator_c8_64x64", attention, padding)
    masked, mask = _case(*size)
    with torch.no_grad():
        together = generator(masked, mask, return_offset=True)
        alone = [generator(masked[i : i + 1], mask[i : i + 1], return_offset=True) for i in range(3)]
    for index in range(2):  # coarse, refined
        torch.testing.assert_close(together[index], torch.cat([one[index] for one in alone]), atol=1e-5, rtol=0)
    assert torch.equal(together.offset, torch.cat([one.offset for one in alone]))
    changed = (together.refined[0] - generator(masked[:1], mask[1:2]).refined[0]).abs().max()
    assert changed > 1e-3  # the mask does make a difference


def test_one_mask_serves_a_batch() -> None:
    generator = _generator("generator_c8_64x64", ContextualAttention())
    masked, mask = _case(64, 64)
    masked = mask_out(masked, mask[:1])
    with torch.no_grad():
        one, three = generator(masked, mask[:1]), generator(masked, mask[:1].expand(3, 1, 64, 64))
    torch.testing.assert_close(one.refined, three.refined, atol=1e-6, rtol=0)


def _parameter_count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def test_the_paper_sized_generator_has_the_released_number_of_parameters() -> None:
    assert _parameter_count(Generator()) == 3_601_542  # released code at width 32
    assert _parameter_count(Generator(8)) == _values("generator_c8_64x64")["meta"]["n_parameters"]


@pytest.mark.parametrize("padding", ["zeros", "mirror"])
def test_without_attention_the_result_is_that_of_an_attention_branch_of_no_weight(padding: str) -> None:
    full = Generator(4, ContextualAttention(), padding)
    baseline = Generator(4, None, padding)
    state = full.state_dict()
    merge = "refinement_network.decoder.merge.weight"
    nn.init.zeros_(state[merge][:, 16:])  # the attention branch's half of the concatenation
    own = {name: weight for name, weight in state.items() if "attend" not in name and "attention" not in name}
    baseline.load_state_dict(own | {merge: state[merge][:, :16]})
    masked, mask = _case(32, 48)
    with torch.no_grad():
        with_branch, without = full(masked, mask), baseline(masked, mask)
    torch.testing.assert_close(without.refined, with_branch.refined, atol=1e-6, rtol=0)
    assert without.offset is None


def test_the_coarse_generator_gives_the_coarse_stage_alone() -> None:
    generator = _generator("generator_c8_64x64", ContextualAttention())
    coarse = CoarseGenerator(8)
    coarse.load_state_dict({n: w for n, w in generator.state_dict().items() if n.startswith("coarse_network.")})
    masked, mask = _case(64, 64)
    with torch.no_grad():
        completion = coarse(masked, mask)
        torch.testing.assert_close(completion.coarse, generator(masked, mask).coarse, atol=0, rtol=0)
    assert completion.prediction is completion.coarse
    assert completion.refined is None
    assert completion.offset is None


@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
def test_outputs_are_clipped_to_the_images_range(residual: bool) -> None:
    generator = Generator(4, residual=residual)
    for network in (generator.coarse_network, generator.refinement_network):
        nn.init.constant_(network.decoder.image.bias, 5.0)
    masked, mask = _case(32, 48)
    completion = generator(masked, mask)
    assert completion.coarse.max() == completion.refined.max() == 1


@pytest.mark.parametrize("attention", [ContextualAttention(), None], ids=["contextual", "baseline"])
def test_residual_stages_that_add_nothing_return_the_smooth_filling(attention: ContextualAttention | None) -> None:
    masked, mask = _case(32, 48)
    generator, alone = Generator(4, attention, residual=True), CoarseGenerator(4, residual=True)
    for stage in (*generator.children(), *alone.children()):
        nn.init.zeros_(stage.decoder.image.weight)
    with torch.no_grad():
        completion = generator(masked, mask)
        images = completion.coarse, completion.refined, alone(masked, mask).coarse
    expected = fill_harmonically(masked, mask)
    for image in images:
        torch.testing.assert_close(image, expected, atol=0, rtol=0)


@pytest.mark.parametrize("stage", ["coarse_network", "refinement_network"])
def test_the_last_layer_of_a_residual_stage_starts_a_tenth_as_large(stage: str) -> None:
    torch.manual_seed(0)
    plain, residual = (getattr(Generator(32, residual=r), stage).decoder.image.weight.std() for r in (False, True))
    torch.testing.assert_close(residual, plain / 10, rtol=0.1, atol=0)  # of 432 uniform draws each


def test_residual_stages_add_what_plain_ones_make_of_the_same_input() -> None:
    plain, residual = Generator(4), Generator(4, residual=True)
    residual.load_state_dict(plain.state_dict())
    masked, mask = _case(32, 48)
    for network in (plain.coarse_network, plain.refinement_network):
        network.decoder.image.activation = None
    with torch.no_grad():
        smooth = fill_harmonically(masked, mask)
        coarse = (smooth + plain.coarse_network(smooth, mask)).clamp(-1, 1)
        start = composite(masked, coarse, mask)
        refined = (start + plain.refinement_network(start, mask)[0]).clamp(-1, 1)
        completion = residual(masked, mask)
    torch.testing.assert_close(completion.coarse, coarse)
    torch.testing.assert_close(completion.refined, refined)


def test_a_coarse_residual_generator_adds_in_the_first_stage_and_makes_images_in_the_second() -> None:
    whole, plain, mixed = Generator(4, residual=True), Generator(4), Generator(4, residual="coarse")
    mixed.coarse_network.load_state_dict(whole.coarse_network.state_dict())
    mixed.refinement_network.load_state_dict(plain.refinement_network.state_dict())
    masked, mask = _case(32, 48)
    with torch.no_grad():
        coarse = whole(masked, mask).coarse
        refined, _ = plain.refinement_network(composite(masked, coarse, mask), mask)
        completion = mixed(masked, mask)
    torch.testing.assert_close(completion.coarse, coarse, atol=0, rtol=0)
    torch.testing.assert_close(completion.refined, refined, atol=0, rtol=0)
    with pytest.raises(ValueError, match="residual must be true, false or 'coarse', got 'both'"):
        Generator(4, residual="both")


def test_what_lies_in_the_hole_does_not_reach_a_residual_generator() -> None:
    generator = Generator(4, residual=True)
    masked, mask = _case(32, 48)
    with torch.no_grad():
        expected, other = generator(masked, mask), generator(masked + 0.5 * mask, mask)
    torch.testing.assert_close(other.coarse, expected.coarse, atol=0, rtol=0)


def test_the_gradient_of_the_second_stage_reaches_the_first() -> None:
    generator = Generator(4)
    masked, mask = _case(32, 48)
    generator(masked, mask).refined.square().sum().backward()
    assert all(weight.grad is not None for weight in generator.parameters())
    assert generator.coarse_network.encoder.stem.weight.grad.abs().max() > 0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_empty_and_a_full_hole_give_finite_outputs_and_gradients(value: float) -> None:
    generator = Generator(4)
    mask = torch.full((1, 1, 32, 32), value)
    completion = generator(mask_out(torch.ones(1, 3, 32, 32), mask), mask)
    (completion.coarse.sum() + completion.refined.sum()).backward()
    assert completion.refined.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in generator.parameters())


def test_the_type_of_the_weights_is_kept() -> None:
    masked, mask = _case(32, 48)
    completion = Generator(4).double()(masked.double(), mask.bool())
    assert completion.coarse.dtype == completion.refined.dtype == torch.float64


def test_autocast_takes_images_of_its_own_type() -> None:
    masked, mask = _case(32, 48)
    network = Generator(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        completion = network(masked.bfloat16(), mask)
    torch.testing.assert_close(completion.refined.float(), network(masked, mask).refined, atol=0.05, rtol=0)


NETWORKS = {"generator": Generator(2), "coarse": CoarseGenerator(2), "refinement": RefinementNetwork(2)}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        ((2, 3, 20, 16), (2, 1, 20, 16), r"must be multiples of 8, got 20x16; pad it to 24x16 and crop the result"),
        ((2, 4, 16, 16), (2, 1, 16, 16), r"must be \(B, 3, H, W\), got \(2, 4, 16, 16\)"),
        ((3, 16, 16), (1, 1, 16, 16), r"must be \(B, 3, H, W\), got \(3, 16, 16\); add the batch dimension"),
        ((2, 3, 16, 16), (2, 3, 16, 16), r"mask must be \(B, 1, H, W\) with 1 = hole, got \(2, 3, 16, 16\)"),
        ((2, 3, 16, 16), (2, 1, 16, 24), r"mask must have the image's height and width"),
        ((4, 3, 16, 16), (2, 1, 16, 16), r"mask must have batch size 4 or 1, got 2"),
    ],
)
def test_a_wrong_shape_is_reported(
    network: nn.Module, image: tuple[int, ...], mask: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        network(torch.zeros(image), torch.zeros(mask))


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (127 * torch.ones(1, 3, 16, 16), torch.zeros(1, 1, 16, 16), r"must lie in \[-1, 1\], got values from 127"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.zeros(1, 1, 16, 16), r"floating point in \[-1, 1\]"),
        (
            torch.zeros(1, 3, 16, 16, dtype=torch.float64),
            torch.zeros(1, 1, 16, 16),
            r"masked image must have the type of the weights, torch.float32, got torch.float64; convert it with .to\(",
        ),
        (torch.zeros(1, 3, 16, 16), 255 * torch.ones(1, 1, 16, 16), r"mask must hold only 0 \(known\) and 1 \(hole\)"),
        (
            torch.zeros(1, 3, 16, 16),
            torch.full((1, 1, 16, 16), -1.0),
            r"mask must hold only 0 \(known\) and 1 \(hole\)",
        ),
    ],
)
def test_wrong_values_are_reported(network: nn.Module, image: torch.Tensor, mask: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(image, mask)


@pytest.mark.parametrize("network", [Generator, CoarseGenerator, CoarseNetwork, RefinementNetwork])
@pytest.mark.parametrize("width", [0, -2, 7])
def test_a_width_that_cannot_be_halved_is_reported(network: type[nn.Module], width: int) -> None:
    with pytest.raises(ValueError, match=rf"width must be a positive even number .* got {width}; the paper's is 32"):
        network(width)


def test_an_offset_without_attention_is_refused() -> None:
    masked, mask = torch.zeros(1, 3, 16, 16), torch.ones(1, 1, 16, 16)
    for network, what in ((Generator(2, attention=None), "attention=None"), (CoarseGenerator(2), "a coarse network")):
        with pytest.raises(ValueError, match=f"return_offset needs an attention layer, got {what}; build"):
            network(masked, mask, return_offset=True)


@pytest.mark.parametrize("network", [Generator, CoarseGenerator])
def test_an_unknown_padding_is_reported(network: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"padding must be 'zeros', 'mirror' or 'centered', got 'same'"):
        network(2, padding="same")
