from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import golden
from gicinpaint.attention.layer import nearest_index, resize_nearest
from gicinpaint.models.layers import Convolution, Upsample, mirror_pad

TABLES = golden.load("nearest_resize_tables.npz")


def _slow_convolution(
    x: NDArray[np.float64], weight: NDArray[np.float64], stride: int, dilation: int, padding: str
) -> NDArray[np.float64]:
    """Return the convolution of one image, tap by tap, reading outside pixels as the padding defines them."""
    (_, h, w), (c_out, _, k, _) = x.shape, weight.shape
    reach = (k - 1) * dilation

    def before(size: int) -> int:
        if padding == "mirror":
            return reach // 2
        return max((-(-size // stride) - 1) * stride + reach + 1 - size, 0) // 2

    def pixel(row: int, column: int) -> NDArray[np.float64]:
        if padding == "zeros" and not (0 <= row < h and 0 <= column < w):
            return np.zeros(x.shape[0])
        while not 0 <= row < h:
            row = -1 - row if row < 0 else 2 * h - 1 - row
        while not 0 <= column < w:
            column = -1 - column if column < 0 else 2 * w - 1 - column
        return x[:, row, column]

    out = np.zeros((c_out, -(-h // stride), -(-w // stride)))
    for i, j in np.ndindex(out.shape[1:]):
        for u, v in np.ndindex(k, k):
            row, column = i * stride - before(h) + u * dilation, j * stride - before(w) + v * dilation
            out[:, i, j] += weight[:, :, u, v] @ pixel(row, column)
    return out


@pytest.mark.parametrize("padding", ["zeros", "mirror"])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (8, 7), (1, 2), (5, 12)])
@pytest.mark.parametrize(("kernel_size", "stride", "dilation"), [(3, 1, 1), (5, 1, 1), (3, 2, 1), (5, 2, 1), (3, 1, 4)])
def test_convolution_equals_a_loop_over_every_tap(
    padding: str, size: tuple[int, int], kernel_size: int, stride: int, dilation: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = Convolution(2, 3, kernel_size, stride, dilation, padding).double()
    x = torch.randn(2, 2, *size, dtype=torch.float64, generator=generator)
    nn.init.normal_(layer.bias, generator=generator)
    expected = np.stack(
        [_slow_convolution(image, layer.weight.detach().numpy(), stride, dilation, padding) for image in x.numpy()]
    )
    expected += layer.bias.detach().numpy()[:, None, None]
    torch.testing.assert_close(layer(x).detach(), torch.from_numpy(expected), atol=1e-12, rtol=0)


def test_convolution_applies_its_activation_last() -> None:
    layer = Convolution(1, 1, activation=nn.ReLU())
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, -1.0)
    assert torch.equal(layer(torch.zeros(1, 1, 4, 4)), torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 3)])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (3, 1, 4), (5, 2, 1), (3, 2, 1)])
def test_a_convolution_takes_a_gradient_back_as_autograd_does(
    size: tuple[int, int], kernel: int, stride: int, dilation: int
) -> None:
    layer = Convolution(2, 3, kernel, stride, dilation).double()
    x = torch.rand(2, 2, *size, dtype=torch.float64, requires_grad=True)
    result = layer(x)
    gradient = torch.rand(result.shape, dtype=torch.float64)
    result.backward(gradient)
    torch.testing.assert_close(layer.input_gradient(gradient, size), x.grad, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="input_gradient needs a convolution padded with 'zeros', got another"):
        Convolution(2, 3, kernel, stride, dilation, padding="mirror").input_gradient(gradient, size)
    with pytest.raises(ValueError, match="input_gradient needs a stride within the kernel's span, got 4"):
        Convolution(2, 3, kernel_size=3, stride=4).input_gradient(gradient, size)


def test_weights_start_glorot_uniform_and_biases_at_zero() -> None:
    layer = Convolution(16, 64, kernel_size=5)
    bound = (6 / (25 * (16 + 64))) ** 0.5  # Glorot and Bengio 2010, equation 16
    assert layer.weight.abs().max() <= bound
    assert abs(float(layer.weight.detach().std()) - bound / 3**0.5) < 0.01 * bound
    assert torch.equal(layer.bias, torch.zeros(64))


def test_an_unknown_padding_is_reported() -> None:
    with pytest.raises(
        ValueError, match=r"padding must be 'zeros', 'mirror' or 'centered', got 'reflect'; .*SYMMETRIC"
    ):
        Convolution(1, 1, padding="reflect")


@pytest.mark.parametrize("padding", ["zeros", "mirror"])
def test_upsample_convolves_the_image_with_every_pixel_repeated(padding: str) -> None:
    layer = Upsample(2, 3, padding).double()
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    repeated = x[0].numpy().repeat(2, axis=1).repeat(2, axis=2)
    expected = _slow_convolution(repeated, layer.convolution.weight.detach().numpy(), 1, 1, padding)
    torch.testing.assert_close(layer(x)[0].detach(), torch.from_numpy(expected), atol=1e-12, rtol=0)


@pytest.mark.parametrize("amounts", [(0, 0, 0, 0), (1, 2, 3, 0), (4, 5, 3, 3), (9, 13, 8, 11)])
def test_mirror_padding_equals_numpys_symmetric_padding(amounts: tuple[int, int, int, int]) -> None:
    x = torch.arange(24.0).reshape(1, 2, 3, 4)
    left, right, top, bottom = amounts
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (top, bottom), (left, right)), mode="symmetric")
    assert torch.equal(mirror_pad(x, amounts), torch.from_numpy(expected))


@pytest.mark.parametrize("name", sorted(name for name in TABLES if name.startswith("in")))
def test_nearest_index_equals_the_golden_table(name: str) -> None:
    size_in, size_out = (int(part) for part in name.removeprefix("in").split("_out"))
    assert nearest_index(size_in, size_out) == TABLES[name].tolist()


def test_nearest_resize_reads_rows_and_columns_of_the_golden_tables() -> None:
    x = torch.randn(2, 3, 18, 43, generator=torch.Generator().manual_seed(0))
    expected = x[:, :, TABLES["in18_out9"].long()][..., TABLES["in43_out21"].long()]
    assert torch.equal(resize_nearest(x, (9, 21)), expected)
    assert torch.equal(resize_nearest(x, (18, 21)), x[..., TABLES["in43_out21"].long()])
    assert torch.equal(resize_nearest(x, (18, 43)), x)


def test_nearest_resize_to_the_double_repeats_every_pixel() -> None:
    x = torch.randn(1, 1, 5, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resize_nearest(x, (10, 24)), x.repeat_interleave(2, -2).repeat_interleave(2, -1))


def test_nearest_resize_passes_the_gradient_to_the_pixels_it_reads() -> None:
    x = torch.zeros(1, 1, 1, 8, requires_grad=True)
    resize_nearest(x, (1, 4)).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [1, 0, 1, 0, 0, 1, 0, 1]  # of the golden table in8_out4: 0, 2, 5, 7
