"""Crops: the size asked for, from any size, at the right place and scale."""

import numpy as np
import pytest
import torch
from PIL import Image

from gicinpaint.data import CenterCropResize, RandomCrop, RandomScaleCrop, ResizeThenCrop


def test_a_random_crop_keeps_the_scale_and_reaches_every_corner():
    pixels = np.arange(20, dtype=np.uint8).reshape(4, 5)
    image = Image.fromarray(np.repeat(pixels[..., None], 3, axis=2))
    generator = torch.Generator().manual_seed(0)
    windows = {np.asarray(RandomCrop()(image, 3, 3, generator))[..., 0].tobytes() for _ in range(200)}
    assert windows == {pixels[y : y + 3, x : x + 3].tobytes() for y in range(2) for x in range(3)}


@pytest.mark.parametrize("crop", [RandomCrop(True), RandomScaleCrop(0.4, True), ResizeThenCrop(), CenterCropResize()])
@pytest.mark.parametrize("size", [(20, 90), (90, 20), (64, 64), (33, 32), (7, 5)])
def test_every_crop_gives_the_size_asked_for(crop, size):
    image = Image.new("RGB", size, (10, 20, 30))
    for seed in range(5):
        result = crop(image, 32, 24, torch.Generator().manual_seed(seed))
        assert result.size == (24, 32)
        assert result.getpixel((11, 15)) == (10, 20, 30)


def test_the_centred_crop_drops_the_same_on_both_sides():
    pixels = np.zeros((218, 178, 3), np.uint8)
    pixels[:20] = pixels[-20:] = 255  # CelebA's size: 20 rows above and below the centred square of 178
    result = CenterCropResize()(Image.fromarray(pixels), 178, 178, torch.Generator())
    assert result.size == (178, 178)
    assert not np.asarray(result).any()
