"""Augmented masks: against flips and shifts by hand, scipy's morphology, and without kornia nothing trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from gicinpaint.cli import main
from gicinpaint.masks import FreeFormMask, MaskAugment, MaskFolder, MixedMask, RectangleMask
from gicinpaint.models.compositing import Box
from holes import best_window, save_mask, seeded

EVERYTHING = MaskAugment(flip=0.5, rotation=20, scale=(0.7, 1.3), shift=0.1, grow=0.1, shrink=0.05)
BOX = Box(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), 6, 7)


def corner() -> torch.Tensor:
    """Return a hole that no flip maps to itself."""
    mask = torch.zeros(1, 1, 24, 32)
    mask[..., 4:10, 8:12] = 1
    mask[..., 4:6, 12:16] = 1
    return mask


def test_flips_are_those_of_the_array_and_all_four_occur() -> None:
    mask, rng = corner(), seeded()
    expected = [mask, mask.flip(2), mask.flip(3), mask.flip(2, 3)]
    found = [MaskAugment(flip=0.5)(mask, BOX, rng)[0] for _ in range(40)]
    counts = [sum(torch.equal(one, flipped) for one in found) for flipped in expected]
    assert sum(counts) == 40
    assert min(counts) > 2


def test_a_shift_moves_the_hole_as_a_whole_by_at_most_its_share() -> None:
    rng, mask, seen = seeded(), corner(), set()
    edges = mask[0, 0].nonzero().amin(0)
    for _ in range(40):
        moved = MaskAugment(flip=0, shift=0.125)(mask, BOX, rng)[0]
        step = (moved[0, 0].nonzero().amin(0) - edges).tolist()
        assert torch.equal(moved, mask.roll(step, (2, 3)))
        seen.add(tuple(step))
    assert {abs(y) for y, _ in seen} == {0, 1, 2, 3}  # an eighth of 24 rows
    assert {abs(x) for _, x in seen} == {0, 1, 2, 3, 4}  # of 32 columns


@pytest.mark.parametrize("quarter", [90, 180])
def test_a_rotation_turns_around_the_middle(quarter: int) -> None:
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 1:3, 2:7] = 1
    angles = set()
    for _ in range(30):
        turned = MaskAugment(flip=0, rotation=quarter)(mask, BOX._replace(height=3, width=3), seeded(_))[0]
        y, x = (turned[0, 0].nonzero().double().mean(0) - 4).tolist()
        assert 1.5 < (y * y + x * x) ** 0.5 < 3.5  # its middle, 2.5 above that of the image, stays as far
        angles.add((y > 0, x > 0))
    assert len(angles) >= 2


def test_a_scale_changes_the_area_by_its_square() -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 24:40, 24:40] = 1
    twice = MaskAugment(flip=0, scale=(2, 2))(mask, BOX, seeded())[0]
    assert float(twice.sum()) == pytest.approx(4 * 256, rel=0.07)  # an edge of 32 pixels, one more or less


def test_growing_and_shrinking_are_scipys() -> None:
    mask, rng, sums = corner(), seeded(), set()
    cross, square = ndimage.generate_binary_structure(2, 1), np.ones((3, 3))
    expected = {}
    for pixels in range(-1, 4):
        hole = mask[0, 0].numpy() > 0
        for step in range(abs(pixels)):
            change = ndimage.binary_dilation if pixels > 0 else ndimage.binary_erosion
            hole = change(hole, square if step % 2 else cross)
        expected[int(hole.sum())] = hole
    for _ in range(60):
        changed = MaskAugment(flip=0, grow=0.125, shrink=0.05)(mask, BOX, rng)[0]
        pixels = int(changed.sum())
        assert np.array_equal(changed[0, 0].numpy() > 0, expected[pixels])
        sums.add(pixels)
    assert sums == set(expected)


def test_a_hole_that_would_vanish_stays_as_it_was() -> None:
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8, 8] = 1
    for seed in range(20):
        assert torch.equal(MaskAugment(flip=0, shrink=0.2)(mask, BOX, seeded(seed))[0], mask)


def test_drawn_and_read_masks_are_augmented_and_their_boxes_hold_most_of_the_hole(tmp_path: Path) -> None:
    save_mask(tmp_path / "mask.png")
    samplers = {
        "rectangle": lambda augment: RectangleMask(box=(12, 10), augment=augment),
        "strokes": lambda augment: FreeFormMask(box=(12, 10), brush=(2, 6), augment=augment),
        "mixed": lambda augment: MixedMask([RectangleMask(box=(12, 10))], augment=augment),
        "files": lambda augment: MaskFolder(tmp_path, box=(12, 10), largest_hole_ratio=1, augment=augment),
    }
    for name, make in samplers.items():
        plain = make(None)(12, 24, 36, generator=seeded())[0]
        mask, box = make(EVERYTHING)(12, 24, 36, generator=seeded())
        assert (mask != plain).flatten(1).any(1).sum() > 6, name
        assert set(mask.unique().tolist()) == {0.0, 1.0}
        for image, top, left in zip(mask, box.top.tolist(), box.left.tolist(), strict=True):
            assert (top, left) == best_window(image[0], 12, 10)


def test_items_are_augmented_alike_alone_and_again() -> None:
    sampler = RectangleMask(box=12, augment=EVERYTHING)
    first, again = (sampler(1, 24, 36, generator=seeded(7))[0] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, sampler(1, 24, 36, generator=seeded(8))[0])


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"flip": 2}, "flip must lie in"), ({"shift": -1}, "shift must lie in"), ({"scale": (2, 1)}, "scale must be")],
)
def test_values_out_of_range_are_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskAugment(**setting)  # type: ignore[arg-type]


TINY = ["loss=l1", "trainer=cpu", "dataset.image_size=32", "dataset.batch_size=4", "dataset.workers=0", "updates=1"]
TINY += ["model.generator.width=4", "dataset.validation.repeat=1", "callbacks.progress=null"]


@pytest.mark.parametrize(
    "function", ["rectangle.bbox_to_mask", "augment.warp_affine", "augment.dilation", "augment.hflip"]
)
def test_without_kornia_nothing_trains(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stub(*_: object, **__: object) -> None:
        raise NotImplementedError("kornia is a stub")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"gicinpaint.masks.{function}", stub)
    small = ["mask.box=[16,16]", "mask.inset=[2,2]", "augment@mask.augment=mild", "mask.augment.grow=0.2"]
    assert main(["train", *TINY, *small, "output=run"]) == 1
    assert "kornia is a stub" in capsys.readouterr().err


@pytest.mark.parametrize("mask", ["mixed", "mostly_rectangles"])
def test_sizes_of_mixed_masks_follow_box_and_image(mask: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *TINY, f"mask={mask}", "mask.box=32", "output=run"]) == 0


def test_a_brush_is_relative_to_the_image_where_none_is_given() -> None:
    for size, brush in ((256, (12, 39)), (64, (3, 9)), (8, (1, 1))):
        relative, pixels = (
            FreeFormMask(box=4, brush=one)(3, size, size, generator=seeded())[0] for one in (None, brush)
        )
        assert torch.equal(relative, pixels)
