"""LPIPS and FID with small generated weights, against slow computations of the published formulas."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from scipy.signal import correlate2d
from torch import Tensor

from gicinpaint.metrics import FID, LPIPS, evaluation_metrics
from models import save_alex, save_inception

Array = NDArray[np.float64]
VGG_CHANNELS = dict(zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), (2, 2, 3, 3, *(4,) * 9), strict=True))


def slow_conv(x: Array, weight: Array, bias: Array, stride: int, padding: int) -> Array:
    wide = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    planes = [sum(correlate2d(c, k, "valid") for c, k in zip(wide, kernel, strict=True)) for kernel in weight]
    return np.maximum(np.stack(planes)[:, ::stride, ::stride] + bias[:, None, None], 0)


def slow_pool(x: Array) -> Array:
    rows, columns = ((size - 3) // 2 + 1 for size in x.shape[1:])
    windows = [[x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2)) for j in range(columns)] for i in range(rows)]
    return np.array(windows).transpose(2, 0, 1)


def slow_features(image: Array, state: dict[str, Tensor]) -> list[Array]:
    x = (image - np.array([-0.030, -0.088, -0.188])[:, None, None]) / np.array([0.458, 0.448, 0.450])[:, None, None]
    found = []
    for name, (stride, padding) in {"0": (4, 2), "3": (1, 2), "6": (1, 1), "8": (1, 1), "10": (1, 1)}.items():
        x = slow_pool(x) if name in ("3", "6") else x
        weight, bias = (state[f"features.{name}.{end}"].double().numpy() for end in ("weight", "bias"))
        x = slow_conv(x, weight, bias, stride, padding)
        found.append(x)
    return found


def slow_lpips(prediction: Array, image: Array, weights: Path, heads: Path) -> float:
    state, lins = torch.load(weights, weights_only=True), torch.load(heads, weights_only=True)
    total = 0.0
    for number, pair in enumerate(zip(slow_features(prediction, state), slow_features(image, state), strict=True)):
        a, b = (x / (np.sqrt((x**2).sum(0, keepdims=True)) + 1e-10) for x in pair)
        head = lins[f"lin{number}.model.1.weight"].double().numpy().reshape(-1, 1, 1)
        total += ((a - b) ** 2 * head).sum(0).mean()
    return total


def case(b: int = 3, size: int = 48) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    prediction, image = (torch.rand(b, 3, size, size, generator=random) * 2 - 1 for _ in range(2))
    return prediction, image, torch.ones(b, 1, size, size)


def test_lpips_equals_the_formula_computed_slowly(tmp_path: Path) -> None:
    weights, heads = save_alex(tmp_path)
    prediction, image, region = case()
    metric = LPIPS(weights, heads)
    metric.update(prediction[:2], image[:2], region[:2])
    metric.update(prediction[2:], image[2:], region[2:])
    pairs = zip(prediction.double().numpy(), image.double().numpy(), strict=True)
    expected = np.mean([slow_lpips(p, t, weights, heads) for p, t in pairs])
    assert metric.compute().item() == pytest.approx(expected, rel=1e-4)  # the network runs in float32
    metric.reset()
    metric.update(image, image, region)
    assert metric.compute().item() == 0


def test_lpips_knows_vgg_by_its_keys_and_pools_four_times(tmp_path: Path) -> None:
    """With weights that pass the first channel on, the deepest features of a flat image are that channel's value."""
    state, before = {}, 3
    for name, after in VGG_CHANNELS.items():
        kernel = torch.zeros(after, before, 3, 3)
        kernel[0, 0, 1, 1] = 1
        state |= {f"features.{name}.weight": kernel, f"features.{name}.bias": torch.zeros(after)}
        before = after
    heads = {f"lin{i}.model.1.weight": torch.ones(1, c, 1, 1) for i, c in enumerate((2, 3, 4, 4, 4))}
    torch.save(state, tmp_path / "vgg.pth")
    torch.save(heads, tmp_path / "heads.pth")
    metric = LPIPS(tmp_path / "vgg.pth", tmp_path / "heads.pth")
    image = torch.ones(1, 3, 32, 32)
    features = metric._features((image + 1) / 2)
    assert [tuple(x.shape[1:]) for x in features] == [(2, 32, 32), (3, 16, 16), (4, 8, 8), (4, 4, 4), (4, 2, 2)]
    torch.testing.assert_close(features[-1][0, 0], torch.full((2, 2), (1 + 0.030) / 0.458))


def test_the_published_heads_come_with_torchmetrics(tmp_path: Path) -> None:
    """A network of AlexNet's real widths takes them."""
    widths = {"0": (3, 64, 11), "3": (64, 192, 5), "6": (192, 384, 3), "8": (384, 256, 3), "10": (256, 256, 3)}
    state = {f"features.{n}.weight": torch.randn(a, b, s, s) / s**2 / b**0.5 for n, (b, a, s) in widths.items()}
    state |= {f"features.{n}.bias": torch.zeros(a) for n, (_, a, _) in widths.items()}
    torch.save(state, tmp_path / "alex.pth")
    metric = LPIPS(tmp_path / "alex.pth")
    metric.update(*case(1))
    assert metric.compute().item() > 0


pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # the published network has this format


def slow_features_of_sets(images: Tensor) -> Array:
    levels = np.round((images.double().numpy() + 1) * 127.5) / 255
    half = levels.shape[-1] // 2
    quarters = [levels[..., i : i + half, j : j + half].mean((2, 3)) for i in (0, half) for j in (0, half)]
    return np.stack(quarters, axis=2).reshape(len(levels), -1)


def test_fid_equals_the_formula_for_any_split_into_batches(tmp_path: Path) -> None:
    prediction, image, region = case(40, 8)
    prediction = 0.5 * prediction + 0.3
    for sizes in ([40], [3, 30, 7]):
        metric = FID(save_inception(tmp_path))
        for batch in zip(*(x.split(sizes) for x in (prediction, image, region)), strict=True):
            metric.update(*batch)
        a, b = slow_features_of_sets(image), slow_features_of_sets(prediction)
        mean = ((a.mean(0) - b.mean(0)) ** 2).sum()
        cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
        expected = mean + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
        assert metric.compute().item() == pytest.approx(expected, rel=1e-4)


def test_fid_of_one_image_is_no_number(tmp_path: Path) -> None:
    metric = FID(save_inception(tmp_path))
    metric.update(*case(1, 16))
    assert metric.compute().isnan()


def test_perceptual_columns_are_there_when_weights_are_given(tmp_path: Path) -> None:
    full = evaluation_metrics(fid=save_inception(tmp_path))
    assert "fid" in full
    assert "lpips" not in full


def test_columns_of_other_weights_are_told_apart_when_printed(tmp_path: Path) -> None:
    """An interrupted evaluation must not continue with other weights."""
    weights, heads = save_alex(tmp_path)
    before = repr(LPIPS(weights, heads))
    assert repr(LPIPS(weights, heads)) == before
    state = torch.load(weights, weights_only=True)
    torch.save({name: value + 1 for name, value in state.items()}, weights)
    assert repr(LPIPS(weights, heads)) != before
    assert "sha256=" in repr(FID(save_inception(tmp_path)))


@pytest.mark.parametrize("make", [LPIPS, FID])
def test_absent_and_foreign_weights_are_reported(make: type[LPIPS] | type[FID], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such file; get"):
        make(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match=r"text\.pth must hold"):
        make(tmp_path / "text.pth")


def test_weights_of_another_network_are_reported(tmp_path: Path) -> None:
    weights, heads = save_alex(tmp_path)
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth must hold features\.0\.weight, .* got no features\.0\.weight"):
        LPIPS(tmp_path / "other.pth", heads)
    with pytest.raises(ValueError, match="the network and the heads of LPIPS do not fit each other"):
        LPIPS(weights)  # the published heads are wider
    with pytest.raises(ValueError, match="LPIPS needs images of at least 32x32, got 24x24"):
        LPIPS(weights, heads).update(*case(1, 24))
