"""Whatever image comes, an image of its kind goes, with every known pixel as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import golden
from gicinpaint import Generator, Inpainter
from gicinpaint.models.generator import CoarseGenerator, Completion
from gicinpaint.weights.pretrained import load_generator
from pictures_of_every_kind import KINDS, draw, pixels, same_kind

SIZES = st.integers(1, 300)


@pytest.fixture(scope="module")
def inpainter() -> Inpainter:
    torch.manual_seed(0)
    return Inpainter(Generator(width=2), device="cpu")


def random_mask(height: int, width: int, share: float, seed: int) -> np.ndarray:
    """Blocks and single pixels, with at least one hole pixel and one known pixel, if they can have both."""
    random = np.random.default_rng(seed)
    mask = random.random((height, width)) < share / 2
    for _ in range(3):
        top, left = random.integers(height), random.integers(width)
        mask[top : top + random.integers(1, 2 + height // 3), left : left + random.integers(1, 2 + width // 3)] = True
    mask.flat[0], mask.flat[-1] = True, False
    return mask


@given(kind=st.sampled_from(KINDS), height=SIZES, width=SIZES, share=st.floats(0, 0.9), seed=st.integers(0, 2**16))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_kind_size_and_known_pixels_stay_and_results_repeat(
    inpainter: Inpainter, kind: Any, height: int, width: int, share: float, seed: int
) -> None:
    if height * width == 1:
        return  # one pixel is all hole or no hole: its own tests
    image, mask = draw(kind, height, width, seed), random_mask(height, width, share, seed)
    before = pixels(image).copy()
    result = inpainter(image, mask)
    assert same_kind(result, image)
    np.testing.assert_array_equal(pixels(result)[~mask], before[~mask])
    np.testing.assert_array_equal(pixels(image), before)  # the input is not written to
    np.testing.assert_array_equal(pixels(inpainter(image, mask)), pixels(result))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("blend", ["none", "feather", "poisson"])
def test_every_kind_keeps_its_known_pixels_in_every_blend(inpainter: Inpainter, kind: Any, blend: Any) -> None:
    image, mask = draw(kind, 21, 30, 1), np.zeros((21, 30), bool)
    mask[4:15, 7:20] = True
    result = inpainter(image, mask, blend=blend)
    assert same_kind(result, image)
    np.testing.assert_array_equal(pixels(result)[~mask], pixels(image)[~mask])
    assert not np.array_equal(pixels(result)[mask], pixels(image)[mask])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_lies_in_the_hole_does_not_matter(inpainter: Inpainter, kind: Any) -> None:
    if kind in ("P", "I", "F"):  # a palette, and the range of 32-bit values, belong to the whole image
        return
    one, other = draw(kind, 20, 20, 1), draw(kind, 20, 20, 2)
    mask = np.zeros((20, 20), bool)
    mask[5:12, 5:12] = True
    if isinstance(one, Image.Image):
        mixed = one.copy()
        mixed.paste(other, mask=Image.fromarray(mask))
    else:
        mixed = one.copy() if isinstance(one, np.ndarray) else one.clone()
        inside = mask if isinstance(one, np.ndarray) else (slice(None), torch.from_numpy(mask))
        mixed[inside] = other[inside]
    np.testing.assert_array_equal(pixels(inpainter(mixed, mask)), pixels(inpainter(one, mask)))


def test_the_released_8_bit_result_is_met_within_a_level_and_known_pixels_are_not_darkened(released: Path) -> None:
    # server_c8_64x96: the authors' test script in TensorFlow, with the weights of the golden checkpoint
    values = golden.load("server_c8_64x96.npz")
    image, published = values["image_u8"][0], values["result_u8"][0]
    hole = values["mask_u8"][0, 0] > 127.5
    result = Inpainter(load_generator(released, raw=True), device="cpu")(image, values["mask_u8"][0, 0])
    assert (result.int() - published.int())[:, hole].abs().max() <= 1
    assert torch.equal(result[:, ~hole], image[:, ~hole])
    assert (published != image)[:, ~hole].float().mean() > 0.25  # what ours must not do
    rgb = Inpainter.from_checkpoint(released, device="cpu")(image.flip(0), hole)  # the authors read BGR
    assert (rgb.flip(0).int() - published.int())[:, hole].abs().max() <= 1


def test_kinds_of_one_picture_are_filled_alike(released: Path) -> None:
    inpainter = Inpainter.from_checkpoint(released, device="cpu")
    array = draw(("u1", 3), 40, 56, 3)
    mask = random_mask(40, 56, 0.1, 3)
    expected = inpainter(array, mask).astype(int)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    assert np.array_equal(np.array(inpainter(Image.fromarray(array), Image.fromarray(mask))), expected)
    assert np.array_equal(inpainter(tensor, torch.from_numpy(mask)).permute(1, 2, 0).numpy(), expected)
    floats = inpainter((tensor / 127.5 - 1).double(), mask)
    assert np.abs((floats.permute(1, 2, 0).numpy() + 1) * 127.5 - expected).max() < 0.51  # rounding to a level
    sixteen = inpainter(array.astype(np.uint16) * 257, mask)
    assert np.abs(sixteen / 257 - expected).max() < 0.51
    assert np.abs(inpainter(array / 255, mask) * 255 - expected).max() < 0.51


def test_grey_is_the_luma_of_the_same_grey_in_colour(inpainter: Inpainter) -> None:
    grey, mask = draw("L", 24, 32, 4), random_mask(24, 32, 0.1, 4)
    colour = np.array(inpainter(grey.convert("RGB"), mask)).astype(float)
    expected = colour @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    expected[~mask] = np.array(grey)[~mask]
    np.testing.assert_allclose(np.array(inpainter(grey, mask)), expected, atol=1.01)


def test_alpha_becomes_opaque_in_the_hole_only(inpainter: Inpainter) -> None:
    image, mask = draw("RGBA", 24, 32, 5), random_mask(24, 32, 0.1, 5)
    alpha = np.array(inpainter(image, mask))[..., 3]
    assert (alpha[mask] == 255).all()
    assert np.array_equal(alpha[~mask], np.array(image)[..., 3][~mask])


@pytest.mark.parametrize("transparency", [3, bytes([0] * 4 + [255])])
def test_palette_images_are_filled_with_the_nearest_opaque_colour(inpainter: Inpainter, transparency: Any) -> None:
    image, mask = draw("P", 20, 28, 1), random_mask(20, 28, 0.1, 1)
    image.info["transparency"] = transparency
    colours = np.array(inpainter(image.convert("RGB"), mask)).astype(int)
    palette = np.reshape(image.getpalette(), (-1, 3))
    result = np.array(inpainter(image, mask))
    invisible = [3] if transparency == 3 else [0, 1, 2, 3]
    usable = [index for index in range(len(palette)) if index not in invisible]
    for y, x in zip(*np.nonzero(mask), strict=True):  # by trying every colour
        distance = ((palette - colours[y, x]) ** 2).sum(1)
        assert result[y, x] in usable
        assert distance[result[y, x]] == distance[usable].min()


def test_a_padded_image_is_filled_as_its_mirrored_continuation(inpainter: Inpainter) -> None:
    image, mask = draw(("u1", 3), 13, 18, 6), random_mask(13, 18, 0.1, 6)
    continued = np.pad(image, ((0, 3), (0, 6), (0, 0)), mode="symmetric")  # NumPy's word for the repeated edge
    whole = inpainter(continued, np.pad(mask, ((0, 3), (0, 6)), mode="symmetric"))
    assert np.array_equal(inpainter(image, mask), whole[:13, :18])


def test_holes_by_colour_equal_holes_by_mask(inpainter: Inpainter) -> None:
    image, mask = np.array(draw("RGB", 24, 32, 7).point(lambda v: v // 2)), random_mask(24, 32, 0.1, 7)
    image[mask] = (255, 0, 255)
    expected = inpainter(image, mask)
    for colour in ("#ff00ff", "magenta", (255, 0, 255), [255, 0, 255]):
        assert np.array_equal(inpainter(image, hole_colour=colour), expected)
    image[mask] -= np.array([3, 0, 3], np.uint8)
    assert np.array_equal(inpainter(image, hole_colour="magenta", hole_tolerance=3), expected)
    with pytest.warns(UserWarning, match="no hole"):
        inpainter(image, hole_colour="magenta", hole_tolerance=2)
    grey = np.array(draw(("u2", None), 24, 32, 8)) // 2
    grey[mask] = 65535
    assert np.array_equal(inpainter(grey, hole_colour=255), inpainter(grey, mask))


@pytest.mark.parametrize(
    "form",
    [
        lambda m: m.astype(np.uint8),
        lambda m: m.astype(np.uint8) * 255,
        lambda m: m.astype(np.float32),
        lambda m: m[..., None],
        lambda m: np.stack([m * 255] * 3, -1).astype(np.uint8),
        lambda m: m[None, None],
        lambda m: m.astype(np.uint8) * 100,
        lambda m: torch.from_numpy(m)[None],
        lambda m: torch.from_numpy(m)[None, None].float(),
        lambda m: Image.fromarray(m),
        lambda m: Image.fromarray(m.astype(np.uint8) * 200 + 20),
        lambda m: Image.fromarray(m.astype(np.uint8) * 255).convert("RGB"),
        lambda m: Image.fromarray(np.stack([np.full_like(m, 255, np.uint8)] * 3 + [m * np.uint8(255)], -1)),
        lambda m: Image.fromarray(m.astype(np.uint16) * 65535),
    ],
)
def test_masks_of_every_form_mean_the_same(inpainter: Inpainter, form: Callable[[np.ndarray], Any]) -> None:
    image, mask = draw("RGB", 16, 24, 9), random_mask(16, 24, 0.2, 9)
    assert np.array_equal(np.array(inpainter(image, form(mask))), np.array(inpainter(image, mask)))


def test_no_hole_gives_the_image_back_and_says_so(inpainter: Inpainter) -> None:
    image = draw("RGB", 1, 1, 0)
    with pytest.warns(UserWarning, match="no hole: the image comes back as it is"):
        filled = inpainter.fill(image, np.zeros((1, 1), bool))
    assert filled.method == "nothing to fill"
    assert filled.image == image


def test_all_hole_is_refused(inpainter: Inpainter) -> None:
    with pytest.raises(ValueError, match="must leave known pixels, got a hole everywhere; is it inverted"):
        inpainter(draw("RGB", 1, 1, 0), np.ones((1, 1), bool))


def test_lists_and_batches_equal_single_calls(inpainter: Inpainter) -> None:
    images = [draw("RGB", 20, 31, 1), draw(("f4", None), 9, 70, 2), draw((torch.uint8, 3), 33, 8, 3)]
    masks = [random_mask(*size, 0.2, 1) for size in ((20, 31), (9, 70), (33, 8))]
    for result, image, mask in zip(inpainter(images, masks), images, masks, strict=True):
        assert same_kind(result, image)
        np.testing.assert_array_equal(pixels(result), pixels(inpainter(image, mask)))
    batch = np.stack([draw(("u1", 3), 20, 31, seed) for seed in (4, 5)])
    both = np.stack([masks[0], random_mask(20, 31, 0.1, 6)])
    for several in (both, masks[0], both[:, None]):
        result = inpainter(batch, several)
        for i in range(2):
            single = several if several is masks[0] else both[i]
            np.testing.assert_array_equal(result[i], inpainter(batch[i], single))
    tensors = inpainter(torch.from_numpy(batch).permute(0, 3, 1, 2), torch.from_numpy(both)[:, None])
    np.testing.assert_array_equal(tensors.permute(0, 2, 3, 1).numpy(), inpainter(batch, both))


def test_images_that_share_a_pass_are_filled_as_alone(inpainter: Inpainter) -> None:
    shared = Inpainter(inpainter.generator, device="cpu", batch_size=3)
    sizes = [(20, 31), (24, 32), (17, 25), (40, 8), (22, 30)]  # four of one padded size: a batch of three and one
    images = [draw(("f4", 3), *size, seed) for seed, size in enumerate(sizes)]
    masks = [random_mask(*size, 0.2, seed) for seed, size in enumerate(sizes)]
    for result, image, mask in zip(shared(images, masks), images, masks, strict=True):
        np.testing.assert_allclose(result, inpainter(image, mask), atol=1e-5)  # sums in another order


def test_fill_tells_coarse_guess_offset_and_method(released: Path) -> None:
    values = golden.load("ckpt_c8_expected.npz")
    image, mask = values["x"][0], values["mask"][0]
    generator = load_generator(released, raw=True)
    filled = Inpainter(generator, device="cpu").fill(image, mask)
    hole = mask[0].bool()
    torch.testing.assert_close(filled.image[:, hole], values["x_stage2"][0][:, hole], atol=1e-4, rtol=0)
    torch.testing.assert_close(filled.coarse[:, hole], values["x_stage1"][0][:, hole], atol=1e-4, rtol=0)
    assert filled.method == "whole image"
    _, offset = generator.refinement_network(
        image[None] * (1 - mask) + values["x_stage1"][:1] * mask, mask[None], return_offset=True
    )
    assert (filled.offset == offset[0]).float().mean() > 0.95  # the rest are near ties of equal patches


@pytest.mark.parametrize("generator", [Generator(2, attention=None), CoarseGenerator(2)])
def test_networks_without_attention_have_no_offset(generator: torch.nn.Module) -> None:
    filled = Inpainter(generator, device="cpu").fill(draw("RGB", 20, 20, 1), random_mask(20, 20, 0.1, 1))
    assert filled.offset is None


@pytest.mark.parametrize(
    ("image", "mask", "options", "error", "message"),
    [
        ("a.png", np.ones((2, 2), bool), {}, TypeError, "must be a Pillow image, a NumPy array or a tensor, got str"),
        (np.zeros((2, 2, 5), np.uint8), np.eye(2), {}, ValueError, r"\(H, W, C\) with C 1 .* got \(2, 2, 5\)"),
        (np.zeros((2, 2), np.int64), np.eye(2), {}, TypeError, "must be uint8, uint16 or floating point .* got int64"),
        (np.zeros((0, 2), np.uint8), np.eye(2), {}, ValueError, r"got \(0, 2\)"),
        (np.full((2, 2), 200.0), np.eye(2), {}, ValueError, r"finite and in \[0, 1\], got values from 200 to 200"),
        (np.full((2, 2), np.nan), np.eye(2), {}, ValueError, r"finite and in \[0, 1\]"),
        (torch.full((3, 2, 2), 2.0), np.eye(2), {}, ValueError, r"finite and in \[-1, 1\], got values from 2 to 2"),
        (
            torch.zeros(2, 2, 3, dtype=torch.int32),
            np.eye(2),
            {},
            TypeError,
            "uint8 or floating point .* got torch.int32",
        ),
        (torch.zeros(9, 2, 3), np.eye(2), {}, ValueError, r"\(C, H, W\) with C 1 .* put channels first"),
        (np.zeros((2, 2), np.uint8), np.ones((2, 3)), {}, ValueError, "height and width 2x2, got 2x3; resize it"),
        (np.zeros((2, 2), np.uint8), [1], {}, TypeError, "mask must be a Pillow image"),
        (
            np.zeros((2, 2), np.uint8),
            np.full((2, 2), -1.0),
            {},
            ValueError,
            "0 .known. and 1 or 255 .hole., got values",
        ),
        (
            np.zeros((2, 2), np.uint8),
            torch.zeros(3, 2, 2),
            {},
            ValueError,
            r"one value per pixel, got shape \(3, 2, 2\)",
        ),
        (np.zeros((2, 2), np.uint8), None, {}, ValueError, "neither mask nor hole_colour"),
        (np.zeros((2, 2), np.uint8), np.eye(2), {"blend": "magic"}, ValueError, "none, feather, poisson, got 'magic'"),
        (np.zeros((2, 2), np.uint8), None, {"hole_colour": "blurple"}, ValueError, "must be a colour, got 'blurple'"),
        (np.zeros((2, 2), np.uint8), None, {"hole_colour": (1, 2)}, ValueError, r"must be a colour, got \(1, 2\)"),
        (np.zeros((2, 2), np.uint8), None, {"hole_colour": "red"}, ValueError, "of a grey image must be grey"),
        (np.zeros((2, 2), np.uint8), None, {"hole_colour": 0, "hole_tolerance": -1}, ValueError, "in 0..255, got -1"),
        ([np.zeros((2, 2), np.uint8)], [None, None], {}, ValueError, "as many as images, 1, got 2"),
        (Image.new("LAB", (2, 2)), np.eye(2), {}, TypeError, "got LAB; save it as RGB"),
        (Image.new("RGB", (0, 2)), np.eye(2), {}, ValueError, "at least one pixel, got 0x2"),
    ],
)
def test_bad_input_is_refused_with_what_was_expected_and_what_came(
    inpainter: Inpainter, image: Any, mask: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        inpainter(image, mask, **options)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"device must be one of this machine, got 'abacus'"):
        Inpainter(Generator(2), device="abacus")
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Inpainter(Generator(2), device="cpu", batch_size=0)
    with pytest.raises(ValueError, match=r"max_memory must be at least 0\.\d+ GB, got 0.01"):
        Inpainter(Generator(2), device="cpu", max_memory=0.01)


class Answering(torch.nn.Module):
    """Answers with one value everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, masked: torch.Tensor, mask: torch.Tensor, return_offset: bool = False) -> Completion:
        return Completion(masked, torch.full_like(masked, self.value), None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_no_filling_and_no_weight(value: float) -> None:
    image, mask = draw("RGB", 16, 16, 1), random_mask(16, 16, 0.2, 1)
    with pytest.raises(ArithmeticError, match="the generator filled the hole with NaN or infinity"):
        Inpainter(Answering(value), device="cpu")(image, mask)
    assert Inpainter(Answering(0.5), device="cpu")(image, mask).size == (16, 16)
    generator = Generator(2)
    with torch.no_grad():
        next(generator.refinement_network.parameters())[0] = value
    with pytest.raises(ValueError, match="must have finite weights, got NaN or infinity in refinement_network"):
        Inpainter(generator, device="cpu")
