"""The published example inputs, where a checkout lies beside them, and generated ones of their sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gicinpaint import Generator, Inpainter
from pictures_of_every_kind import draw

EXAMPLES = Path(__file__).parents[3] / "shared" / "data" / "examples"
INPUTS = sorted(path for path in EXAMPLES.rglob("*.png") if path.stem.endswith(("_input", "_raw")))


@pytest.fixture(scope="module")
def inpainter() -> Inpainter:
    torch.manual_seed(0)
    return Inpainter(Generator(2), device="cpu")


@pytest.mark.parametrize("size", [(680, 512), (256, 256), (512, 680), (679, 511)], ids=str)  # width x height
def test_pictures_of_published_sizes_keep_size_and_known_pixels(inpainter: Inpainter, size: tuple[int, int]) -> None:
    image, mask = draw("RGB", size[1], size[0], 1), np.zeros(size[::-1], bool)
    mask[100:200, 60:180] = mask[10:30, 200:240] = True
    filled = inpainter.fill(image, mask)
    assert filled.method in ("whole image", "around the holes only")
    assert filled.image.size == size
    assert filled.offset.shape == (2, -(-size[1] // 8), -(-size[0] // 8))
    np.testing.assert_array_equal(np.array(filled.image)[~mask], np.array(image)[~mask])


@pytest.mark.skipif(not INPUTS, reason="needs ../shared/data/examples, photographs that are not shipped")
@pytest.mark.parametrize("path", INPUTS, ids=[str(path.relative_to(EXAMPLES)) for path in INPUTS])
def test_published_examples_run_at_their_sizes(inpainter: Inpainter, path: Path) -> None:
    image = Image.open(path)
    own = path.with_stem(path.stem.replace("_input", "_mask").replace("_raw", "_mask"))
    mask = Image.open(own if own.exists() else EXAMPLES / "deepfill_v1" / "center_mask_256.png")
    filled = inpainter(image, mask)
    assert (filled.size, filled.mode) == (image.size, image.mode)
    known = np.array(mask.convert("L")) <= 127
    np.testing.assert_array_equal(np.array(filled)[known], np.array(image)[known])
    assert not np.array_equal(np.array(filled)[~known], np.array(image)[~known])
