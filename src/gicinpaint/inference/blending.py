"""Poisson blending and feathering: how a filling meets the known pixels around it."""

from typing import Literal, get_args

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter
from torch import Tensor

from gicinpaint.models.harmonic_fill import solve_laplace

Blend = Literal["none", "feather", "poisson"]
FEATHER = 16  # pixels over which a feathered correction fades


def check_blend(blend: str) -> None:
    """Raise a `ValueError` unless a way of blending is known."""
    if blend not in get_args(Blend):
        raise ValueError(f"blend must be one of {', '.join(get_args(Blend))}, got {blend!r}")


def blended(prediction: Tensor, image: Tensor, hole: Tensor, blend: Blend) -> Tensor:
    """Return a prediction whose hole meets the known pixels as `blend` says; only the hole's values matter.

    - "none": the prediction as it is.
    - "feather": the difference between known and predicted pixels at the nearest edge is added, and fades to nothing
      over 16 pixels: seams go, the middle of the hole stays.
    - "poisson": the smoothest correction that closes the difference at the edge everywhere is added, so that the
      gradients of the prediction remain: shifts of color and brightness go.

    Shape:
        - prediction, image and returned: (3, H, W), [-1, 1]
        - hole: bool (H, W)

    Source:
        Pérez et al. 2003, "Poisson image editing", equation 7: the correction solves Laplace's equation.
    """
    if blend == "none" or not bool(hole.any()) or bool(hole.all()):
        return prediction
    spans = [hole.any(dim=axis).nonzero() for axis in (1, 0)]
    rows, columns = (slice(max(0, int(span[0]) - 1), int(span[-1]) + 2) for span in spans)  # and the pixels around
    inside = hole[rows, columns]
    difference = torch.where(inside, 0, (image - prediction)[:, rows, columns])
    if blend == "feather":
        correction = _feathered(difference, inside)
    else:
        correction = solve_laplace(difference[None], inside[None, None].float())[0]
    result = prediction.clone()
    result[:, rows, columns] = (result[:, rows, columns] + correction).clamp(-1, 1)
    return result


def _feathered(difference: Tensor, hole: Tensor) -> Tensor:
    distance, nearest = distance_transform_edt(hole.numpy(), return_indices=True)
    carried = difference.numpy()[:, nearest[0], nearest[1]]
    # smoothed along the edge, or each edge pixel would draw a ray into the hole
    smooth = np.stack([gaussian_filter(plane, sigma=3, mode="nearest") for plane in carried])
    weight = np.clip(distance / 3, 0, 1)  # not at the edge itself, where the difference must close
    fade = np.clip(1 - distance / FEATHER, 0, 1)
    return torch.from_numpy((((1 - weight) * carried + weight * smooth) * fade).astype(np.float32))
