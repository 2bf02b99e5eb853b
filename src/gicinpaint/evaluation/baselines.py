"""Classical fillings to compare with, all called alike: `completed = telea(image, mask)`.

None of them learns; each fills the hole from the image's own known pixels. The libraries are optional: the extra
`baselines` installs them. Pictures pass through 8-bit RGB, as these libraries expect.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gicinpaint.models.compositing import composite, fill_with_mean, mask_out

Picture = NDArray[np.uint8]
Fill = Callable[[Picture, NDArray[np.bool_]], NDArray[Any]]


def mean_colour(image: Tensor, mask: Tensor) -> Tensor:
    """Fill each hole with the mean colour of its image's known pixels.

    Shape:
        - image, returned: (B, 3, H, W), [-1, 1]; what lies in the hole does not matter
        - mask: (B or 1, 1, H, W), {0, 1}; 1 = hole

    Raises:
        ValueError: If shapes, types or values differ from that.

    Source:
        Ours: what every method has to beat.
    """
    return fill_with_mean(image, mask)


def telea(image: Tensor, mask: Tensor, radius: float = 3.0) -> Tensor:
    """Fill holes inwards by weighted averages of known neighbours.

    Args:
        image: Images; what lies in the hole does not matter.
        mask: Hole mask; 1 = hole.
        radius: Pixels around each filled one that count.

    Shape:
        As in `mean_colour`.

    Raises:
        ValueError: If shapes, types or values differ from that.
        ImportError: If OpenCV is not installed; the message names the extra.

    Source:
        Telea 2004, by OpenCV.
    """
    cv2 = _import("cv2", "telea")
    return _fill_each(image, mask, lambda picture, hole: cv2.inpaint(picture, _levels(hole), radius, cv2.INPAINT_TELEA))


def navier_stokes(image: Tensor, mask: Tensor, radius: float = 3.0) -> Tensor:
    """Fill holes by continuing lines of equal brightness, after a model of fluids.

    Args:
        image: Images; what lies in the hole does not matter.
        mask: Hole mask; 1 = hole.
        radius: Pixels around each filled one that count.

    Shape:
        As in `mean_colour`.

    Raises:
        ValueError: If shapes, types or values differ from that.
        ImportError: If OpenCV is not installed; the message names the extra.

    Source:
        Bertalmio et al. 2001, by OpenCV.
    """
    cv2 = _import("cv2", "navier_stokes")
    return _fill_each(image, mask, lambda picture, hole: cv2.inpaint(picture, _levels(hole), radius, cv2.INPAINT_NS))


def biharmonic(image: Tensor, mask: Tensor) -> Tensor:
    """Fill holes with the smoothest surface, in the sense of the biharmonic equation, through their borders.

    Shape:
        As in `mean_colour`.

    Raises:
        ValueError: If shapes, types or values differ from that.

    Source:
        Damelin and Hoang 2018, by scikit-image.
    """
    restoration = _import("skimage.restoration", "biharmonic")

    def fill(picture: Picture, hole: NDArray[np.bool_]) -> NDArray[Any]:
        return 255 * restoration.inpaint_biharmonic(picture / 255, hole, channel_axis=-1)

    return _fill_each(image, mask, fill)


def patchmatch(image: Tensor, mask: Tensor, patch_radius: int = 3, seed: int = 0) -> Tensor:
    """Fill holes with patches of the known part, found by a randomized search.

    The search of each image starts from the seed, so the result does not depend on batches or order.

    Args:
        image: Images; what lies in the hole does not matter.
        mask: Hole mask; 1 = hole.
        patch_radius: Pixels from a patch's middle to its edge; 3 compares patches of 7x7.
        seed: Seed of the search.

    Shape:
        As in `mean_colour`.

    Raises:
        ValueError: If shapes, types or values differ from that.
        ImportError: If PyPatchMatch is not installed; the message names the extra.

    Source:
        Barnes et al. 2009, by PyPatchMatch. Yu et al. do not name the implementation of their table.
    """
    library = _import("patchmatch", "patchmatch")
    if not library.patchmatch_available:
        raise ImportError("patchmatch needs PyPatchMatch's native library, which does not load on this machine")

    def fill(picture: Picture, hole: NDArray[np.bool_]) -> NDArray[Any]:
        library.set_random_seed(seed)
        return library.inpaint(picture, _levels(hole), patch_size=patch_radius)

    return _fill_each(image, mask, fill)


def _fill_each(image: Tensor, mask: Tensor, fill: Fill) -> Tensor:
    """Apply a function of 8-bit pictures (H, W, 3) and holes (H, W) to each image; keep the known pixels exactly."""
    masked = mask_out(image, mask)
    pictures = ((masked.detach().float() + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8)
    holes = mask.bool().expand(image.shape[0], -1, -1, -1)[:, 0].cpu().numpy()
    filled = []
    for picture, hole in zip(pictures.permute(0, 2, 3, 1).contiguous().numpy(), holes, strict=True):
        nothing_to_do = not hole.any() or hole.all()  # without a known pixel the hole keeps the middle grey
        filled.append(picture if nothing_to_do else np.asarray(fill(picture, hole)))
    values = torch.from_numpy(np.stack(filled).astype(np.float64)).permute(0, 3, 1, 2) / 127.5 - 1
    return composite(image, values.clamp(-1, 1).to(image), mask)


def _levels(hole: NDArray[np.bool_]) -> Picture:
    return np.where(hole, 255, 0).astype(np.uint8)


def _import(name: str, baseline: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{baseline} needs {name}, which is not installed; install the extra: pip install 'gicinpaint[baselines]'"
        ) from error
