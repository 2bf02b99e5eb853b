from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gicinpaint.attention.attention_map import colour_offset, overhear
from gicinpaint.attention.visualize import draw_arrows, draw_attention, draw_heat, middle_of_hole
from gicinpaint.models.generator import Generator

GAP, TITLE, WHEEL = 4, 20, 56
GREY = 128


def _scene(size: int = 64) -> tuple[Tensor, Tensor]:
    mask = torch.zeros(1, size, size)
    mask[:, 24:40, 24:40] = 1
    return torch.full((3, size, size), GREY / 127.5 - 1), mask


def _changed(picture: Image.Image, ground: int = GREY) -> np.ndarray:
    return (np.abs(np.asarray(picture).astype(int) - ground) > 4).any(axis=-1)


def test_an_arrow_has_the_colour_of_its_offset_and_runs_from_the_patch_to_the_source() -> None:
    """One arrow: from the cell (4, 4), whose middle is pixel 35.5, to the cell (1, 6), middle (11.5, 51.5)."""
    image, mask = _scene()
    mask[:] = 0
    mask[:, 32:40, 32:40] = 1
    offset = torch.zeros(2, 8, 8, dtype=torch.int64)
    offset[:, 4, 4] = torch.tensor([1, 6])
    zoom = 4
    picture = draw_arrows(image, mask, offset, every=1, zoom=zoom)
    assert picture.size == (256, 256)
    pixels = np.asarray(picture).astype(int)
    colour = ((colour_offset(torch.tensor([-3, 2]).reshape(1, 2, 1, 1)) + 1) * 127.5).round().flatten().numpy()
    for share in (0.25, 0.5, 0.65):  # along the shaft, in front of the head
        row, column = ((1 - share) * (35.5 + 0.5) + share * 12) * zoom, ((1 - share) * 36 + share * 52) * zoom
        around = pixels[int(row) - 2 : int(row) + 3, int(column) - 2 : int(column) + 3].reshape(-1, 3)
        assert np.abs(around - colour).sum(axis=1).min() < 60, share
    rows, columns = np.nonzero(_changed(picture))
    assert abs(rows.min() - 12 * zoom) <= zoom  # the tip; the hole's outline is lower
    assert abs(columns.max() - 52 * zoom) <= 2 * zoom


def test_a_patch_copied_from_its_own_place_has_no_arrow() -> None:
    image, mask = _scene()
    own = torch.stack(torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij"))
    changed = _changed(draw_arrows(image, mask, own, every=1))
    assert changed[23, 24:40].all()  # the outline of the hole
    assert changed[40, 24:40].all()
    changed[23:41, [23, 40]] = changed[[23, 40], 23:41] = False
    assert not changed.any()


def test_without_a_hole_nothing_is_drawn() -> None:
    image, mask = _scene()
    assert not _changed(draw_arrows(image, torch.zeros_like(mask), torch.zeros(2, 8, 8, dtype=torch.int64))).any()


def test_heat_is_yellow_for_the_most_never_white_and_dimmed_photograph_for_nothing() -> None:
    """By hand: black, red, orange, yellow at 0, 1/2, 3/4 and 1 of the largest; the photograph at 0.45 of its grey."""
    image, _ = _scene()
    row = torch.zeros(8, 8)
    row[1, 1], row[1, 3], row[1, 5] = 0.4, 0.3, 0.2
    pixels = np.asarray(draw_heat(image, row, (6, 6)))
    assert pixels.min(-1).max() < 128  # no colour is near white
    for column, expected in ((1, (255, 255, 0)), (3, (255, 128, 0)), (5, (255, 0, 0)), (7, (58, 58, 58))):
        found = pixels[12, 8 * column + 4].astype(int)
        dimmed = round(0.45 * GREY * (1 - float(row[1, column]) / 0.4))  # what of the photograph remains
        assert np.abs(found - np.maximum(expected, dimmed)).max() <= 1
    cyan = (pixels == (0, 255, 255)).all(axis=-1)
    assert cyan[48, 48:56].all()
    assert cyan[48:56, 55].all()
    assert cyan.sum() == 4 * 7


def test_no_attention_at_all_is_drawn_without_heat() -> None:
    image, _ = _scene()
    pixels = np.asarray(draw_heat(image, torch.zeros(8, 8), (0, 0)))
    assert (pixels[16:, 16:] == pixels[-1, -1]).all()


@pytest.mark.parametrize(
    ("hole", "expected"),
    [
        ((slice(0, 16), slice(48, 64)), (0, 6)),
        ((slice(0, 24), slice(0, 24)), (1, 1)),
        ((slice(5, 7), slice(9, 11)), (0, 1)),
    ],
)
def test_the_middle_of_a_hole_lies_in_it(hole: tuple[slice, slice], expected: tuple[int, int]) -> None:
    mask = torch.zeros(1, 64, 64)
    mask[0, *hole] = 1
    assert middle_of_hole(mask, (8, 8)) == expected


def test_the_middle_of_a_ring_is_a_cell_of_the_ring() -> None:
    mask = torch.ones(1, 64, 64)
    mask[:, 8:56, 8:56] = 0
    row, column = middle_of_hole(mask, (8, 8))
    assert row in (0, 7) or column in (0, 7)


def test_a_sheet_of_attention_shows_the_layer_s_offsets_and_the_middle_s_row() -> None:
    torch.manual_seed(0)
    generator = Generator(width=4)
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    mask = torch.stack([_scene()[1], torch.roll(_scene()[1], (8, -16), (1, 2))])
    sheet = draw_attention(generator, image, mask, every=1)
    assert sheet.size == (5 * (256 + GAP) - GAP, TITLE + 2 * (256 + GAP) - GAP + GAP + WHEEL)
    scale = np.asarray(sheet)[TITLE + 2 * (256 + GAP) + 15, 4 * (256 + GAP) :].astype(int)  # below the heat maps
    assert np.abs(scale[[0, 128, 192, 255]] - [(0, 0, 0), (255, 0, 0), (255, 128, 0), (255, 255, 0)]).max() <= 3
    attention = generator.refinement_network.attention
    with overhear(attention) as calls, torch.no_grad():
        completion = generator(image * (1 - mask), mask, return_offset=True)
    completed = torch.where(mask.bool(), completion.refined, image)
    for i in range(2):
        cell = middle_of_hole(mask[i], (8, 8))
        expected = {
            3: draw_arrows(completed[i], mask[i], completion.offset[i], every=1, zoom=4),
            4: draw_heat(completed[i], calls[0].row(i, cell), cell, zoom=4),
        }
        for column, picture in expected.items():
            left, top = column * (256 + GAP), TITLE + i * (256 + GAP)
            assert np.array_equal(np.asarray(sheet)[top : top + 256, left : left + 256], np.asarray(picture))


def test_a_generator_without_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a generator with attention, got Generator without"):
        draw_attention(Generator(width=2, attention=None), torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64))
