"""What is computed around holes is what a pass over the whole image has there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gicinpaint import Generator, Inpainter
from gicinpaint.attention import ContextualAttention
from gicinpaint.inference.exact import ExactPass, boxes_of, complete, is_exact, operations
from gicinpaint.models.gated import GatedGenerator
from gicinpaint.models.generator import CoarseGenerator
from gicinpaint.models.layers import Convolution
from gicinpaint.models.windows import Rectangle
from gicinpaint.weights.pretrained import load_generator

HOLES = {
    "middle": [(160, 188, 20, 16)],
    "several": [(40, 40, 30, 50), (290, 320, 30, 20), (180, 200, 8, 8)],
    "edges": [(0, 100, 40, 30), (150, 0, 40, 20), (312, 280, 24, 50), (200, 370, 40, 22)],
    "corners": [(0, 0, 30, 40), (0, 352, 50, 40), (316, 0, 20, 40), (306, 372, 30, 20)],
    "one pixel": [(211, 207, 1, 1)],
    "half of it": [(0, 0, 336, 190)],
    "scratch": [(20 + 5 * i, 20 + 6 * i, 8, 8) for i in range(58)],
}
GENERATORS: dict[str, Any] = {
    "contextual": lambda: Generator(2),
    "rate 1": lambda: Generator(2, ContextualAttention(rate=1, propagation_size=1)),
    "residual": lambda: Generator(2, residual=True),
    "mirror": lambda: Generator(2, padding="mirror"),
    "long propagation": lambda: Generator(2, ContextualAttention(patch_size=5, propagation_size=5)),
    "no propagation": lambda: Generator(2, ContextualAttention(propagate=False)),
    "no attention": lambda: Generator(2, None),
    "coarse": lambda: CoarseGenerator(2),
    "gated": lambda: GatedGenerator(4),
    "centered": lambda: Generator(2, padding="centered"),
    "guided": lambda: GatedGenerator(4, guided=True, padding="mirror", residual=True),
}


def example(holes: list[tuple[int, int, int, int]], height: int = 336, width: int = 392) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(len(holes))
    coarse = torch.rand(1, 3, height // 32 + 1, width // 32 + 1, generator=rng)
    image = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    image = (2 * image - 1 + 0.2 * torch.randn(image.shape, generator=rng)).clamp(-1, 1)
    mask = torch.zeros(1, 1, height, width)
    for top, left, rows, columns in holes:
        mask[..., top : top + rows, left : left + columns] = 1
    return (image * (1 - mask)).double(), mask


def network(name: str) -> torch.nn.Module:
    torch.manual_seed(3)
    generator = GENERATORS[name]().eval().double()
    for layer in generator.modules():  # as random weights make a nearly constant image, large ones and biases
        if isinstance(layer, Convolution):
            layer.weight.data *= 1.5
            torch.nn.init.normal_(layer.bias, std=0.1)
    return generator


@torch.no_grad()
def check(generator: torch.nn.Module, masked: torch.Tensor, mask: torch.Tensor) -> None:
    whole = generator(masked, mask)
    boxes = boxes_of(mask[0, 0] > 0)
    exact = ExactPass(generator, masked, mask, boxes)
    covered = torch.zeros_like(mask)
    for box in boxes:
        found, place = exact.fill(box), (..., *box.slices)
        covered[place] = 1
        hole = mask[place]
        torch.testing.assert_close(found.coarse * hole, whole.coarse[place] * hole, rtol=0, atol=1e-9)
        torch.testing.assert_close(found.prediction, whole.prediction[place], rtol=0, atol=1e-9)
    assert ((covered == 1) | (mask == 0)).all()
    assert whole.prediction[mask.expand_as(masked) > 0].std() > 0.01 or mask.sum() < 10  # no constant


@pytest.mark.parametrize("holes", HOLES)
@pytest.mark.parametrize("name", ["contextual"])
def test_it_equals_the_whole_pass_wherever_the_holes_lie(name: str, holes: str) -> None:
    check(network(name), *example(HOLES[holes]))


@pytest.mark.parametrize("name", GENERATORS)
def test_it_equals_the_whole_pass_of_every_generator(name: str) -> None:
    check(network(name), *example(HOLES["edges"] + HOLES["middle"]))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 344), (304, 24), (72, 40)])
def test_it_equals_the_whole_pass_of_small_and_narrow_images(height: int, width: int) -> None:
    for name in ("contextual", "long propagation", "mirror"):
        check(network(name), *example([(0, 3, 5, 4), (height - 4, width - 3, 4, 3)], height, width))


def test_offsets_around_the_hole_are_those_of_the_whole_pass() -> None:
    generator, (masked, mask) = network("contextual"), example(HOLES["edges"])
    with torch.no_grad():
        whole = generator(masked, mask, return_offset=True)
        exact = ExactPass(generator, masked, mask, boxes_of(mask[0, 0] > 0), return_offset=True)
        for box in boxes_of(mask[0, 0] > 0):
            exact.fill(box)
    cells = torch.nn.functional.max_pool2d(mask, 8)[0, 0] > 0
    assert exact.offset is not None
    assert torch.equal(exact.offset[:, :, cells], whole.offset[:, :, cells])
    assert exact.offset[0, :, 20, 20].tolist() == [20, 20]  # far from all holes, so nothing was computed there


@pytest.mark.parametrize("model", ["contextual_w16", "photos_256", "textures_64_contextual"])
def test_an_inpainter_fills_odd_sizes_as_a_shipped_model_does_as_a_whole(model: str) -> None:
    """In float32; the holes at the borders go on in the mirrored padding."""
    generator = load_generator(model)
    masked, mask = example([(303, 100, 8, 30), (120, 331, 40, 10), (30, 40, 20, 20)], 311, 341)
    image = masked.float()
    whole = complete(generator, image, mask).prediction
    filled = Inpainter(generator, "cpu", progress=False).fill(image[0], mask[0])
    assert filled.method == "around the holes only"
    hole = mask[0].expand(3, -1, -1) > 0
    torch.testing.assert_close(filled.image[hole], whole[0][hole].clamp(-1, 1), rtol=0, atol=1e-4)
    for blend in ("feather", "poisson"):
        blended = Inpainter(generator, "cpu", progress=False)(image[0], mask[0], blend=blend)
        assert torch.equal(blended[~hole], filled.image[~hole])
        assert blended[hole].isfinite().all()


def test_work_grows_with_the_hole_and_slowly_with_the_image() -> None:
    generator, hole = Generator(32), [Rectangle(200, 200, 328, 328)]
    whole = [operations(generator, (size, size), [Rectangle(0, 0, size, size)]) for size in (512, 1024, 2048)]
    around = [operations(generator, (size, size), hole) for size in (512, 1024, 2048)]
    assert all(
        part < share * all_of_it for part, all_of_it, share in zip(around, whole, (0.4, 0.15, 0.05), strict=True)
    )
    assert around[2] < 10 * around[0]  # for 16 times the pixels
    assert operations(generator, (1024, 1024), [Rectangle(200, 200, 456, 456)]) > around[1]


def test_scattered_holes_are_boxes_that_hold_them_and_large_ones_are_split() -> None:
    hole = torch.zeros(2500, 3000, dtype=torch.bool)
    hole[100:110, 100:110] = hole[100:110, 190:200] = True  # joined: their surroundings overlap
    hole[600:2400, 1500:1700] = True
    boxes = boxes_of(hole)
    expected = (100, 100, 110, 200), (600, 1500, 1500, 1700), (1500, 1500, 2400, 1700)
    assert boxes == [Rectangle(*box) for box in expected]


def test_a_diagonal_scratch_is_several_boxes_of_less_work() -> None:
    hole = torch.zeros(1600, 1600, dtype=torch.bool)
    for i in range(1500):
        hole[40 + i : 48 + i, 40 + i : 48 + i] = True
    boxes = boxes_of(hole)
    owners = torch.zeros(1600, 1600, dtype=torch.int64)
    for box in boxes:
        owners[box.slices] += 1
    assert (owners[hole] > 0).all()
    one = [Rectangle(40, 40, 1547, 1547)]
    generator = Generator(8, None)
    assert operations(generator, (1600, 1600), boxes) < 0.45 * operations(generator, (1600, 1600), one)


def test_a_network_that_changes_its_parts_is_passed_over_the_whole() -> None:
    class Other(Generator):
        """Any network of a user's own."""

    assert is_exact(Generator(2))
    assert not is_exact(Other(2))
    assert not is_exact(torch.nn.Identity())
