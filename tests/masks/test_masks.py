"""What every sampler promises, mixed holes, and the settings that are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from gicinpaint.masks import CenterMask, FreeFormMask, MaskSampler, MixedMask, RectangleMask
from holes import rectangle, save_mask, seeded

MASK_FILES = sorted((Path(__file__).parents[2] / "conf" / "mask").glob("*.yaml"))
SAMPLERS = {
    "rectangle": RectangleMask(box=(12, 10), inset=(3, 2)),
    "rectangles": RectangleMask(box=(12, 10), inset=(3, 2), count=(1, 3)),
    "center": CenterMask(box=(12, 10)),
    "free form": FreeFormMask(box=(12, 10), brush=(2, 6)),
    "free form share": FreeFormMask(box=(12, 10), brush=(2, 6), hole_ratio=(0.1, 0.3)),
    "mixed": MixedMask([RectangleMask(box=(12, 10), inset=1), FreeFormMask(box=(12, 10), brush=(2, 6))]),
}
RANDOM = {name: sampler for name, sampler in SAMPLERS.items() if name != "center"}


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_masks_are_binary_with_a_hole_and_a_box_inside_the_image(sampler: MaskSampler) -> None:
    mask, box = sampler(40, 24, 36, generator=seeded())
    assert mask.shape == (40, 1, 24, 36)
    assert mask.dtype == torch.float32
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert mask.flatten(1).any(1).all()
    assert sampler.box == (box.height, box.width) == (12, 10)
    assert box.top.shape == box.left.shape == (40,)
    assert box.top.dtype == box.left.dtype == torch.int64
    assert box.top.min() >= 0
    assert box.left.min() >= 0
    assert box.top.max() + 12 <= 24
    assert box.left.max() + 10 <= 36


@pytest.mark.parametrize("sampler", RANDOM.values(), ids=RANDOM)
def test_the_same_seed_draws_the_same_masks_and_another_seed_others(sampler: MaskSampler) -> None:
    (mask, box), (again, box_again) = (sampler(6, 24, 36, generator=seeded(3)) for _ in range(2))
    assert torch.equal(mask, again)
    assert torch.equal(box.top, box_again.top)
    assert torch.equal(box.left, box_again.left)
    assert not torch.equal(mask, sampler(6, 24, 36, generator=seeded(4))[0])


@pytest.mark.parametrize("sampler", RANDOM.values(), ids=RANDOM)
def test_a_generator_advances_and_leaves_the_global_one_alone(sampler: MaskSampler) -> None:
    generator, state = seeded(), torch.get_rng_state()
    first, second = sampler(6, 24, 36, generator=generator)[0], sampler(6, 24, 36, generator=generator)[0]
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("sampler", RANDOM.values(), ids=RANDOM)
def test_without_a_generator_the_global_seed_decides(sampler: MaskSampler) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        first = sampler(6, 24, 36)[0]
        torch.manual_seed(5)
        assert torch.equal(sampler(6, 24, 36)[0], first)


@pytest.mark.parametrize("sampler", RANDOM.values(), ids=RANDOM)
def test_every_image_of_a_batch_has_its_own_hole(sampler: MaskSampler) -> None:
    mask = sampler(12, 24, 36, generator=seeded())[0]
    assert len({tuple(image.flatten().tolist()) for image in mask}) >= 11  # of small holes, two may agree by chance


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_a_box_as_large_as_the_image_has_one_place(sampler: MaskSampler) -> None:
    mask, box = sampler(5, 12, 10, generator=seeded())
    assert mask.flatten(1).any(1).all()
    assert box.top.tolist() == box.left.tolist() == [0] * 5


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize(("height", "width"), [(11, 36), (24, 9)])
def test_a_box_larger_than_the_image_is_refused(sampler: MaskSampler, height: int, width: int) -> None:
    message = rf"box 12x10 must fit the image {height}x{width}, needs 12x10; choose a smaller box or a larger image"
    with pytest.raises(ValueError, match=message):
        sampler(1, height, width)


@pytest.mark.parametrize("path", MASK_FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("size", [64, 128])
def test_every_mask_configuration_has_one_box_for_all_its_parts(path: Path, size: int, tmp_path: Path) -> None:
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        config = compose(f"mask/{path.stem}")
    if path.stem == "folder":
        save_mask(tmp_path / "mask.png")
        config.mask.path = str(tmp_path)
    assert config.mask.box == [128, 128]  # the released size of the local critic
    config.mask.box = [size, size]
    mask, box = instantiate(config.mask, _convert_="all")(2, 128, 192, generator=seeded())
    assert mask.shape == (2, 1, 128, 192)
    assert (box.height, box.width) == (size, size)


def test_samplers_are_drawn_as_often_as_their_weights_say() -> None:
    parts = [RectangleMask(box=(4, 4), inset=0), RectangleMask(box=4, inset=0, same_in_batch=True), CenterMask(box=4)]
    mask, box = MixedMask(parts, weights=[2, 0, 6])(2000, 40, 40, generator=seeded())
    central = (box.top == 18) & (box.left == 18)
    # 3/4 plus the rare rectangle that falls on the middle (1 of 36 * 36), standard deviation below 0.01
    assert abs(central.double().mean().item() - 0.75) < 0.05
    assert len(set(zip(box.top[~central].tolist(), box.left[~central].tolist(), strict=True))) > 250
    expected = [rectangle(40, 40, y, x, y + 4, x + 4) for y, x in zip(box.top[:50], box.left[:50], strict=True)]
    assert torch.equal(mask[:50], torch.stack(expected))  # each box belongs to its own image


def test_without_weights_samplers_are_drawn_equally_often() -> None:
    mixed = MixedMask([CenterMask(box=2), RectangleMask(box=2, inset=0), RectangleMask(box=2, inset=0, margin=20)])
    box = mixed(1500, 60, 60, generator=seeded())[1]
    central = ((box.top == 29) & (box.left == 29)).double().mean().item()
    assert abs(central - 1 / 3) < 0.05


def test_a_sampler_alone_gets_every_image() -> None:
    mixed = MixedMask([FreeFormMask(box=(4, 5)), CenterMask(box=(4, 5))], weights=(0, 0.1))
    mask, box = mixed(3, 9, 9)
    assert torch.equal(mask, rectangle(9, 9, 2, 2, 6, 7).expand(3, 1, 9, 9))
    assert (box.top.tolist(), box.left.tolist(), box.height, box.width) == ([2] * 3, [2] * 3, 4, 5)


def test_a_mix_of_mixes_has_the_box_of_its_parts() -> None:
    inner = MixedMask([CenterMask(box=(4, 5)), RectangleMask(box=(4, 5), inset=1)], box=[4, 5])
    assert MixedMask([inner, FreeFormMask(box=(4, 5))]).box == (4, 5)


REFUSED: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: RectangleMask(box=0), ValueError, r"box must be at least 1 pixels, got \(0, 0\); choose larger values"),
    (
        lambda: RectangleMask(box=(4, 4, 4)),
        ValueError,
        r"box must be one number or two \(vertical, horizontal\), got 3",
    ),
    (lambda: RectangleMask(box=[]), ValueError, r"box must be one number or two \(vertical, horizontal\), got 0"),
    (lambda: RectangleMask(box=(4, 4.5)), TypeError, r"box must be whole numbers, got 4\.5; round it"),  # type: ignore
    (lambda: RectangleMask(box=4.5), TypeError, r"box must be whole numbers, got 4\.5; round it"),  # type: ignore
    (lambda: RectangleMask(box=True), TypeError, r"box must be whole numbers, got True; round it"),
    (lambda: RectangleMask(inset=-1), ValueError, r"inset must be at least 0 pixels, got \(-1, -1\); choose"),
    (lambda: RectangleMask(margin=(0, -2)), ValueError, r"margin must be at least 0 pixels, got \(0, -2\); choose"),
    (
        lambda: RectangleMask(count=0),
        ValueError,
        r"count must be a range from 1 upwards, got \(0, 0\); give \(low, high",
    ),
    (lambda: RectangleMask(count=(3, 2)), ValueError, r"count must be a range from 1 upwards, got \(3, 2\); give"),
    (
        lambda: RectangleMask(count=(1, 2, 3)),
        ValueError,
        r"count must be one number or two \(low, high\), got 3 numbers",
    ),
    (
        lambda: RectangleMask(box=(8, 9), inset=(4, 1)),
        ValueError,
        r"inset must be less than half the box \(8, 9\), got \(4, 1\); choose a smaller inset",
    ),
    (lambda: RectangleMask(box=(9, 8), inset=4), ValueError, r"inset must be less than half the box \(9, 8\), got"),
    (lambda: CenterMask(box=(3, 0)), ValueError, r"box must be at least 1 pixels, got \(3, 0\); choose larger values"),
    (lambda: CenterMask(box="ab"), TypeError, "box must be whole numbers, got 'a'; round it"),  # type: ignore
    (lambda: FreeFormMask(box=0), ValueError, r"box must be at least 1 pixels, got \(0, 0\)"),
    (lambda: FreeFormMask(strokes=0), ValueError, r"strokes must be a range from 1 upwards, got \(0, 0\)"),
    (lambda: FreeFormMask(vertices=(5, 4)), ValueError, r"vertices must be a range from 1 upwards, got \(5, 4\)"),
    (lambda: FreeFormMask(brush=(0, 4)), ValueError, r"brush must be a range from 1 upwards, got \(0, 4\)"),
    (lambda: FreeFormMask(brush=1.5), TypeError, r"brush must be whole numbers, got 1\.5; round it"),  # type: ignore
    (
        lambda: FreeFormMask(angle=(72.0,)),
        ValueError,
        r"angle must be \(mean, most by which it differs\) in degrees, got",
    ),
    (lambda: FreeFormMask(angle=(72.0, -1.0)), ValueError, r"angle must be .* got \(72\.0, -1\.0\); give both"),
    (lambda: FreeFormMask(length=0), ValueError, r"length must be in \(0, 1\], got 0; give a fraction of the diagonal"),
    (lambda: FreeFormMask(length=1.5), ValueError, r"length must be in \(0, 1\], got 1\.5; give a fraction"),
    (
        lambda: FreeFormMask(hole_ratio=(10, 20)),
        ValueError,
        r"hole_ratio must be \(low, high\) with .* got \(10, 20\); use fractions",
    ),
    (
        lambda: FreeFormMask(hole_ratio=(0.2, 0.2)),
        ValueError,
        r"hole_ratio must be \(low, high\) with 0 <= low < high <= 1, got",
    ),
    (
        lambda: FreeFormMask(hole_ratio=(-0.1, 0.2)),
        ValueError,
        r"hole_ratio must be \(low, high\) with 0 <= low < high <= 1",
    ),
    (
        lambda: FreeFormMask(hole_ratio=(0.2,)),
        ValueError,
        r"hole_ratio must be \(low, high\) with 0 <= low < high <= 1",
    ),
    (
        lambda: FreeFormMask(box=2, hole_ratio=(0.26, 0.27))(1, 5, 5),
        ValueError,
        r"hole_ratio must leave room for a whole number of pixels, got \(0\.26, 0\.27\) of 25 pixels; widen it",
    ),
    (
        lambda: FreeFormMask(box=2, hole_ratio=(0, 0.04))(1, 5, 5),
        ValueError,
        "hole_ratio must leave room for a whole number",
    ),
    (lambda: MixedMask([]), ValueError, "masks must hold at least one sampler, got none; add one"),
    (
        lambda: MixedMask([CenterMask(4), CenterMask(5)]),
        ValueError,
        r"masks must all have the box \(4, 4\), got \[\(4, 4\), \(5, 5\)\]; give them the same box",
    ),
    (lambda: MixedMask([CenterMask(4)], box=5), ValueError, r"masks must all have the box \(5, 5\), got \[\(4, 4\)\]"),
    (lambda: MixedMask([CenterMask(4)], box=4.0), TypeError, r"box must be whole numbers, got 4\.0"),  # type: ignore
    (lambda: MixedMask([CenterMask(4)], [1, 2]), ValueError, "weights must be one per sampler, got 2 for 1; give one"),
    (
        lambda: MixedMask([CenterMask(4)], [-1]),
        ValueError,
        r"weights must be finite, at least 0 and not all 0, got \(-1,\)",
    ),
    (lambda: MixedMask([CenterMask(4)], [0]), ValueError, r"weights must be finite, .* got \(0,\); e\.g\. use shares"),
    (lambda: MixedMask([CenterMask(4)], [math.inf]), ValueError, r"weights must be finite, .* got \(inf,\)"),
    (lambda: MixedMask([CenterMask(4)], [math.nan]), ValueError, r"weights must be finite, .* got \(nan,\)"),
]


@pytest.mark.parametrize(("build", "error", "message"), REFUSED)
def test_an_impossible_setting_is_refused(build: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize("name", ["rectangle", "center", "free form", "free form share"])
def test_masks_and_boxes_go_to_the_device_that_is_asked_for(name: str) -> None:
    mask, box = SAMPLERS[name](2, 24, 20, generator=seeded(), device="meta")  # any device but the generator's
    assert {mask.device.type, box.top.device.type, box.left.device.type} == {"meta"}
    assert (mask.shape, mask.dtype) == ((2, 1, 24, 20), torch.float32)
