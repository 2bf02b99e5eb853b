"""Holes and windows against plain loops: every expected value is counted pixel by pixel or worked out by hand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from gicinpaint.masks import CenterMask, FreeFormMask, MaskSampler, MixedMask, RectangleMask
from gicinpaint.masks.rectangle import fill_rectangles
from gicinpaint.masks.strokes import Piece, _paint
from gicinpaint.masks.window import hole_window

MASK_FILES = sorted((Path(__file__).parent.parent / "conf" / "mask").glob("*.yaml"))
SAMPLERS = {
    "rectangle": RectangleMask(box=(12, 10), inset=(3, 2)),
    "rectangles": RectangleMask(box=(12, 10), inset=(3, 2), count=(1, 3)),
    "center": CenterMask(box=(12, 10)),
    "free form": FreeFormMask(box=(12, 10), brush=(2, 6)),
    "free form share": FreeFormMask(box=(12, 10), brush=(2, 6), share=(0.1, 0.3)),
    "mixed": MixedMask([RectangleMask(box=(12, 10), inset=1), FreeFormMask(box=(12, 10), brush=(2, 6))]),
}
RANDOM = {name: sampler for name, sampler in SAMPLERS.items() if name != "center"}


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _edges(mask: torch.Tensor) -> tuple[int, int, int, int]:
    """First row, first column, last row + 1, last column + 1 of the hole of one image (1, H, W)."""
    rows = [row for row in range(mask.shape[1]) if mask[0, row].any()]
    columns = [column for column in range(mask.shape[2]) if mask[0, :, column].any()]
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def _rectangle(height: int, width: int, *edges: int) -> torch.Tensor:
    """One filled rectangle (1, H, W), pixel by pixel."""
    top, left, bottom, right = edges
    rows = [[float(top <= y < bottom and left <= x < right) for x in range(width)] for y in range(height)]
    return torch.tensor([rows])


# What every sampler promises.


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_masks_are_binary_with_a_hole_and_a_box_inside_the_image(sampler: MaskSampler) -> None:
    mask, box = sampler(40, 24, 36, generator=_seeded())
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
    (mask, box), (again, box_again) = (sampler(6, 24, 36, generator=_seeded(3)) for _ in range(2))
    assert torch.equal(mask, again)
    assert torch.equal(box.top, box_again.top)
    assert torch.equal(box.left, box_again.left)
    assert not torch.equal(mask, sampler(6, 24, 36, generator=_seeded(4))[0])


@pytest.mark.parametrize("sampler", RANDOM.values(), ids=RANDOM)
def test_a_generator_advances_and_leaves_the_global_one_alone(sampler: MaskSampler) -> None:
    generator, state = _seeded(), torch.get_rng_state()
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
    mask = sampler(12, 24, 36, generator=_seeded())[0]
    assert len({tuple(image.flatten().tolist()) for image in mask}) >= 11  # of small holes, two may agree by chance


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_a_box_as_large_as_the_image_has_one_place(sampler: MaskSampler) -> None:
    mask, box = sampler(5, 12, 10, generator=_seeded())
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
def test_every_mask_configuration_has_one_box_for_all_its_parts(path: Path, size: int) -> None:
    config = OmegaConf.create({"mask": OmegaConf.load(path)})
    assert config.mask.box == [128, 128]  # the released size of the local critic
    config.mask.box = [size, size]
    mask, box = instantiate(config.mask, _convert_="all")(2, 128, 192, generator=_seeded())
    assert mask.shape == (2, 1, 128, 192)
    assert (box.height, box.width) == (size, size)


# Rectangles.


def test_a_hole_is_its_box_without_equal_borders_on_opposite_sides() -> None:
    mask, box = RectangleMask()(400, 160, 192, generator=_seeded())
    insets = []
    for image, top, left in zip(mask, box.top.tolist(), box.left.tolist(), strict=True):
        edges = _edges(image)
        insets.append((edges[0] - top, edges[1] - left))
        assert (top + 128 - edges[2], left + 128 - edges[3]) == insets[-1]
        assert image.sum() == (edges[2] - edges[0]) * (edges[3] - edges[1])  # without gaps
    for axis in range(2):  # 0 to 16 pixels, as the released maximal delta of 32
        assert {inset[axis] for inset in insets} == set(range(17))
    assert any(vertical != horizontal for vertical, horizontal in insets)


def test_boxes_start_everywhere_but_at_the_last_place_of_the_released_code() -> None:
    box = RectangleMask(box=(4, 6), inset=0, margin=(1, 2))(3000, 11, 16, generator=_seeded())[1]
    # 1 to 11 - 1 - 4 = 6 and 2 to 16 - 2 - 6 = 8, the upper ends excluded as in random_bbox
    tops, lefts = Counter(box.top.tolist()), Counter(box.left.tolist())
    assert set(tops) == set(range(1, 6))
    assert set(lefts) == set(range(2, 8))
    for counts in tops, lefts:
        expected = 3000 / len(counts)
        assert all(abs(seen - expected) < 5 * math.sqrt(expected) for seen in counts.values())
    assert len(set(zip(box.top.tolist(), box.left.tolist(), strict=True))) == 5 * 6


def test_margins_that_leave_one_place_are_legal_and_larger_ones_are_refused() -> None:
    sampler = RectangleMask(box=(4, 6), inset=0, margin=(1, 2))
    mask, box = sampler(2, 6, 10, generator=_seeded())
    assert (box.top.tolist(), box.left.tolist()) == ([1, 1], [2, 2])
    assert torch.equal(mask, _rectangle(6, 10, 1, 2, 5, 8).expand(2, 1, 6, 10))
    with pytest.raises(ValueError, match=r"box 4x6 with margins 1, 2 must fit the image 6x9, needs 6x10; choose"):
        sampler(1, 6, 9)


def test_one_hole_per_batch_repeats_the_hole_and_its_box() -> None:
    mask, box = RectangleMask(box=4, inset=1, same_in_batch=True)(5, 12, 14, generator=_seeded())
    assert torch.equal(mask, mask[:1].expand(5, 1, 12, 14))
    assert len(set(box.top.tolist())) == len(set(box.left.tolist())) == 1
    assert box.top.shape == box.left.shape == (5,)
    one, single = RectangleMask(box=4, inset=1)(1, 12, 14, generator=_seeded())
    assert torch.equal(mask[:1], one)
    assert (box.top[0], box.left[0]) == (single.top[0], single.left[0])


def test_the_number_of_rectangles_covers_its_whole_range() -> None:
    mask = RectangleMask(box=1, inset=0, count=(2, 4))(300, 64, 64, generator=_seeded())[0]
    pixels = Counter(mask.sum((1, 2, 3)).int().tolist())  # a 1x1 rectangle is a pixel; two rarely coincide
    assert max(pixels) == 4
    assert all(70 < pixels[number] < 130 for number in (2, 3, 4))
    assert sum(pixels[number] for number in (2, 3, 4)) >= 295


def test_several_rectangles_return_the_window_with_most_of_the_hole() -> None:
    mask, box = RectangleMask(box=(3, 4), inset=(1, 1), count=3)(8, 12, 14, generator=_seeded())
    for image, top, left in zip(mask, box.top.tolist(), box.left.tolist(), strict=True):
        assert (top, left) == _best_window(image[0], 3, 4)


def test_rectangles_are_filled_as_a_loop_over_pixels_fills_them() -> None:
    generator = _seeded()
    low, high = (
        torch.randint(0, 10, (7, 3, 2), generator=generator),
        torch.randint(0, 8, (7, 3, 2), generator=generator),
    )
    edges = torch.cat([low, (low + high).minimum(torch.tensor([9, 13]))], -1)
    edges[0] = 0  # no rectangle at all
    edges[1, 1:] = 0
    expected = torch.stack(
        [torch.stack([_rectangle(9, 13, *one.tolist()) for one in image]).amax(0) for image in edges]
    )
    assert torch.equal(fill_rectangles(edges, 9, 13), expected)
    assert torch.equal(
        fill_rectangles(edges[:, :1], 9, 13)[2:], torch.stack([_rectangle(9, 13, *e[0]) for e in edges[2:]])
    )


@pytest.mark.parametrize(
    ("box", "height", "width", "edges"),
    [
        ((4, 6), 8, 10, (2, 2, 6, 8)),
        ((3, 5), 8, 10, (2, 2, 5, 7)),  # an odd rest leaves one more pixel below and to the right
        ((8, 10), 8, 10, (0, 0, 8, 10)),
        (2, 3, 2, (0, 0, 2, 2)),
    ],
)
def test_the_center_hole_is_in_the_middle(
    box: int | tuple[int, int], height: int, width: int, edges: tuple[int, int, int, int]
) -> None:
    mask, window = CenterMask(box)(3, height, width)
    assert torch.equal(mask, _rectangle(height, width, *edges).expand(3, 1, height, width))
    assert (window.top.tolist(), window.left.tolist()) == ([edges[0]] * 3, [edges[1]] * 3)
    assert (window.height, window.width) == (edges[2] - edges[0], edges[3] - edges[1])


# Strokes.


@pytest.mark.parametrize(
    ("share", "height", "width"),
    [
        ((0.1, 0.2), 24, 36),
        ((0.0, 0.01), 20, 20),
        ((0.5, 0.6), 17, 31),
        ((0.9, 1.0), 16, 16),
        ((0.05, 0.07), 10, 10),  # 0.07 * 100 is more than 7 in floats: 7 pixels must not pass
        ((0.07, 0.09), 10, 10),  # and 7 pixels must
    ],
)
def test_a_share_holds_exactly_and_every_number_of_pixels_in_it_occurs(
    share: tuple[float, float], height: int, width: int
) -> None:
    mask = FreeFormMask(box=4, brush=(1, 5), share=share)(64, height, width, generator=_seeded())[0]
    pixels = [int(number) for number in mask.sum((1, 2, 3))]
    total = height * width
    legal = [number for number in range(1, total + 1) if share[0] <= number / total < share[1]]
    assert set(pixels) <= set(legal)
    if len(legal) <= 5:
        assert set(pixels) == set(legal)
    else:  # equally likely numbers: each third of the range holds about a third of them
        for third in range(3):
            ends = legal[third * len(legal) // 3], legal[(third + 1) * len(legal) // 3 - 1]
            assert 8 <= sum(ends[0] <= number <= ends[1] for number in pixels) <= 36


def test_a_thin_brush_reaches_a_large_share() -> None:
    mask = FreeFormMask(box=8, brush=1, vertices=1, length=0.01, share=(0.97, 0.98))(2, 32, 32, generator=_seeded())[0]
    assert all(0.97 <= number / 1024 < 0.98 for number in mask.sum((1, 2, 3)).tolist())


def _distance(y: int, x: int, piece: Piece) -> float:
    """Distance of a pixel from a piece's middle line."""
    along = (piece.y1 - piece.y0, piece.x1 - piece.x0)
    squared = along[0] ** 2 + along[1] ** 2
    position = 0.0
    if squared:
        position = min(max(((y - piece.y0) * along[0] + (x - piece.x0) * along[1]) / squared, 0.0), 1.0)
    return math.hypot(y - piece.y0 - position * along[0], x - piece.x0 - position * along[1])


@pytest.mark.parametrize(
    "pieces",
    [
        [Piece(0, 8, 12, 20, 12, 7)],  # level
        [Piece(0, 20, 4, 20, 18, 6)],  # upright
        [Piece(0, 4, 5, 22, 16, 8)],
        [Piece(0, 24, 3, 6, 20, 5)],
        [Piece(0, 15, 10, 15, 10, 9)],  # a dot
        [Piece(0, 0, 0, 5, 2, 10), Piece(0, 31, 23, 20, 20, 12)],  # over the corners of the image
    ],
    ids=["level", "upright", "down", "up", "dot", "corners"],
)
def test_a_piece_paints_the_pixels_within_half_a_brush_of_its_line(pieces: list[Piece]) -> None:
    canvas = torch.zeros(2, 24, 32, dtype=torch.uint8)
    _paint(canvas, pieces, [24 * 32] * 2)
    assert not canvas[1].any()
    for y in range(24):
        for x in range(32):
            depth = max(piece.brush / 2 - _distance(y, x, piece) for piece in pieces)
            if abs(depth) > 1:  # a pixel for the raster and the corners of the round ends
                assert bool(canvas[0, y, x]) == (depth > 0), (y, x)


def test_painting_ends_with_the_missing_pixels_nearest_to_the_start_of_the_piece() -> None:
    piece = Piece(0, 8, 12, 20, 12, 7)
    full, partial = torch.zeros(2, 1, 24, 32, dtype=torch.uint8)
    missing = [30]
    _paint(full, [piece], [24 * 32])
    _paint(partial, [piece], missing)
    inside = [(int(y), int(x)) for y, x in full[0].nonzero()]
    expected = sorted(inside, key=lambda place: ((place[0] - 12) ** 2 + (place[1] - 8) ** 2, place))[:30]
    assert {(int(y), int(x)) for y, x in partial[0].nonzero()} == set(expected)
    assert missing == [0]


@pytest.mark.parametrize(("angle", "across"), [((0.0, 0.0), 1), ((90.0, 0.0), 2)], ids=["level", "upright"])
def test_a_single_piece_follows_its_angle_and_its_brush(angle: tuple[float, float], across: int) -> None:
    sampler = FreeFormMask(box=8, strokes=1, vertices=1, brush=(5, 9), angle=angle, length=0.1)
    widths, lengths = [], []
    for image in sampler(60, 96, 128, generator=_seeded())[0]:
        edges = _edges(image)
        spans = (edges[2] - edges[0], edges[3] - edges[1])
        if min(edges) > 0 and edges[2] < 96 and edges[3] < 128:  # not cut by the image
            widths.append(spans[across - 1])
            lengths.append(spans[2 - across])
    assert len(widths) > 20
    assert set(widths) <= set(range(5, 12))  # a brush of 5 to 9, up to 2 pixels more for the raster
    assert max(widths) - min(widths) >= 3
    assert max(lengths) <= 2 * 16 + 9 + 2  # a step is at most twice the mean, 0.1 of the diagonal of 160
    assert sum(lengths) / len(lengths) > 16


def test_strokes_are_flipped_both_ways() -> None:
    sampler = FreeFormMask(box=8, strokes=1, vertices=1, brush=3, angle=(45.0, 0.0), length=0.2)
    slopes = []
    for image in sampler(60, 64, 64, generator=_seeded())[0]:
        y, x = image[0].nonzero().double().unbind(1)
        slopes.append(float(((y - y.mean()) * (x - x.mean())).sum().sign()))
    assert slopes.count(1.0) > 10
    assert slopes.count(-1.0) > 10


# The window of the local critic.


def _best_window(hole: torch.Tensor, height: int, width: int) -> tuple[int, int]:
    """The window with most of the hole (H, W), then the most central, topmost and leftmost one; by trying all."""
    places = [(int(y), int(x)) for y, x in hole.nonzero()]
    total = max(1, len(places))
    middle = (sum(y for y, _ in places) // total, sum(x for _, x in places) // total)

    def rank(place: tuple[int, int]) -> tuple[float, ...]:
        top, left = place
        held = sum(top <= y < top + height and left <= x < left + width for y, x in places)
        down, right = top + (height - 1) / 2 - middle[0], left + (width - 1) / 2 - middle[1]
        return -held, down**2 + right**2, top, left

    tops, lefts = range(hole.shape[0] - height + 1), range(hole.shape[1] - width + 1)
    return min(((top, left) for top in tops for left in lefts), key=rank)


@pytest.mark.parametrize("size", [(3, 4), (5, 2), (1, 1), (9, 4), (9, 11), (6, 11)])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.3, 0.9, 1.0])
def test_the_window_is_the_best_of_all_windows(size: tuple[int, int], density: float) -> None:
    mask = (torch.rand(6, 1, 9, 11, generator=_seeded()) < density).float()
    for dtype in (torch.float32, torch.bool):
        box = hole_window(mask.to(dtype), size)
        found = list(zip(box.top.tolist(), box.left.tolist(), strict=True))
        assert found == [_best_window(image[0], *size) for image in mask]
        assert (box.height, box.width) == size


def test_the_window_of_strokes_is_the_best_of_all_windows() -> None:
    mask, box = FreeFormMask(box=(6, 5), brush=(1, 3), vertices=(2, 4))(4, 16, 20, generator=_seeded())
    for image, top, left in zip(mask, box.top.tolist(), box.left.tolist(), strict=True):
        assert (top, left) == _best_window(image[0], 6, 5)


def test_a_window_counts_holes_of_more_pixels_than_small_integers_hold() -> None:
    mask = torch.zeros(1, 1, 300, 400)
    mask[..., 20:290, 60:390] = 1
    box = hole_window(mask, (270, 330))  # 89100 pixels
    assert (box.top.item(), box.left.item()) == (20, 60)


def test_a_window_larger_than_the_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="box 4x5 must fit the image 4x4, needs 4x5; choose a smaller box"):
        hole_window(torch.ones(1, 1, 4, 4), (4, 5))


# Mixed holes.


def test_samplers_are_drawn_as_often_as_their_weights_say() -> None:
    parts = [RectangleMask(box=(4, 4), inset=0), RectangleMask(box=4, inset=0, same_in_batch=True), CenterMask(box=4)]
    mask, box = MixedMask(parts, weights=[2, 0, 6])(2000, 40, 40, generator=_seeded())
    central = (box.top == 18) & (box.left == 18)
    # 3/4 plus the rare rectangle that falls on the middle (1 of 36 * 36), standard deviation below 0.01
    assert abs(central.double().mean().item() - 0.75) < 0.05
    assert len(set(zip(box.top[~central].tolist(), box.left[~central].tolist(), strict=True))) > 250
    expected = [_rectangle(40, 40, y, x, y + 4, x + 4) for y, x in zip(box.top[:50], box.left[:50], strict=True)]
    assert torch.equal(mask[:50], torch.stack(expected))  # each box belongs to its own image


def test_without_weights_samplers_are_drawn_equally_often() -> None:
    mixed = MixedMask([CenterMask(box=2), RectangleMask(box=2, inset=0), RectangleMask(box=2, inset=0, margin=20)])
    box = mixed(1500, 60, 60, generator=_seeded())[1]
    central = ((box.top == 29) & (box.left == 29)).double().mean().item()
    assert abs(central - 1 / 3) < 0.05


def test_a_sampler_alone_gets_every_image() -> None:
    mixed = MixedMask([FreeFormMask(box=(4, 5)), CenterMask(box=(4, 5))], weights=(0, 0.1))
    mask, box = mixed(3, 9, 9)
    assert torch.equal(mask, _rectangle(9, 9, 2, 2, 6, 7).expand(3, 1, 9, 9))
    assert (box.top.tolist(), box.left.tolist(), box.height, box.width) == ([2] * 3, [2] * 3, 4, 5)


def test_a_mix_of_mixes_has_the_box_of_its_parts() -> None:
    inner = MixedMask([CenterMask(box=(4, 5)), RectangleMask(box=(4, 5), inset=1)], box=[4, 5])
    assert MixedMask([inner, FreeFormMask(box=(4, 5))]).box == (4, 5)


# Settings that are refused.

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
        lambda: FreeFormMask(share=(10, 20)),
        ValueError,
        r"share must be \(low, high\) with .* got \(10, 20\); use fractions",
    ),
    (lambda: FreeFormMask(share=(0.2, 0.2)), ValueError, r"share must be \(low, high\) with 0 <= low < high <= 1, got"),
    (lambda: FreeFormMask(share=(-0.1, 0.2)), ValueError, r"share must be \(low, high\) with 0 <= low < high <= 1"),
    (lambda: FreeFormMask(share=(0.2,)), ValueError, r"share must be \(low, high\) with 0 <= low < high <= 1"),
    (
        lambda: FreeFormMask(box=2, share=(0.26, 0.27))(1, 5, 5),
        ValueError,
        r"share must leave room for a whole number of pixels, got \(0\.26, 0\.27\) of 25 pixels; widen it",
    ),
    (lambda: FreeFormMask(box=2, share=(0, 0.04))(1, 5, 5), ValueError, "share must leave room for a whole number"),
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
