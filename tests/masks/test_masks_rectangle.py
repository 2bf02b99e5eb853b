"""Rectangular holes against loops over pixels and counts of places."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from gicinpaint.masks import CenterMask, RectangleMask
from gicinpaint.masks.rectangle import fill_rectangles
from holes import best_window, hole_edges, rectangle, seeded


def test_a_hole_is_its_box_without_equal_borders_on_opposite_sides() -> None:
    mask, box = RectangleMask()(400, 160, 192, generator=seeded())
    insets = []
    for image, top, left in zip(mask, box.top.tolist(), box.left.tolist(), strict=True):
        edges = hole_edges(image)
        insets.append((edges[0] - top, edges[1] - left))
        assert (top + 128 - edges[2], left + 128 - edges[3]) == insets[-1]
        assert image.sum() == (edges[2] - edges[0]) * (edges[3] - edges[1])  # without gaps
    for axis in range(2):  # 0 to 16 pixels, as the released maximal delta of 32
        assert {inset[axis] for inset in insets} == set(range(17))
    assert any(vertical != horizontal for vertical, horizontal in insets)


def test_boxes_start_everywhere_but_at_the_last_place_of_the_released_code() -> None:
    box = RectangleMask(box=(4, 6), inset=0, margin=(1, 2))(3000, 11, 16, generator=seeded())[1]
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
    mask, box = sampler(2, 6, 10, generator=seeded())
    assert (box.top.tolist(), box.left.tolist()) == ([1, 1], [2, 2])
    assert torch.equal(mask, rectangle(6, 10, 1, 2, 5, 8).expand(2, 1, 6, 10))
    with pytest.raises(ValueError, match=r"box 4x6 with margins 1, 2 must fit the image 6x9, needs 6x10; choose"):
        sampler(1, 6, 9)


def test_one_hole_per_batch_repeats_the_hole_and_its_box() -> None:
    mask, box = RectangleMask(box=4, inset=1, same_in_batch=True)(5, 12, 14, generator=seeded())
    assert torch.equal(mask, mask[:1].expand(5, 1, 12, 14))
    assert len(set(box.top.tolist())) == len(set(box.left.tolist())) == 1
    assert box.top.shape == box.left.shape == (5,)
    one, single = RectangleMask(box=4, inset=1)(1, 12, 14, generator=seeded())
    assert torch.equal(mask[:1], one)
    assert (box.top[0], box.left[0]) == (single.top[0], single.left[0])


def test_the_number_of_rectangles_covers_its_whole_range() -> None:
    mask = RectangleMask(box=1, inset=0, count=(2, 4))(300, 64, 64, generator=seeded())[0]
    pixels = Counter(mask.sum((1, 2, 3)).int().tolist())  # a 1x1 rectangle is a pixel; two rarely coincide
    assert max(pixels) == 4
    assert all(70 < pixels[number] < 130 for number in (2, 3, 4))
    assert sum(pixels[number] for number in (2, 3, 4)) >= 295


def test_several_rectangles_return_the_window_with_most_of_the_hole() -> None:
    mask, box = RectangleMask(box=(3, 4), inset=(1, 1), count=3)(8, 12, 14, generator=seeded())
    for image, top, left in zip(mask, box.top.tolist(), box.left.tolist(), strict=True):
        assert (top, left) == best_window(image[0], 3, 4)


def test_rectangles_are_filled_as_a_loop_over_pixels_fills_them() -> None:
    generator = seeded()
    low, high = (
        torch.randint(0, 10, (7, 3, 2), generator=generator),
        torch.randint(0, 8, (7, 3, 2), generator=generator),
    )
    edges = torch.cat([low, (low + high).minimum(torch.tensor([9, 13]))], -1)
    edges[0] = 0  # no rectangle at all
    edges[1, 1:] = 0
    expected = torch.stack([torch.stack([rectangle(9, 13, *one.tolist()) for one in image]).amax(0) for image in edges])
    assert torch.equal(fill_rectangles(edges, 9, 13), expected)
    assert torch.equal(
        fill_rectangles(edges[:, :1], 9, 13)[2:], torch.stack([rectangle(9, 13, *e[0]) for e in edges[2:]])
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
    assert torch.equal(mask, rectangle(height, width, *edges).expand(3, 1, height, width))
    assert (window.top.tolist(), window.left.tolist()) == ([edges[0]] * 3, [edges[1]] * 3)
    assert (window.height, window.width) == (edges[2] - edges[0], edges[3] - edges[1])


def test_the_inset_is_an_eighth_of_the_box_where_none_is_given() -> None:
    assert RectangleMask().inset == (16, 16)  # the released maximal delta of 32, on both sides
    assert RectangleMask(box=(32, 40)).inset == (4, 5)
