"""How completions are measured: in the hole, over the whole image, and by networks whose weights the user supplies."""

from gicinpaint.metrics.columns import evaluation_metrics, hole_metrics
from gicinpaint.metrics.fid import FID
from gicinpaint.metrics.lpips import LPIPS
from gicinpaint.metrics.patch_distance import PatchDistance
from gicinpaint.metrics.region import ImageTV, RegionL1, RegionL2, RegionMetric, RegionPSNR, RegionTV, RelativeTV
from gicinpaint.metrics.whole import SSIM, RelativeL1, RelativeL2

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
