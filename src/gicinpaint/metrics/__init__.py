"""How completions are measured: in the hole, over the whole image, and by networks whose weights the user supplies."""

from gicinpaint.metrics.columns import evaluation_metrics, hole_metrics
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
