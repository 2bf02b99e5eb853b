from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gicinpaint.attention.attention_map import colour_legend, colour_offset, relative_offset
from gicinpaint.attention.visualize import attention_of, draw_completions, draw_sheet, to_image, to_tensor
from gicinpaint.models.generator import CoarseGenerator, Generator

GAP, TITLE = 4, 20  # pixels between pictures, and above them
LINE = 15  # more of them for each further line of a title, such as "ground truth" above a narrow image


def _images(b: int, h: int, w: int, seed: int = 0) -> Tensor:
    return torch.rand(b, 3, h, w, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _levels(image: Tensor) -> np.ndarray:
    """Return 8-bit values, channels last, by the convention (x + 1) * 127.5, rounded."""
    return np.rint((image.double().numpy().transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)


def _picture(sheet: Image.Image, row: int, column: int, h: int, w: int, top: int = TITLE) -> np.ndarray:
    top, left = top + row * (h + GAP), column * (w + GAP)
    return np.asarray(sheet)[top : top + h, left : left + w]


def test_levels_are_rounded_and_clipped() -> None:
    values = torch.tensor([-1.2, -1.0, 2.4 / 127.5 - 1, 2.6 / 127.5 - 1, 1.0, 1.2])
    picture = np.asarray(to_image(values.expand(3, 1, 6)))
    assert picture[0, :, 0].tolist() == [0, 0, 2, 3, 255, 255]


def test_every_level_survives() -> None:
    levels = torch.arange(256).reshape(1, 16, 16).expand(3, -1, -1)
    assert np.array_equal(np.asarray(to_image(levels / 127.5 - 1)), levels.permute(1, 2, 0).numpy())


def test_a_picture_comes_back_as_the_image_it_was_drawn_from() -> None:
    levels = torch.randint(0, 256, (3, 5, 7), generator=torch.Generator().manual_seed(0)) / 127.5 - 1
    torch.testing.assert_close(to_tensor(to_image(levels)), levels, rtol=0, atol=1e-6)


def test_a_sheet_holds_every_image_at_its_place() -> None:
    columns = {"one": _images(3, 5, 7), "two": _images(3, 5, 7, seed=1)}
    sheet = draw_sheet(columns)
    assert sheet.size == (2 * 7 + GAP, TITLE + 3 * 5 + 2 * GAP)
    for column, images in enumerate(columns.values()):
        for row, image in enumerate(images):
            assert np.array_equal(_picture(sheet, row, column, 5, 7), _levels(image))


def test_small_images_are_enlarged_by_repeating_pixels() -> None:
    images = _images(2, 5, 7)
    sheet = draw_sheet({"one": images}, smallest_width=20)  # three times 7 is the first width of at least 20
    assert sheet.size == (21, TITLE + 2 * 15 + GAP)
    enlarged = images[1].repeat_interleave(3, 1).repeat_interleave(3, 2)
    assert np.array_equal(_picture(sheet, 1, 0, 15, 21), _levels(enlarged))


def test_the_gaps_of_a_sheet_are_white() -> None:
    sheet = np.asarray(draw_sheet({"one": -torch.ones(2, 3, 5, 7), "two": -torch.ones(2, 3, 5, 7)}))
    assert (sheet[TITLE:, 7 : 7 + GAP] == 255).all()
    assert (sheet[TITLE + 5 : TITLE + 5 + GAP] == 255).all()


def test_titles_are_drawn_above_their_columns() -> None:
    sheet = np.asarray(draw_sheet({"first": torch.ones(1, 3, 30, 60), "": torch.ones(1, 3, 30, 60)}))
    assert sheet[:TITLE, :60].min() < 128
    assert (sheet[:TITLE, 60 + GAP :] == 255).all()


def test_a_title_wider_than_its_images_takes_several_lines_and_stays_in_its_column() -> None:
    sheet = np.asarray(draw_sheet({"ground truth": torch.ones(1, 3, 30, 60), "": torch.ones(1, 3, 30, 60)}))
    assert sheet.shape[0] == TITLE + LINE + 30
    assert sheet[:TITLE, :60].min() < 128
    assert sheet[TITLE : TITLE + LINE, :60].min() < 128
    assert (sheet[: TITLE + LINE, 60:] == 255).all()


def _mask(b: int) -> Tensor:
    mask = torch.zeros(b, 1, 32, 32)
    for i in range(b):
        mask[i, :, 4 + 4 * i : 16 + 4 * i, 6:20] = 1
    return mask


def _network(kind: type[nn.Module], **arguments: object) -> nn.Module:
    torch.manual_seed(0)
    return kind(width=2, **arguments)


def test_a_completion_is_drawn_from_input_to_ground_truth() -> None:
    generator, image, mask = _network(Generator), _images(2, 32, 32), _mask(2)
    sheet = draw_completions(generator, image, mask)
    with torch.no_grad():
        coarse, refined, offset = generator(image * (1 - mask), mask, return_offset=True)
    colours = colour_offset(relative_offset(offset)).repeat_interleave(8, -2).repeat_interleave(8, -1)
    hole = mask.bool()
    columns = [
        torch.where(hole, 1.0, image),
        torch.where(hole, coarse, image),
        torch.where(hole, refined, image),
        colours,
        image,
    ]
    assert sheet.width == 5 * 32 + 4 * GAP
    for column, images in enumerate(columns):
        for row in range(2):
            assert np.array_equal(_picture(sheet, row, column, 32, 32, TITLE + LINE), _levels(images[row]))


@pytest.mark.parametrize(
    ("kind", "arguments", "columns"), [(Generator, {"attention": None}, 4), (CoarseGenerator, {}, 3)]
)
def test_what_a_generator_lacks_is_left_out(kind: type[nn.Module], arguments: dict, columns: int) -> None:
    image = _images(1, 32, 32)
    sheet = draw_completions(_network(kind, **arguments), image, _mask(1))
    assert sheet.width == columns * (32 + GAP) - GAP
    assert np.array_equal(_picture(sheet, 0, columns - 1, 32, 32, TITLE + LINE), _levels(image[0]))


def test_the_legend_of_the_offsets_stands_below_them_and_only_there() -> None:
    image, mask = _images(1, 64, 64), torch.zeros(1, 1, 64, 64)
    mask[..., 16:40, 16:40] = 1
    with_offsets = draw_completions(_network(Generator), image, mask)
    without = draw_completions(_network(Generator, attention=None), image, mask)
    wheel = colour_legend(56)
    assert without.height == TITLE + LINE + 64
    assert with_offsets.height == TITLE + LINE + 64 + GAP + 56
    assert np.array_equal(np.asarray(with_offsets)[-56:, :56], _levels(wheel))


def test_the_attention_layer_of_a_generator_is_found() -> None:
    generator = _network(Generator)
    assert attention_of(generator) is generator.refinement_network.attention
    assert attention_of(_network(Generator, attention=None)) is None
    assert attention_of(_network(CoarseGenerator)) is None
