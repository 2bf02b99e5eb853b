from __future__ import annotations

from pathlib import Path

import pytest
import torch

import golden
from gicinpaint.attention.attention_map import colour_legend, colour_offset, hole_arrows, relative_offset

# Files whose foreground and background differ in size have neither offsets nor a drawing.
FILES = [path for path in golden.paths("ca_*.npz") if {"flow_rgb", "offset_rel"} <= golden.load(path).keys()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_colours_equal_the_golden_ones(path: Path) -> None:
    values = golden.load(path)
    relative, expected = values["offset_rel"], values["flow_rgb"]
    length = torch.hypot(*relative.double().unbind(1)).flatten(1).amax(1)
    colours = colour_offset(relative, length.cummax(0).values, expected.shape[-1] // relative.shape[-1])
    difference = (colours - expected).abs()
    assert difference.max() < 1.01 / 127.5  # one of 256 levels
    assert (difference > 1e-5).float().mean() < 0.01


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_relative_offsets_equal_the_golden_ones(path: Path) -> None:
    values = golden.load(path)
    relative = relative_offset(values["offset_abs"])
    assert relative.dtype == torch.int64
    assert torch.equal(relative, values["offset_rel"].long())


def test_golden_offsets_are_there() -> None:
    assert len(FILES) >= 15


def test_each_image_has_a_scale_of_its_own() -> None:
    offset = torch.randint(-6, 7, (3, 2, 4, 5), generator=torch.Generator().manual_seed(0))
    offset[1] *= 3
    single = torch.cat([colour_offset(item[None]) for item in offset])
    assert torch.equal(colour_offset(offset), single)
    assert torch.equal(colour_offset(3 * offset)[0], single[0])  # the longest offset is saturated, whatever its length


def test_hues_of_the_four_directions_are_those_of_the_wheel() -> None:
    """By hand: down is hue 0, right 13.5, up 27 and left 40.5 of the wheel's 55; no offset is white."""
    offset = torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1], [0, 0]]).T.reshape(1, 2, 1, 5)
    levels = ((colour_offset(offset) + 1) * 127.5).round().int()[0, :, 0].T.tolist()
    expected = [[255, 0, 0], [255, 229, 0], [0, 209, 255], [88, 0, 255], [255, 255, 255]]
    assert (torch.tensor(levels[1:]) - torch.tensor(expected[1:])).abs().max() <= 1
    # a place just below hue 0 falls into the last hue, red with 43 of blue
    assert levels[0][0] == 255
    assert max(levels[0][1:]) <= 43


def test_offsets_longer_than_the_largest_are_darkened() -> None:
    """By hand: beyond full saturation a colour is three quarters of its hue, floor(0.75 * 229.5) = 172."""
    colour = colour_offset(torch.tensor([0, 5]).reshape(1, 2, 1, 1), largest=torch.tensor([4.0]))
    assert ((colour.flatten() + 1) * 127.5).round().tolist() == [191, 172, 0]


def test_cells_become_squares_of_pixels() -> None:
    offset = torch.randint(-3, 4, (2, 2, 3, 4), generator=torch.Generator().manual_seed(1))
    small, large = colour_offset(offset), colour_offset(offset, rate=3)
    assert large.shape == (2, 3, 9, 12)
    assert torch.equal(large, small.repeat_interleave(3, -2).repeat_interleave(3, -1))


def test_relative_offsets_are_counted_from_each_patchs_own_place() -> None:
    own = torch.stack(torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij"))[None]
    assert not relative_offset(own).any()
    offset = torch.full((2, 2, 3, 4), 2, dtype=torch.int32)
    for row in range(3):
        for column in range(4):
            assert relative_offset(offset)[1, :, row, column].tolist() == [2 - row, 2 - column]


def test_the_legend_shows_the_offset_from_the_middle_to_each_pixel() -> None:
    legend = colour_legend(65)
    assert legend.shape == (3, 65, 65)
    middle, step = 32, 1 / 32
    for row, column in ((40, 32), (20, 50), (32, 3), (10, 10), (33, 31)):
        offset = torch.tensor([(row - middle) * step, (column - middle) * step]).reshape(1, 2, 1, 1)
        expected = colour_offset(offset, largest=torch.ones(1)).flatten()
        torch.testing.assert_close(legend[:, row, column], expected, atol=1.01 / 127.5, rtol=0)
    assert (legend[:, middle, middle] == 1).all()
    for corner in (legend[:, 0, 0], legend[:, 0, -1], legend[:, -1, 0], legend[:, -1, -1]):
        assert (corner == 1).all()  # white


def test_arrows_lead_from_each_patch_of_the_hole_to_its_source() -> None:
    """Counted cell by cell: a cell of 8 x 4 pixels has its middle 3.5 and 1.5 pixels after its first."""
    generator = torch.Generator().manual_seed(0)
    offset = torch.stack([torch.randint(0, n, (2, 5, 6), generator=generator) for n in (5, 6)], dim=1)
    mask = torch.zeros(2, 1, 40, 24)
    mask[0, :, 8:24, 6:20] = 1  # half of the second column's cells
    mask[1, :, 33:, 20:] = 1
    mask[1, :, :3, :4] = 1  # less than half of a cell
    for i, arrows in enumerate(hole_arrows(offset, mask)):
        expected = []
        for row in range(5):
            for column in range(6):
                if mask[i, 0, 8 * row : 8 * row + 8, 4 * column : 4 * column + 4].mean() >= 0.5:
                    source = offset[i, :, row, column].tolist()
                    expected.append([[8 * y + 3.5, 4 * x + 1.5] for y, x in ((row, column), source)])
        assert arrows.tolist() == expected
        assert len(expected) == (8, 1)[i]


def test_fewer_arrows_start_at_every_third_row_and_column() -> None:
    offset = torch.zeros(1, 2, 9, 9, dtype=torch.int64)
    (arrows,) = hole_arrows(offset, torch.ones(1, 1, 9, 9), every=3)
    assert arrows[:, 0].tolist() == [[y, x] for y in (1, 4, 7) for x in (1, 4, 7)]


def test_an_image_without_a_hole_has_no_arrows() -> None:
    (arrows,) = hole_arrows(torch.zeros(1, 2, 2, 2, dtype=torch.int64), torch.zeros(1, 1, 8, 8))
    assert arrows.shape == (0, 2, 2)
