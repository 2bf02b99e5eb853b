"""Crops: the size asked for, from any size, at the right place and scale."""

import numpy as np
import pytest
import torch
from PIL import Image

from gicinpaint.data import CenterCropResize, RandomCrop, RandomScaleCrop, RepeatedCrop, ResizeThenCrop


def test_a_random_crop_keeps_the_scale_and_reaches_every_corner():
    pixels = np.arange(20, dtype=np.uint8).reshape(4, 5)
    image = Image.fromarray(np.repeat(pixels[..., None], 3, axis=2))
    generator = torch.Generator().manual_seed(0)
    windows = {np.asarray(RandomCrop()(image, 3, 3, generator))[..., 0].tobytes() for _ in range(200)}
    assert windows == {pixels[y : y + 3, x : x + 3].tobytes() for y in range(2) for x in range(3)}


@pytest.mark.parametrize("size", [(8, 8), (21, 8), (8, 13), (31, 17)])
def test_kornia_cuts_the_pixels_that_pillow_cuts(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for seed in range(20):
        one, other = (
            np.asarray(RandomCrop(cut=cut)(Image.fromarray(pixels), 8, 5, torch.Generator().manual_seed(seed)))
            for cut in ("pillow", "kornia")
        )
        assert other.shape == (8, 5, 3)
        assert np.array_equal(one, other)


def test_an_unknown_way_to_cut_is_refused():
    with pytest.raises(ValueError, match="cut must be pillow or kornia, got opencv"):
        RandomCrop(cut="opencv")


CROPS = [
    RandomCrop(True),
    RandomCrop(True, cut="kornia"),
    RandomScaleCrop(0.4, True),
    RepeatedCrop(RandomCrop(True), 1.0),
    ResizeThenCrop(),
    CenterCropResize(),
]


@pytest.mark.parametrize("crop", CROPS)
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


def test_a_repeated_part_lies_again_at_its_period_and_is_a_part_of_the_image():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    crop = RepeatedCrop(RandomCrop(), probability=1.0, smallest=0.25, largest=0.25)
    for seed in range(20):
        found = np.asarray(crop(Image.fromarray(pixels), 32, 24, torch.Generator().manual_seed(seed)))
        np.testing.assert_array_equal(found[8:], found[:-8])  # a quarter of 32 and of 24
        np.testing.assert_array_equal(found[:, 6:], found[:, :-6])
        part = {tuple(pixel) for pixel in found.reshape(-1, 3)}
        assert len(part) == 48
        assert part <= {tuple(pixel) for pixel in pixels.reshape(-1, 3)}


def test_the_share_of_repeated_windows_is_the_probability_and_the_rest_are_the_other_crops():
    pixels = np.random.default_rng(1).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    crop = RepeatedCrop(RandomCrop(), probability=0.3, smallest=0.5, largest=0.5)
    windows = [np.asarray(crop(Image.fromarray(pixels), 8, 8, torch.Generator().manual_seed(i))) for i in range(1000)]
    repeated = [bool((window[4:] == window[:4]).all()) for window in windows]
    assert 250 < sum(repeated) < 350  # 300 and 3.5 standard deviations
    all_windows = {pixels[y : y + 8, x : x + 8].tobytes() for y in range(13) for x in range(13)}
    assert {window.tobytes() for window, r in zip(windows, repeated, strict=True) if not r} <= all_windows


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probability": 1.5}, "probability must lie in"),
        ({"smallest": 0.0}, "smallest and largest must be shares"),
        ({"smallest": 0.6, "largest": 0.5}, "smallest and largest must be shares"),
        ({"largest": 1.1}, "smallest and largest must be shares"),
    ],
)
def test_wrong_settings_of_repetition_are_reported(settings, message):
    with pytest.raises(ValueError, match=message):
        RepeatedCrop(RandomCrop(), **settings)
