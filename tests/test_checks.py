from __future__ import annotations

import numpy as np
import pytest
import torch

from gicinpaint.checks import check_batch, check_image, check_like, check_mask, check_multiple, check_positions

IMAGE = torch.zeros(2, 3, 16, 24)
MASK = torch.zeros(2, 1, 16, 24)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 16, 24), r"image must be \(B, 3, H, W\), got \(3, 16, 24\); add the batch dimension with"),
        (torch.zeros(2, 16, 24, 3), r"image must be \(B, 3, H, W\), got \(2, 16, 24, 3\); put channels second"),
        (torch.zeros(2, 1, 16, 24), r"image must be \(B, 3, H, W\), got \(2, 1, 16, 24\); put channels second"),
        (torch.zeros(2, 3, 16, 24, dtype=torch.uint8), r"floating point in \[-1, 1\], got torch.uint8; convert 8-bit"),
        (torch.zeros(0, 3, 16, 24), r"at least one pixel, got \(0, 3, 16, 24\); skip empty batches"),
        (torch.zeros(2, 3, 16, 20), r"multiples of 8, got 16x20; pad it to 16x24 and crop the result"),
        (IMAGE + 255, r"image must lie in \[-1, 1\], got values from 255 to 255; convert 8-bit values"),
        (IMAGE - 1.01, r"image must lie in \[-1, 1\], got values from -1.01 to -1.01"),
    ],
)
def test_a_wrong_image_is_reported(image: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_image(image, multiple=8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_right_image_passes_in_every_floating_type(dtype: torch.dtype) -> None:
    check_image(torch.linspace(-1, 1, 3 * 16 * 24).reshape(1, 3, 16, 24).to(dtype), multiple=8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_type_other_than_the_weights_is_reported(dtype: torch.dtype) -> None:
    message = (
        rf"image must have the type of the weights, torch.float32, got {dtype}; convert it with .to\(torch.float32\)"
    )
    with pytest.raises(ValueError, match=message):
        check_image(IMAGE.to(dtype), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        check_image(IMAGE.to(dtype), dtype=torch.float32)
    check_image(IMAGE.to(dtype))


def test_resampling_overshoot_passes() -> None:
    check_image(IMAGE + 1.0005)


def test_any_channel_count_passes_where_none_is_expected() -> None:
    check_image(torch.zeros(1, 7, 3, 5), channels=None)
    with pytest.raises(ValueError, match=r"features must be \(B, C, H, W\), got \(7, 3, 5\)"):
        check_image(torch.zeros(7, 3, 5), "features", channels=None)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(2, 3, 16, 24), r"\(B, 1, H, W\) with 1 = hole, got \(2, 3, 16, 24\); pass one channel"),
        (torch.zeros(16, 24), r"\(B, 1, H, W\) with 1 = hole, got \(16, 24\); add dimensions with unsqueeze"),
        (MASK.to(torch.complex64), r"mask must be real, got torch.complex64; convert it with mask.real.float\(\)"),
        (torch.zeros(2, 1, 24, 16), r"image's height and width \(16, 24\), got \(24, 16\); resize it with mode='nea"),
        (torch.zeros(3, 1, 16, 24), r"mask must have batch size 2 or 1, got 3; pass one mask per image"),
        (MASK + 0.5, r"only 0 \(known\) and 1 \(hole\), got values from 0.5 to 0.5; threshold it"),
        ((MASK + 255).to(torch.uint8), r"got values from 255 to 255; threshold it, e.g. \(mask > 255\).float\(\)"),
        (torch.arange(16.0).reshape(1, 1, 16, 1).expand(2, 1, 16, 24) / 15, r"from 0 to 1; .* \(mask > 0.5\)"),
        (MASK - 1, r"got values from -1 to -1"),
        (MASK * torch.nan, r"got values from nan to nan"),
    ],
)
def test_a_wrong_mask_is_reported(mask: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_mask(mask, IMAGE)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64])
@pytest.mark.parametrize("value", [0, 1])
def test_a_binary_mask_passes_in_every_type(dtype: torch.dtype, value: int) -> None:
    check_mask(torch.full((2, 1, 16, 24), value).to(dtype), IMAGE)
    check_mask(torch.full((1, 1, 16, 24), value).to(dtype), IMAGE)


def test_what_is_no_tensor_is_reported_as_such() -> None:
    array = np.zeros((2, 3, 16, 24), np.float32)
    for check in (check_image, check_mask, check_batch):
        with pytest.raises(TypeError, match=r"must be a tensor \(B, .* got ndarray; call torch.as_tensor"):
            check(array)
    for pair in ((array, IMAGE), (IMAGE, array)):
        with pytest.raises(TypeError, match=r"must be a tensor .* got ndarray"):
            check_like(*pair, "prediction", "image")


@pytest.mark.parametrize(("height", "width", "padded"), [(15, 24, "16x24"), (16, 25, "16x32"), (1, 7, "8x8")])
def test_a_size_that_is_no_multiple_is_reported_with_the_next_one(height: int, width: int, padded: str) -> None:
    with pytest.raises(ValueError, match=rf"masked must be multiples of 8, got {height}x{width}; pad it to {padded}"):
        check_multiple(height, width, 8, "masked")


def test_two_different_shapes_are_reported() -> None:
    message = r"prediction must have the shape of image, \(2, 3, 16, 24\), got \(2, 1, 16, 24\); pass two tensors"
    with pytest.raises(ValueError, match=message):
        check_like(MASK, IMAGE, "prediction", "image")


def test_a_batch_without_its_dimension_is_reported() -> None:
    with pytest.raises(ValueError, match=r"image must be \(B, C, H, W\), got \(3, 16, 24\); add the batch dimension"):
        check_batch(IMAGE[0])


@pytest.mark.parametrize("position", [[-1, 3], [0, 9]])
def test_a_position_outside_is_reported(position: list[int]) -> None:
    low, high = position
    with pytest.raises(ValueError, match=rf"box.top must lie in 0..8 .* from {low} to {high}; clamp"):
        check_positions(torch.tensor(position), 8, "box.top")


def test_values_are_not_read_under_a_compiler_or_off_the_cpu() -> None:
    check_image(torch.full((1, 3, 8, 8), 9.0, device="meta"))
    check_mask(torch.full((1, 1, 8, 8), 9.0, device="meta"))
    traced = torch.compile(_checked, fullgraph=True, backend="eager")
    assert torch.equal(traced(torch.full((1, 3, 8, 8), 9.0)), torch.full((1, 3, 8, 8), 10.0))


def _checked(image: torch.Tensor) -> torch.Tensor:
    check_image(image)
    return image + 1
