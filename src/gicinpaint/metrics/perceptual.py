"""LPIPS and FID: distances in the features of networks that learned to classify images."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchmetrics
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.image.fid import FrechetInceptionDistance

from gicinpaint.checks import check_image, check_like
from gicinpaint.config.atomic_files import sha256
from gicinpaint.metrics.region import RegionMetric

_SHIFT = (-0.030, -0.088, -0.188)  # mean and spread of photographs in [-1, 1], as LPIPS was trained with
_SCALE = (0.458, 0.448, 0.450)
_EPSILON = 1e-10  # of the published LPIPS


class _Layer(NamedTuple):
    """A convolution with ReLU, by its key in torchvision's files."""

    key: str
    stride: int = 1
    padding: int = 1
    pool: int = 0  # window of a max-pooling with stride 2 before it; 0 is none
    output: bool = False


_NETWORKS = {
    "alex": (
        _Layer("features.0", stride=4, padding=2, output=True),
        _Layer("features.3", padding=2, pool=3, output=True),
        _Layer("features.6", pool=3, output=True),
        _Layer("features.8", output=True),
        _Layer("features.10", output=True),
    ),
    "vgg": (
        _Layer("features.0"),
        _Layer("features.2", output=True),
        _Layer("features.5", pool=2),
        _Layer("features.7", output=True),
        _Layer("features.10", pool=2),
        _Layer("features.12"),
        _Layer("features.14", output=True),
        _Layer("features.17", pool=2),
        _Layer("features.19"),
        _Layer("features.21", output=True),
        _Layer("features.24", pool=2),
        _Layer("features.26"),
        _Layer("features.28", output=True),
    ),
}


class LPIPS(RegionMetric):
    """Learned perceptual distance of the whole image, averaged over images; smaller is closer.

    Nothing is downloaded. `weights` is torchvision's file of AlexNet (alexnet-owt-7be5be79.pth) or VGG16
    (vgg16-397923af.pth); which of them it is shows in its keys. The small heads come with torchmetrics.

    Args:
        weights: State dict of the network, as torchvision publishes it.
        heads: State dict of the heads, `lin0.model.1.weight` to `lin4.model.1.weight`. Default: the published ones.

    Raises:
        FileNotFoundError: If a file is absent.
        ValueError: If a file does not hold these weights, or, when called, an image is too small for the network.

    Source:
        Zhang et al. 2018, version 0.1.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: str | Path, heads: str | Path | None = None) -> None:
        super().__init__(everywhere=True)
        self.identity = file_hash(weights)
        state = _read(weights, "weights of AlexNet or VGG16 in torchvision's format")
        network = "vgg" if "features.28.weight" in state else "alex"
        self.layers = _NETWORKS[network]
        self._register(state, [layer.key + end for layer in self.layers for end in (".weight", ".bias")], weights)
        heads = _published_heads(network) if heads is None else heads
        names = [f"lin{number}.model.1.weight" for number in range(5)]
        self._register(_read(heads, "the heads of LPIPS"), names, heads)
        self.head_names = [_buffer_name(name) for name in names]
        self._check_chain()
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None])

    def extra_repr(self) -> str:
        """Tell the weights from others, where a metric is printed or compared."""
        return self.identity

    def measure(self, prediction: Tensor, image: Tensor, region: Tensor) -> Tensor:
        """Return the distance of each pair."""
        pairs = zip(self._features(prediction), self._features(image), self.head_names, strict=True)
        distance = image.new_zeros(image.shape[0])
        for left, right, head in pairs:
            weighted = F.conv2d((_unit_length(left) - _unit_length(right)).square(), getattr(self, head))
            distance = distance + weighted.mean(dim=(1, 2, 3))
        return distance

    def _features(self, unit: Tensor) -> list[Tensor]:
        x = (2 * unit.float() - 1 - self.shift) / self.scale
        found = []
        for layer in self.layers:
            kernel, bias = (getattr(self, _buffer_name(layer.key + end)) for end in (".weight", ".bias"))
            if min(x.shape[-2:]) + (0 if layer.pool else 2 * layer.padding) < (layer.pool or kernel.shape[-1]):
                h, w = unit.shape[-2:]
                raise ValueError(f"LPIPS needs images of at least 32x32, got {h}x{w}; measure larger images")
            x = F.max_pool2d(x, layer.pool, stride=2) if layer.pool else x
            x = F.conv2d(x, kernel, bias, layer.stride, layer.padding).relu()
            if layer.output:
                found.append(x)
        return found

    def _register(self, state: dict[str, Tensor], keys: list[str], path: str | Path) -> None:
        missing = [key for key in keys if not isinstance(state.get(key), Tensor)]
        if missing:
            raise ValueError(f"{path} must hold {', '.join(keys[:2])}, ..., got no {missing[0]}; pass another file")
        for key in keys:
            self.register_buffer(_buffer_name(key), state[key].float(), persistent=False)

    def _check_chain(self) -> None:
        """Raise unless each layer and each head takes what comes before it."""
        shapes = [(layer, getattr(self, _buffer_name(layer.key + ".weight")).shape) for layer in self.layers]
        fits = shapes[0][1][1] == 3 and all(after[1] == before[0] for (_, before), (_, after) in pairwise(shapes))
        outputs = [shape[0] for layer, shape in shapes if layer.output]
        if not fits or outputs != [getattr(self, name).shape[1] for name in self.head_names]:
            raise ValueError("the network and the heads of LPIPS do not fit each other; pass files of the same network")


class FID(FrechetInceptionDistance):
    """Fréchet distance between the features of completed images and of ground truth; smaller is closer.

    Nothing is downloaded. `network` is a TorchScript file that takes 8-bit images of any size and, with
    `return_features=True`, returns their features, (B, F): the published `inception-2015-12-05.pt` of StyleGAN2-ADA.
    The mean and covariance are sums in float64 on the CPU, wherever the network runs: in float32 they would be too
    coarse. Numbers from a few hundred images are far from those of many thousands and cannot be compared with them.

    Args:
        network: The TorchScript file.

    Raises:
        FileNotFoundError: If it is absent.
        ValueError: If it is no such network; when called, if shapes, types or values of the images are wrong.

    Source:
        Heusel et al. 2017, computed by torchmetrics.
    """

    def __init__(self, network: str | Path) -> None:
        super().__init__(feature=_Features(network), dist_sync_fn=_gather)
        self.orig_dtype = torch.float64  # of the result; the parent knows it only after an update

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        self._computed = self._forward_cache = None  # in float64
        return super()._apply(fn, exclude_state=tuple(self._defaults))

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        super()._reduce_states({name: state.cpu() for name, state in incoming_state.items()})

    def update(self, prediction: Tensor, image: Tensor, region: Tensor) -> None:  # type: ignore[override]
        """Add a batch of completed images and their ground truth, (B, 3, H, W) in [-1, 1]; the region has no effect."""
        check_like(prediction, image, "prediction", "image")
        check_image(image)
        for images, real in ((image, True), (prediction, False)):
            super().update(((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8), real=real)

    def compute(self) -> Tensor:
        """Return the distance; NaN for fewer than two images."""
        if self.real_features_num_samples < 2:
            return torch.tensor(torch.nan, dtype=torch.float64)
        return super().compute()


class _Features(nn.Module):
    """The network of a TorchScript file, asked for its features."""

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.identity = file_hash(path)
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"{path} must hold the Inception network of FID as TorchScript, but there is no such file; "
                "get inception-2015-12-05.pt of StyleGAN2-ADA and name its path"
            )
        try:
            self.network = torch.jit.load(str(path), map_location="cpu").eval()
            features = self.network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), return_features=True)
        except RuntimeError as error:
            raise ValueError(
                f"{path} must hold a TorchScript network that takes 8-bit images and return_features=True, got another "
                "file; get inception-2015-12-05.pt of StyleGAN2-ADA"
            ) from error
        if features.ndim != 2:
            raise ValueError(f"{path} must return features (B, F), got {tuple(features.shape)}; pass another network")
        self.num_features = int(features.shape[1])

    def extra_repr(self) -> str:
        return self.identity

    @torch.no_grad()
    def forward(self, levels: Tensor) -> Tensor:
        return self.network(levels, return_features=True).cpu()


def _gather(state: Tensor, group: Any = None) -> list[Tensor]:
    """Return every process's state; as objects, because NCCL has no tensors on the CPU."""
    states: list[Any] = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(states, state, group)
    return states


def _read(path: str | Path, what: str) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} must hold {what}, but there is no such file; get it and name its path")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever foreign bytes make the reader raise
        raise ValueError(f"{path} must hold {what}, got a file that cannot be read as such; get it again") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} must hold {what}, got a {type(state).__name__}; pass another file")
    return state


def file_hash(path: str | Path) -> str:
    """Return the first digits of a file's SHA-256, or nothing if there is no such file."""
    return f"sha256={sha256(path)[:12]}" if Path(path).is_file() else ""


def _published_heads(network: str) -> Path:
    return Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / f"{network}.pth"


def _buffer_name(key: str) -> str:
    return key.replace(".", "_")


def _unit_length(features: Tensor) -> Tensor:
    return features / (features.norm(dim=1, keepdim=True) + _EPSILON)
