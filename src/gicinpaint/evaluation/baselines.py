"""Classical methods to compare with, all called as `completed = telea(image, mask)`.

None of them is trained: each fills the hole from the image's own known pixels. OpenCV and PyPatchMatch are optional:
the extra `baselines` installs them. Images pass through 8-bit RGB, as these libraries expect.

For all of them: image and result (B, 3, H, W), [-1, 1]; mask (B or 1, 1, H, W), {0, 1}, 1 = hole; values in the hole
have no effect. They raise a ValueError if shapes, types or values are wrong, and an ImportError that names the extra.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gicinpaint.models.compositing import composite, mask_out

Levels = NDArray[np.uint8]
Fill = Callable[[Levels, NDArray[np.bool_]], NDArray[Any]]


def telea(image: Tensor, mask: Tensor, radius: float = 3.0) -> Tensor:
    """Fill holes from the edge inwards with weighted averages of known neighbours, `radius` pixels around.

    Source:
        Telea 2004, by OpenCV.
    """
    return _by_opencv("telea", "INPAINT_TELEA", image, mask, radius)


def navier_stokes(image: Tensor, mask: Tensor, radius: float = 3.0) -> Tensor:
    """Fill holes by continuing lines of equal brightness, a model of fluid flow, from `radius` pixels around.

    Source:
        Bertalmio et al. 2001, by OpenCV.
    """
    return _by_opencv("navier_stokes", "INPAINT_NS", image, mask, radius)


def biharmonic(image: Tensor, mask: Tensor) -> Tensor:
    """Fill holes with the solution of the biharmonic equation.

    Source:
        Damelin and Hoang 2018, by scikit-image.
    """
    from skimage.restoration import inpaint_biharmonic  # imported where used: it takes a second

    return _fill_each(image, mask, lambda levels, hole: 255 * inpaint_biharmonic(levels / 255, hole, channel_axis=-1))


def patchmatch(image: Tensor, mask: Tensor, patch_radius: int = 3, seed: int = 0) -> Tensor:
    """Fill holes with patches of the known region, found by a randomized search.

    Args:
        image: Images.
        mask: Hole mask.
        patch_radius: Pixels from a patch's centre to its edge; 3 compares patches of 7x7.
        seed: Seed of each image's search, so that results do not depend on batches or order.

    Source:
        Barnes et al. 2009, by PyPatchMatch. Yu et al. do not name the implementation of their table.
    """
    library = _import("patchmatch", "patchmatch")
    if not library.patchmatch_available:
        raise ImportError("patchmatch needs PyPatchMatch's native library, which does not load on this machine")

    def fill(levels: Levels, hole: NDArray[np.bool_]) -> NDArray[Any]:
        library.set_random_seed(seed)
        return library.inpaint(levels, _to_levels(hole), patch_size=patch_radius)

    return _fill_each(image, mask, fill)


def _by_opencv(name: str, flag: str, image: Tensor, mask: Tensor, radius: float) -> Tensor:
    cv2 = _import("cv2", name)
    return _fill_each(
        image, mask, lambda levels, hole: cv2.inpaint(levels, _to_levels(hole), radius, getattr(cv2, flag))
    )


def _fill_each(image: Tensor, mask: Tensor, fill: Fill) -> Tensor:
    """Apply a function of 8-bit images (H, W, 3) and holes (H, W) to each image; keep the known pixels exactly."""
    masked = mask_out(image, mask)
    levels = ((masked.detach().float() + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8)
    holes = mask.bool().expand(image.shape[0], -1, -1, -1)[:, 0].cpu().numpy()
    filled = []
    for one, hole in zip(levels.permute(0, 2, 3, 1).contiguous().numpy(), holes, strict=True):
        nothing_to_do = not hole.any() or hole.all()  # without a known pixel the hole stays middle grey
        filled.append(one if nothing_to_do else np.asarray(fill(one, hole)))
    values = torch.from_numpy(np.stack(filled).astype(np.float64)).permute(0, 3, 1, 2) / 127.5 - 1
    return composite(image, values.clamp(-1, 1).to(image), mask)


def _to_levels(hole: NDArray[np.bool_]) -> Levels:
    return hole.astype(np.uint8) * 255


def _import(name: str, baseline: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{baseline} needs {name}, which is not installed; install the extra: pip install 'gicinpaint[baselines]'"
        ) from error
