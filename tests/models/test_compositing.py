from __future__ import annotations

import pytest
import torch

from gicinpaint.models.compositing import Box, composite, crop_box, fill_with_mean, mask_out


def _image(b: int = 3, h: int = 5, w: int = 7, seed: int = 0) -> torch.Tensor:
    return torch.rand(b, 3, h, w, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _mask(b: int = 3, h: int = 5, w: int = 7) -> torch.Tensor:
    return (torch.rand(b, 1, h, w, generator=torch.Generator().manual_seed(9)) < 0.4).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int64])
def test_the_hole_becomes_zero_and_the_known_pixels_stay(dtype: torch.dtype) -> None:
    image, mask = _image(), _mask()
    masked = mask_out(image, mask.to(dtype))
    hole = mask.bool().expand_as(image)
    assert torch.equal(masked[hole], torch.zeros_like(masked[hole]))
    assert torch.equal(masked[~hole], image[~hole])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int64])
def test_the_composite_takes_the_hole_from_the_prediction_and_the_rest_from_the_image(dtype: torch.dtype) -> None:
    image, prediction, mask = _image(), _image(seed=1), _mask()
    hole = mask.bool().expand_as(image)
    assert torch.equal(composite(image, prediction, mask.to(dtype)), torch.where(hole, prediction, image))


def test_one_mask_serves_a_batch() -> None:
    image, prediction, mask = _image(), _image(seed=1), _mask(b=1)
    assert torch.equal(composite(image, prediction, mask), composite(image, prediction, mask.expand(3, 1, 5, 7)))
    assert torch.equal(mask_out(image, mask), mask_out(image, mask.expand(3, 1, 5, 7)))


@pytest.mark.parametrize(("value", "picked"), [(0.0, 0), (1.0, 1)])
def test_an_empty_hole_keeps_the_image_and_a_full_one_the_prediction(value: float, picked: int) -> None:
    image, prediction = _image(), _image(seed=1)
    assert torch.equal(composite(image, prediction, torch.full((1, 1, 5, 7), value)), (image, prediction)[picked])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_type_of_the_image_is_kept(dtype: torch.dtype) -> None:
    image = _image().to(dtype)
    assert mask_out(image, _mask()).dtype == dtype
    assert composite(image, image, _mask()).dtype == dtype


@pytest.mark.parametrize(
    ("image", "prediction", "mask", "message"),
    [
        (
            _image(),
            _image(b=2),
            _mask(),
            r"prediction must have the shape of image, \(3, 3, 5, 7\), got \(2, 3",
        ),
        (_image(), _image(h=6), _mask(), r"prediction must have the shape of image"),
        (_image(), _image(), _mask(h=6), r"mask must have the image's height and width \(5, 7\), got \(6, 7\)"),
        (_image(), _image(), _mask(b=2), r"mask must have batch size 3 or 1, got 2"),
        (_image(), _image(), _mask() * 255, r"mask must hold only 0 \(known\) and 1 \(hole\)"),
    ],
)
def test_a_composite_of_what_does_not_fit_is_reported(
    image: torch.Tensor, prediction: torch.Tensor, mask: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        composite(image, prediction, mask)


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (_image()[0], _mask(), r"image must be \(B, C, H, W\), got \(3, 5, 7\)"),
        (_image() * 127, _mask(), r"image must lie in \[-1, 1\]"),
        (_image(), _mask() - 1, r"mask must hold only 0"),
        (_image(), _mask(w=8), r"mask must have the image's height and width"),
    ],
)
def test_masking_out_what_does_not_fit_is_reported(image: torch.Tensor, mask: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mask_out(image, mask)


TOP, LEFT = torch.tensor([0, 2, 1]), torch.tensor([4, 0, 2])


def test_a_crop_equals_each_images_slice() -> None:
    image = _image()
    crops = crop_box(image, Box(TOP, LEFT, 3, 2))
    assert crops.shape == (3, 3, 3, 2)
    for crop, whole, top, left in zip(crops, image, TOP.tolist(), LEFT.tolist(), strict=True):
        assert torch.equal(crop, whole[:, top : top + 3, left : left + 2])


def test_a_box_as_large_as_the_image_returns_the_image() -> None:
    image = _image()
    assert torch.equal(crop_box(image, Box(torch.zeros(3, dtype=int), torch.zeros(3, dtype=int), 5, 7)), image)


def test_a_box_of_one_pixel_returns_each_images_pixel() -> None:
    image = _image()
    assert torch.equal(crop_box(image, Box(TOP, LEFT, 1, 1))[..., 0, 0], image[torch.arange(3), :, TOP, LEFT])


def test_the_gradient_of_a_crop_reaches_the_pixels_inside_only() -> None:
    image = _image().double().requires_grad_()
    weight = torch.randn(3, 3, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    (crop_box(image, Box(TOP, LEFT, 3, 2)) * weight).sum().backward()
    expected = torch.zeros_like(image)
    for i, (top, left) in enumerate(zip(TOP.tolist(), LEFT.tolist(), strict=True)):
        expected[i, :, top : top + 3, left : left + 2] = weight[i]
    assert image.grad is not None
    assert torch.equal(image.grad, expected.detach())


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (Box(TOP[:2], LEFT, 3, 2), r"box must hold one rectangle per image \(3\), got 2 tops and 3 lefts; sample"),
        (Box(TOP, LEFT[:1], 3, 2), r"got 3 tops and 1 lefts"),
        (Box(TOP, LEFT, 6, 2), r"box must fit the image 5x7, got 6x2; choose a smaller box"),
        (Box(TOP, LEFT, 3, 8), r"box must fit the image 5x7, got 3x8"),
        (Box(TOP, LEFT, 0, 2), r"box must fit the image 5x7, got 0x2"),
        (Box(TOP + 1, LEFT, 3, 2), r"box.top must lie in 0..2 .* got values from 1 to 3; clamp"),
        (Box(TOP - 1, LEFT, 3, 2), r"box.top must lie in 0..2 .* got values from -1 to 1"),
        (Box(TOP, LEFT + 2, 3, 2), r"box.left must lie in 0..5 .* got values from 2 to 6"),
    ],
)
def test_a_box_that_does_not_fit_is_reported(box: Box, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        crop_box(_image(), box)


def test_a_crop_of_an_image_without_batch_is_reported() -> None:
    with pytest.raises(ValueError, match=r"image must be \(B, C, H, W\), got \(3, 5, 7\)"):
        crop_box(_image()[0], Box(TOP, LEFT, 3, 2))


def test_the_mean_fill_uses_each_images_known_pixels_only() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 4, 5, generator=generator) * 2 - 1
    mask = (torch.rand(2, 1, 4, 5, generator=generator) > 0.5).float()
    filled = fill_with_mean(image, mask)
    for i in range(2):
        for c in range(3):
            known = [image[i, c, y, x].item() for y in range(4) for x in range(5) if mask[i, 0, y, x] == 0]
            for y in range(4):
                for x in range(5):
                    expected = sum(known) / len(known) if mask[i, 0, y, x] else image[i, c, y, x].item()
                    assert filled[i, c, y, x].item() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(fill_with_mean(image, torch.ones_like(mask)), torch.zeros_like(image))
