"""Images beyond the memory: exact while they fit, then crops around holes, then coarse to fine."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gicinpaint import GatedGenerator, Generator, Inpainter
from gicinpaint.inference.engine import fill_reduced
from gicinpaint.inference.regions import Method, divide, group, most_pixels, tiles
from gicinpaint.models.generator import CoarseGenerator
from gicinpaint.models.windows import Rectangle
from pictures_of_every_kind import draw

LEAST = 0.28  # GB: bounds a pass to some 80,000 pixels, so that small images count as large ones


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(2)


def test_what_fits_is_one_region_and_beyond_it_the_method_says_so(generator: Generator) -> None:
    pixels = most_pixels(LEAST)
    image, mask = draw(("u1", 3), 600, 700, 1), np.zeros((600, 700), bool)
    mask[30:60, 40:70] = mask[500:540, 600:630] = True
    small, large = Inpainter(generator, "cpu", progress=False), Inpainter(generator, "cpu", LEAST, progress=False)
    assert 5 * pixels < 600 * 700
    assert small.fill(image, mask).method == "around the holes only"
    assert small.fill(image[:100, :100], mask[:100, :100]).method == "whole image"  # all of it is around the hole
    half = large.fill(image[:300], mask[:300])
    assert half.method == "around the holes only"
    np.testing.assert_array_equal(half.image, small(image[:300], mask[:300]))
    filled = large.fill(image, mask)
    assert filled.method == "in crops around the holes"
    assert filled.offset is None
    np.testing.assert_array_equal(filled.image[~mask], image[~mask])
    mask[20:580, 20:680] = True
    filled = large.fill(image, mask)
    assert filled.method == "at reduced size, then refined"
    np.testing.assert_array_equal(filled.image[~mask], image[~mask])
    np.testing.assert_array_equal(filled.image, large(image, mask))


def test_a_crop_is_filled_as_if_it_were_the_image(generator: Generator) -> None:
    image, mask = draw(("u1", 3), 700, 750, 2), np.zeros((700, 750), bool)
    mask[180:210, 240:280] = True
    filled = Inpainter(generator, "cpu", 0.3, progress=False)(image, mask)  # room for 286x296 pixels, not for all
    top, left = 180 - 128, 240 - 128  # the least context on each side
    part = (slice(top, 210 + 128), slice(left, 280 + 128))
    alone = Inpainter(generator, "cpu", progress=False)(image[part], mask[part])
    np.testing.assert_array_equal(filled[part], alone)


@given(seed=st.integers(0, 2**16), height=st.integers(40, 700), width=st.integers(40, 700), count=st.integers(1, 40))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_hole_pixel_belongs_to_one_region_that_sees_it(seed: int, height: int, width: int, count: int) -> None:
    random = np.random.default_rng(seed)
    hole = torch.zeros(height, width, dtype=torch.bool)
    for _ in range(count):
        top, left = random.integers(height), random.integers(width)
        hole[top : top + random.integers(1, height // 4 + 2), left : left + random.integers(1, width // 4 + 2)] = True
    pixels = most_pixels(LEAST)
    method, regions = divide(hole, pixels)
    owners = torch.zeros(height, width, dtype=torch.int64)
    for box, own, reduced in regions:
        owners[own.slices] += 1
        assert box.top <= own.top < own.bottom <= box.bottom <= height
        assert box.left <= own.left < own.right <= box.right <= width
        assert reduced or -(-box.height // 8) * 8 * -(-box.width // 8) * 8 <= pixels
    assert (owners[hole] == 1).all()
    assert (method is Method.WHOLE) == (-(-height // 8) * 8 * -(-width // 8) * 8 <= pixels)


def test_near_holes_are_filled_together_and_far_ones_apart() -> None:
    hole = torch.zeros(600, 600, dtype=torch.bool)
    hole[100:110, 100:110] = hole[100:110, 125:140] = hole[500:510, 500:520] = True
    assert sorted(group(hole, 10**5)) == [Rectangle(100, 100, 110, 140), Rectangle(500, 500, 510, 520)]


def test_holes_beside_each_other_are_apart_and_holes_around_another_are_one() -> None:
    beside = torch.zeros(600, 600, dtype=torch.bool)
    beside[:200, :200] = beside[100:300, 400:] = True  # some rows in common, no columns
    assert sorted(group(beside, 10**5)) == [Rectangle(0, 0, 200, 200), Rectangle(100, 400, 300, 600)]
    around = torch.zeros(600, 600, dtype=torch.bool)
    around[:400, :10] = around[:10, :400] = around[200:220, 200:220] = True  # a bracket and a dot within its rectangle
    assert group(around, 10**5) == [Rectangle(0, 0, 400, 400)]


@pytest.mark.parametrize(("height", "width"), [(100, 100), (256, 256), (257, 300), (1000, 640)])
def test_tiles_cover_and_overlap(height: int, width: int) -> None:
    found = tiles(Rectangle(0, 0, height, width), 256, 64)
    covered = torch.zeros(height, width)
    for box in found:
        assert box.height <= 256
        assert box.width <= 256
        covered[box.slices] += 1
    assert covered.min() >= 1
    rows = sorted({(box.top, box.bottom) for box in found})
    assert all(one[1] - two[0] >= 64 for one, two in pairwise(rows))
    assert all(one[1] - two[0] <= 64 + 17 for one, two in pairwise(rows))  # what rounding two sides to 8 may add


class Counting(torch.nn.Module):
    """A second stage that answers -1 for the reduced image, 0 for the first tile and 1 for the second."""

    calls = -2

    def forward(self, image: torch.Tensor, *_: object) -> tuple[torch.Tensor, None]:
        self.calls += 1
        return torch.full_like(image, self.calls), None


def test_neighbouring_tiles_are_mixed_along_a_straight_ramp() -> None:
    network = Generator(2)
    network.refinement_network = Counting()
    image, hole = torch.zeros(1, 3, 64, 144), torch.zeros(1, 1, 64, 144)
    hole[..., 8:56, 8:136] = 1
    refined = fill_reduced(network, image, hole, pixels=104 * 104, progress=False)[1]
    # two tiles, of columns 0..103 with the value 0 and 40..143 with 1; both weigh 1/64, 2/64, ... from their inner side
    overlap = torch.arange(1, 65) / 65
    expected = torch.cat([torch.zeros(40), overlap, torch.ones(40)]).expand(1, 3, 64, 144)
    torch.testing.assert_close(refined, expected)


def test_every_generator_with_a_second_stage_refines_at_full_size() -> None:
    """Of the second paper: its second stage sees no mask, and its result differs from the enlarged filling."""
    torch.manual_seed(0)
    network = GatedGenerator(8)
    for weight in network.parameters():
        weight.data *= 3
    image, hole = torch.rand(1, 3, 160, 200) * 2 - 1, torch.zeros(1, 1, 160, 200)
    hole[..., 8:150, 8:190] = 1
    enlarged, refined = fill_reduced(network, image, hole, 96 * 96, False)
    assert (refined - enlarged)[hole.expand_as(image) > 0].abs().mean() > 0.01


def test_the_reduced_filling_is_enlarged_where_there_is_no_second_stage() -> None:
    image, mask = np.full((400, 500, 3), 90, np.uint8), np.zeros((400, 500), bool)
    mask[20:380, 20:480] = True
    network = CoarseGenerator(2)
    for parameter in network.coarse_network.decoder.image.parameters():
        torch.nn.init.zeros_(parameter)  # always answers with the middle grey
    filled = Inpainter(network, "cpu", LEAST, progress=False)(image, mask)
    inside = filled[40:360, 40:460]  # away from the edge, which the resampling mixes
    assert set(np.unique(inside)) <= {127, 128}


@pytest.mark.slow
def test_twelve_megapixels_with_three_holes_stay_below_three_gigabytes() -> None:
    program = (
        "import numpy as np, resource\n"
        "from gicinpaint import GatedGenerator, Generator, Inpainter\n"
        "image = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), dtype=np.uint8)\n"
        "mask = np.zeros((3000, 4000), bool)\n"
        "mask[300:500, 500:800] = mask[1500:1900, 3000:3300] = mask[2700:2900, 100:500] = True\n"
        "filled = Inpainter(Generator(32), 'cpu').fill(image, mask)\n"
        "assert np.array_equal(filled.image[~mask], image[~mask])\n"
        "print(filled.method, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, sep=';')\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=580)
    method, gigabytes = result.stdout.strip().split(";")
    assert method == "around the holes only"
    assert float(gigabytes) < 3
    assert "filling around the holes only: 100%" in result.stderr  # the progress bar
