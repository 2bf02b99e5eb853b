"""Free-form holes against distances and counts, pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch

from gicinpaint.masks import FreeFormMask
from gicinpaint.masks.strokes import Piece, _paint
from holes import hole_edges, seeded


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
    mask = FreeFormMask(box=4, brush=(1, 5), share=share)(64, height, width, generator=seeded())[0]
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
    mask = FreeFormMask(box=8, brush=1, vertices=1, length=0.01, share=(0.97, 0.98))(2, 32, 32, generator=seeded())[0]
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
