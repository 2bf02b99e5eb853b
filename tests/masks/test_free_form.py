"""Free-form holes against distances and counts, pixel by pixel."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
from kornia.image import draw_convex_polygon

from gicinpaint.masks import FreeFormMask
from gicinpaint.masks.free_form import Segment, _paint
from holes import hole_edges, seeded


@pytest.mark.parametrize(
    ("ratio", "height", "width"),
    [
        ((0.1, 0.2), 24, 36),
        ((0.0, 0.01), 20, 20),
        ((0.5, 0.6), 17, 31),
        ((0.9, 1.0), 16, 16),
        ((0.05, 0.07), 10, 10),  # 0.07 * 100 is more than 7 in floats: 7 pixels must not pass
        ((0.07, 0.09), 10, 10),  # and 7 pixels must
    ],
)
def test_a_hole_ratio_holds_exactly_and_every_number_of_pixels_in_it_occurs(
    ratio: tuple[float, float], height: int, width: int
) -> None:
    mask = FreeFormMask(box=4, brush=(1, 5), hole_ratio=ratio)(64, height, width, generator=seeded())[0]
    pixels = [int(number) for number in mask.sum((1, 2, 3))]
    total = height * width
    legal = [number for number in range(1, total + 1) if ratio[0] <= number / total < ratio[1]]
    assert set(pixels) <= set(legal)
    if len(legal) <= 5:
        assert set(pixels) == set(legal)
    else:  # equally likely numbers: each third of the range holds about a third of them
        for third in range(3):
            ends = legal[third * len(legal) // 3], legal[(third + 1) * len(legal) // 3 - 1]
            assert 8 <= sum(ends[0] <= number <= ends[1] for number in pixels) <= 36


def test_a_thin_brush_reaches_a_large_hole_ratio() -> None:
    mask = FreeFormMask(box=8, brush=1, vertices=1, length=0.01, hole_ratio=(0.97, 0.98))(
        2, 32, 32, generator=seeded()
    )[0]
    assert all(0.97 <= number / 1024 < 0.98 for number in mask.sum((1, 2, 3)).tolist())


def _is_painted(y: int, x: int, piece: Segment) -> bool:
    """Whether a pixel lies within half a brush of a piece's middle line, by fractions."""
    along = (piece.y1 - piece.y0, piece.x1 - piece.x0)
    squared = along[0] ** 2 + along[1] ** 2
    position = Fraction(0)
    if squared:
        position = Fraction((y - piece.y0) * along[0] + (x - piece.x0) * along[1], squared)
        position = min(max(position, Fraction(0)), Fraction(1))
    away = (y - piece.y0 - position * along[0], x - piece.x0 - position * along[1])
    return away[0] ** 2 + away[1] ** 2 <= Fraction(piece.brush, 2) ** 2


@pytest.mark.parametrize(
    "pieces",
    [
        [Segment(0, 8, 12, 20, 12, 7)],  # level
        [Segment(0, 20, 4, 20, 18, 6)],  # upright
        [Segment(0, 4, 5, 22, 16, 8)],
        [Segment(0, 24, 3, 6, 20, 5)],
        [Segment(0, 15, 10, 15, 10, 9)],  # a dot
        [Segment(0, 0, 0, 5, 2, 10), Segment(0, 31, 23, 20, 20, 12)],  # over the corners of the image
    ],
    ids=["level", "upright", "down", "up", "dot", "corners"],
)
def test_a_piece_paints_the_pixels_within_half_a_brush_of_its_line(pieces: list[Segment]) -> None:
    canvas = torch.zeros(2, 24, 32, dtype=torch.uint8)
    _paint(canvas, pieces, [24 * 32] * 2)
    assert not canvas[1].any()
    for y in range(24):
        for x in range(32):
            assert bool(canvas[0, y, x]) == any(_is_painted(y, x, piece) for piece in pieces), (y, x)


def test_random_pieces_paint_exactly_their_pixels() -> None:
    ends = torch.randint(0, 20, (150, 4), generator=seeded()).tolist()
    brushes = torch.randint(1, 14, (150,), generator=seeded(1)).tolist()
    pieces = [Segment(image, *end, brush) for image, (end, brush) in enumerate(zip(ends, brushes, strict=True))]
    canvas = torch.zeros(150, 18, 20, dtype=torch.uint8)
    _paint(canvas, pieces, [18 * 20] * 150)
    for piece, image in zip(pieces, canvas.tolist(), strict=True):
        expected = [[_is_painted(y, x, piece) for x in range(20)] for y in range(18)]
        assert [[bool(pixel) for pixel in row] for row in image] == expected


def test_strokes_look_as_kornias_polygons_do() -> None:
    piece = Segment(0, 9, 30, 44, 12, 15)
    canvas = torch.zeros(1, 50, 60, dtype=torch.uint8)
    _paint(canvas, [piece], [50 * 60])
    turns = torch.linspace(-math.pi / 2, math.pi / 2, 90) + math.atan2(-18, 35)
    fan = 7.5 * torch.stack([turns.cos(), turns.sin()], 1)
    corners = torch.cat([torch.tensor([44, 12]) + fan, torch.tensor([9, 30]) - fan])
    polygon = draw_convex_polygon(torch.zeros(1, 1, 50, 60), corners[None], torch.ones(1))[0, 0]
    assert int((polygon != canvas[0]).sum()) <= 2  # pixels on the edge, where floats round


def test_kornia_draws_the_same_strokes_but_for_pixels_on_their_edges() -> None:
    exact, polygons = (
        FreeFormMask(box=8, drawing=drawing)(12, 96, 128, generator=seeded())[0] for drawing in ("spans", "kornia")
    )
    differing = exact != polygons
    grown = torch.nn.functional.max_pool2d(exact, 3, 1, 1)
    edge = grown != -torch.nn.functional.max_pool2d(-exact, 3, 1, 1)
    assert exact.sum() > 10_000
    assert not (differing & ~edge).any()
    assert differing.sum() < 0.01 * exact.sum()


def test_kornia_draws_no_hole_ratio() -> None:
    with pytest.raises(ValueError, match="drawing must be spans, or kornia without a hole_ratio"):
        FreeFormMask(drawing="kornia", hole_ratio=(0.1, 0.2))


def test_painting_ends_with_the_missing_pixels_nearest_to_the_start_of_the_piece() -> None:
    piece = Segment(0, 8, 12, 20, 12, 7)
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
    for image in sampler(60, 96, 128, generator=seeded())[0]:
        edges = hole_edges(image)
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
    for image in sampler(60, 64, 64, generator=seeded())[0]:
        y, x = image[0].nonzero().double().unbind(1)
        slopes.append(float(((y - y.mean()) * (x - x.mean())).sum().sign()))
    assert slopes.count(1.0) > 10
    assert slopes.count(-1.0) > 10


def _strokes(sampler: FreeFormMask, count: int, flips: list[int]) -> list[list[Segment]]:
    """The pieces of strokes on an image of 300 x 400, one list per stroke."""
    pieces = sampler._draw_segments([1] * count, [flips] * count, (300, 400), 1, seeded())
    return [[piece for piece in pieces if piece.image == image] for image in range(count)]


@pytest.mark.parametrize("flips", [[1, 0], [0, 1], [1, 1]], ids=["vertical", "horizontal", "both"])
def test_a_flip_mirrors_the_corners_of_a_stroke(flips: list[int]) -> None:
    for plain, flipped in zip(*(_strokes(FreeFormMask(), 5, some) for some in ([0, 0], flips)), strict=True):
        for piece, mirrored in zip(plain, flipped, strict=True):
            for x, y, new_x, new_y in (
                (piece.x0, piece.y0, mirrored.x0, mirrored.y0),
                (piece.x1, piece.y1, mirrored.x1, mirrored.y1),
            ):
                assert new_y == (299 - y if flips[0] else y)
                assert new_x == (399 - x if flips[1] else x)


def test_a_stroke_is_a_chain_of_pieces_that_go_up_and_down_in_turn() -> None:
    strokes = _strokes(FreeFormMask(vertices=(2, 5), brush=(3, 6)), 120, [0, 0])
    assert {len(stroke) for stroke in strokes} == {2, 3, 4, 5}
    assert {stroke[0].brush for stroke in strokes} == {3, 4, 5, 6}
    for stroke in strokes:
        assert len({piece.brush for piece in stroke}) == 1
        for before, after in pairwise(stroke):
            assert (before.x1, before.y1) == (after.x0, after.y0)
        for number, piece in enumerate(stroke):  # a mean of 72 degrees, 24 more or less: never level
            assert piece.y1 >= piece.y0 if number % 2 else piece.y1 <= piece.y0


def test_the_length_of_a_piece_is_normal_around_a_fraction_of_the_diagonal() -> None:
    sampler = FreeFormMask(vertices=1, angle=(0.0, 0.0), length=0.1)  # 50 of a diagonal of 500, deviation 25
    lengths = [piece.x1 - piece.x0 for (piece,) in _strokes(sampler, 800, [0, 0]) if piece.x0 < 299]  # none is cut
    assert len(lengths) > 500
    assert 45 < sum(lengths) / len(lengths) < 54  # rounded down
    assert 0.6 < sum(25 <= length <= 75 for length in lengths) / len(lengths) < 0.76  # 68 % within one deviation
    assert max(lengths) == 100  # two deviations, where the released code cuts


def test_the_number_of_strokes_covers_its_whole_range() -> None:
    dots = FreeFormMask(box=8, strokes=(2, 4), vertices=1, brush=1, angle=(0.0, 0.0), length=1e-9)
    one = FreeFormMask(box=8, strokes=1, vertices=1, brush=1, angle=(0.0, 0.0), length=1e-9)
    size = int(one(1, 128, 128, generator=seeded())[0].sum())
    seen = Counter(int(image.sum()) / size for image in dots(90, 128, 128, generator=seeded())[0])
    assert all(15 <= seen[number] <= 45 for number in (2, 3, 4))
    assert sum(seen[number] for number in (2, 3, 4)) >= 80  # the others overlap or are cut by the image


def test_the_brush_doubles_until_a_large_hole_ratio_is_reached() -> None:
    class Counted(FreeFormMask):
        rounds = 0

        def _draw_segments(self, *arguments: Any) -> list[Segment]:
            self.rounds += 1
            return super()._draw_segments(*arguments)

    sampler = Counted(box=8, brush=1, vertices=1, length=0.01, hole_ratio=(0.97, 0.98))
    sampler(1, 64, 64, generator=seeded())
    assert 8 < sampler.rounds <= 8 * 8  # 8 rounds for each brush of 1, 2, ... 128; the last covers the image
