"""The second paper's masks, bit by bit against those that its released code drew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import golden
from gicinpaint.masks import FreeFormV2Mask
from gicinpaint.masks.free_form_v2 import draw_rectangle, draw_strokes

FILES = golden.paths_v2("masks_*.npz")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_strokes_insets_and_rectangles_equal_the_golden_ones(path: Path) -> None:
    values = golden.load(path)
    height, width = shape = tuple(values["meta"]["image"])
    sampler = FreeFormV2Mask(values["meta"]["box"], values["meta"]["margins"], values["meta"]["max_delta"])
    for number, seed in enumerate(values["meta"]["numpy_seeds"]):
        rng = np.random.RandomState(seed)
        strokes = draw_strokes(rng, height, width, swap_sides=True)
        assert np.array_equal(strokes, unpacked(values["stroke_bits"][number], shape))
        inset = sampler.draw_inset(rng)
        assert inset == tuple(values["box_inset"][number].tolist())
        top, left, *size = values["box_tlhw"][number].tolist()
        rectangle = draw_rectangle(shape, (top, left), tuple(size), inset)
        assert np.array_equal(rectangle, unpacked(values["box_bits"][number], shape))
        both = np.maximum(strokes, rectangle).mean()
        assert both == pytest.approx(values["ratio_combined"][number].item(), abs=1e-6)


def unpacked(bits: torch.Tensor, shape: tuple[int, ...]) -> np.ndarray:
    return np.unpackbits(bits.numpy())[: shape[0] * shape[1]].reshape(shape)


def test_the_mean_hole_ratio_is_the_released_samplers() -> None:
    mask, _ = FreeFormV2Mask()(400, 256, 256, generator=torch.Generator().manual_seed(0))
    assert mask.mean().item() == pytest.approx(0.307, abs=0.02)  # 0.3073 over the 64 golden masks
    assert set(mask.unique().tolist()) == {0, 1}


def test_strokes_reach_all_of_an_image_unless_the_fault_is_repeated() -> None:
    def reached(swap_sides: bool) -> float:
        rngs = (np.random.RandomState(seed) for seed in range(200))
        return float(np.mean([draw_strokes(rng, 96, 320, swap_sides=swap_sides)[:, 200:].any() for rng in rngs]))

    assert reached(swap_sides=False) > 0.5
    assert reached(swap_sides=True) == 0


def test_rectangles_keep_the_margin_and_a_box_as_large_as_the_image_fits() -> None:
    sampler = FreeFormV2Mask(box=32, margin=(8, 4), inset=0)
    tops = [np.random.RandomState(seed) for seed in range(50)]
    masks = np.stack([sampler._draw(rng, 48, 64) for rng in tops])
    assert masks.mean(axis=(1, 2)).min() >= 32 * 32 / (48 * 64)
    whole, _ = FreeFormV2Mask(box=16, inset=0)(1, 16, 16, generator=torch.Generator().manual_seed(1))
    assert whole.all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"inset": 128}, r"inset must be smaller than the box \(128, 128\)"), ({"box": 0}, "box must be at least 1")],
)
def test_settings_that_leave_no_hole_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FreeFormV2Mask(**settings)
