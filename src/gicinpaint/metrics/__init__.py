"""How completions are measured: in the hole, over the whole image, and by networks whose weights the user supplies."""

from pathlib import Path

from torchmetrics import Metric, MetricCollection

from gicinpaint.metrics.perceptual import FID, LPIPS
from gicinpaint.metrics.region import (
    SSIM,
    ImageTV,
    PatchDistance,
    RegionL1,
    RegionL2,
    RegionMetric,
    RegionPSNR,
    RegionTV,
    RelativeL1,
    RelativeL2,
    RelativeTV,
)

__all__ = [
    "FID",
    "LPIPS",
    "SSIM",
    "ImageTV",
    "PatchDistance",
    "RegionL1",
    "RegionL2",
    "RegionMetric",
    "RegionPSNR",
    "RegionTV",
    "RelativeL1",
    "RelativeL2",
    "RelativeTV",
    "evaluation_metrics",
    "hole_metrics",
]


def hole_metrics(prefix: str = "") -> MetricCollection:
    """Return the paper's columns `l1`, `l2`, `psnr` and `tv`, and `tv_ratio` and `patch_distance`."""
    columns: dict[str, Metric | MetricCollection] = {
        "l1": RegionL1(),
        "l2": RegionL2(),
        "psnr": RegionPSNR(),
        "tv": RegionTV(),
        "tv_ratio": RelativeTV(),
        "patch_distance": PatchDistance(),
    }
    return MetricCollection(columns, prefix=prefix, compute_groups=False)


def evaluation_metrics(lpips: str | Path | None = None, fid: str | Path | None = None) -> MetricCollection:
    """Return every column of the evaluation: in the hole, over the whole completed image, and relative errors.

    Args:
        lpips: File with the weights of AlexNet or VGG16, see `LPIPS`; None leaves the column out.
        fid: File with the Inception network, see `FID`; None leaves the column out.

    Raises:
        FileNotFoundError: If a file is absent.
        ValueError: If a file does not hold what is expected.
    """
    columns: dict[str, Metric | MetricCollection] = {
        "hole/l1": RegionL1(),
        "hole/l2": RegionL2(),
        "hole/psnr": RegionPSNR(),
        "hole/tv": RegionTV(),
        "hole/tv_ratio": RelativeTV(),
        "target/hole/tv": ImageTV(),
        "hole/patch_distance": PatchDistance(7),
        "hole/patch_distance_15": PatchDistance(15),
        "image/l1": RegionL1(everywhere=True),
        "image/l2": RegionL2(everywhere=True),
        "image/psnr": RegionPSNR(everywhere=True),
        "image/ssim": SSIM(),
        "relative/l1": RelativeL1(),
        "relative/l2": RelativeL2(),
    }
    columns |= {} if lpips is None else {"lpips": LPIPS(lpips)}
    columns |= {} if fid is None else {"fid": FID(fid)}
    return MetricCollection(columns, compute_groups=False)
