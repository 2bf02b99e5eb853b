"""Changes of colour keep the image's structure and range; expected values come from what each change means."""

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from gicinpaint.data import ColorJitter, InpaintingDataset, RandomCrop
from gicinpaint.data.sources import ImageSource
from gicinpaint.masks import RectangleMask

OFF = {"grey": 0.0, "shuffle": 0.0, "contrast": 0.0, "negative": 0.0}
IMAGE = torch.rand(3, 6, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1


def vary(seed=0, **switched_on):
    return ColorJitter(**{**OFF, **switched_on})(IMAGE, torch.Generator().manual_seed(seed))


def test_nothing_changes_when_all_is_off():
    assert_close(vary(), IMAGE, rtol=0, atol=0)


def test_grey_images_have_three_equal_channels_of_the_same_mean():
    assert_close(vary(grey=1.0), torch.stack([IMAGE.mean(0)] * 3))


def test_shuffled_channels_are_the_same_channels_and_every_order_comes():
    orders = {
        tuple(next(i for i in range(3) if (c == IMAGE[i]).all()) for c in vary(s, shuffle=1.0)) for s in range(60)
    }
    assert len(orders) == 6


def test_negatives_are_the_image_upside_down_in_value():
    assert_close(vary(negative=1.0), -IMAGE, rtol=0, atol=0)


def test_contrast_scales_all_channels_alike_moves_each_and_stays_in_range():
    scales = []
    for seed in range(50):
        varied = vary(seed, contrast=0.8)
        spread = (varied.amax((1, 2)) - varied.amin((1, 2))) / (IMAGE.amax((1, 2)) - IMAGE.amin((1, 2)))
        assert_close(spread, spread[:1].expand(3))
        assert varied.abs().max() <= 1
        scales.append(spread[0].item())
    assert 0.2 <= min(scales) < 0.3
    assert 0.9 < max(scales) <= 1.0


@pytest.mark.parametrize("seed", range(8))
def test_kornia_changes_colours_to_the_bit_as_the_arithmetic_says(seed):
    generator = torch.Generator().manual_seed(seed)
    share, order = torch.rand(4, generator=generator)[2].item(), torch.randperm(3, generator=generator).tolist()
    centre = torch.rand(3, 1, 1, generator=generator) * 2 - 1
    kept = 1 - 0.5 * share
    grey, shuffled = IMAGE.mean(0, keepdim=True).expand_as(IMAGE), torch.stack([IMAGE[channel] for channel in order])
    everything = vary(seed, grey=1.0, shuffle=1.0, contrast=0.5, negative=1.0)
    assert_close(everything, -(kept * grey + (1 - kept) * centre), rtol=0, atol=0)
    assert_close(vary(seed, shuffle=1.0, contrast=0.5), kept * shuffled + (1 - kept) * centre, rtol=0, atol=0)


def test_probabilities_are_met():
    grey = sum((v := vary(seed, grey=0.3))[0].equal(v[1]) for seed in range(1000))
    assert 250 < grey < 350  # 300 expected, 14.5 one standard deviation


@pytest.mark.parametrize("wrong", [{"grey": 1.5}, {"shuffle": -0.1}, {"contrast": 1.0}, {"negative": 2}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a"):
        ColorJitter(**wrong)


class Gradient(ImageSource):
    def __len__(self):
        return 4

    def read(self, index):
        return Image.radial_gradient("L").convert("RGB").rotate(10 * index)

    def name(self, index):
        return str(index)


def test_colours_leave_crops_and_flips_as_they_were():
    mask = RectangleMask(box=(8, 8), inset=(0, 0))
    settings = {"height": 32, "width": 32, "seed": 5}
    plain = InpaintingDataset(Gradient(), RandomCrop(), mask, **settings)
    negative = InpaintingDataset(
        Gradient(), RandomCrop(), mask, **settings, color_augment=ColorJitter(**{**OFF, "negative": 1.0})
    )
    for index in range(4):
        assert_close(negative.read(3, index), -plain.read(3, index), rtol=0, atol=0)
        assert negative.read(3, index).equal(negative.read(3, index))
