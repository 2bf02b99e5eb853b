"""FID: how far the completed images, as a set, are from the ground truth in the features of a network."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from gicinpaint.checks import check_image, check_like
from gicinpaint.metrics.lpips import file_hash


class FID(FrechetInceptionDistance):
    """Fréchet distance between the features of completed images and of ground truth; smaller is closer.

    Nothing is downloaded. `network` is a TorchScript file that takes 8-bit images of any size and, with
    `return_features=True`, returns their features, (B, F): the published `inception-2015-12-05.pt` of StyleGAN2-ADA.
    The mean and covariance are sums, exact under any batch size. Numbers from a few hundred images are far from those
    of many thousands and cannot be compared with them.

    Args:
        network: The TorchScript file.

    Raises:
        FileNotFoundError: If it is absent.
        ValueError: If it is no such network; when called, if shapes, types or values of the images are wrong.

    Source:
        Heusel et al. 2017, computed by torchmetrics.
    """

    def __init__(self, network: str | Path) -> None:
        super().__init__(feature=_Features(network))
        self.orig_dtype = torch.float64  # of the result; the parent knows it only after an update

    def update(self, prediction: Tensor, image: Tensor, region: Tensor) -> None:  # type: ignore[override]
        """Add a batch of completed images and their ground truth, (B, 3, H, W) in [-1, 1]; the region has no effect."""
        check_like(prediction, image, "prediction", "image")
        check_image(image)
        super().update(_to_levels(image), real=True)
        super().update(_to_levels(prediction), real=False)

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
        return self.network(levels, return_features=True)


def _to_levels(image: Tensor) -> Tensor:
    return ((image.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
