"""How a filling meets the known pixels around it: as it comes, feathered, or with its gradients alone."""

from typing import Literal, get_args

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter
from torch import Tensor
from torch.nn import functional as F

Blend = Literal["none", "feather", "poisson"]
FEATHER = 16  # pixels over which a feathered correction fades
_SWEEPS = 60  # of relaxation on a level
_FEW_SWEEPS = 8  # on levels above _LARGE pixels: all but the edges comes from the level below
_LARGE = 2**18


def check_blend(blend: str) -> None:
    """Raise unless a way of blending is known.

    Raises:
        ValueError: If it is not.
    """
    if blend not in get_args(Blend):
        raise ValueError(f"blend must be one of {', '.join(get_args(Blend))}, got {blend!r}")


def blended(prediction: Tensor, image: Tensor, hole: Tensor, blend: Blend) -> Tensor:
    """Return a prediction whose hole meets the known pixels as `blend` says; only the hole's values matter.

    - "none": the prediction as it is.
    - "feather": the difference between known and predicted pixels at the nearest edge is added, and fades to nothing
      over 16 pixels: seams go, the middle of the hole stays.
    - "poisson": the smoothest correction that closes the difference at the edge everywhere is added, so that the
      gradients of the prediction remain: shifts of colour and brightness go.

    Args:
        prediction: What a network returned, known pixels too.
        image: The image.
        hole: bool, true in the hole.
        blend: The way.

    Shape:
        - prediction, image: (3, H, W), [-1, 1]
        - hole: (H, W)
        - returned: (3, H, W), [-1, 1]

    Source:
        Pérez et al. 2003, "Poisson image editing", equation 7 (the correction is a membrane).
    """
    if blend == "none" or not bool(hole.any()) or bool(hole.all()):
        return prediction
    around = _around(hole)
    inside = hole[around]
    difference = torch.where(inside, 0, (image - prediction)[:, *around])
    correction = _feathered(difference, inside) if blend == "feather" else _membrane(difference, inside)
    result = prediction.clone()
    result[:, *around] = (result[:, *around] + correction).clamp(-1, 1)
    return result


def _around(hole: Tensor) -> tuple[slice, slice]:
    """Return the rows and columns of a hole and the pixels that border on it."""
    spans = [hole.any(dim=1).nonzero(), hole.any(dim=0).nonzero()]
    rows, columns = (slice(max(0, int(span[0]) - 1), int(span[-1]) + 2) for span in spans)
    return rows, columns


def _feathered(difference: Tensor, hole: Tensor) -> Tensor:
    inside = hole.numpy()
    distance, nearest = distance_transform_edt(inside, return_indices=True)
    carried = difference.numpy()[:, nearest[0], nearest[1]]
    # smoothed along the edge, or each edge pixel would draw a ray into the hole
    smooth = np.stack([gaussian_filter(plane, sigma=3, mode="nearest") for plane in carried])
    share = np.clip(distance / 3, 0, 1)  # not at the edge itself, where the difference must close
    fade = np.clip(1 - distance / FEATHER, 0, 1)
    return torch.from_numpy((((1 - share) * carried + share * smooth) * fade).astype(np.float32))


def _membrane(values: Tensor, hole: Tensor) -> Tensor:
    """Return values, (3, H, W), continued into the hole so that each hole pixel is the mean of its neighbours.

    From coarse to fine: each level starts from the half-sized solution and is relaxed in place.
    """
    h, w = hole.shape
    weight = (~hole).float()
    if min(h, w) > 8:
        mean = F.avg_pool2d(torch.cat([values * weight, weight[None]])[None], 2, ceil_mode=True)[0]
        known = mean[3:]
        small = torch.where(known > 0, mean[:3] / known.clamp_min(1e-6), 0)
        coarse = _membrane(small, known[0] == 0)
        start = F.interpolate(coarse[None], size=(h, w), mode="bilinear", align_corners=False)[0]
    else:
        start = values.flatten(1).sum(1)[:, None, None] / weight.sum().clamp_min(1) * torch.ones_like(values)
    return _relaxed(torch.where(hole, start, values), hole)


def _relaxed(values: Tensor, hole: Tensor) -> Tensor:
    """Sweep over the hole in two colours, a pixel becoming the mean of its neighbours (successive over-relaxation)."""
    h, w = hole.shape
    inner = F.pad(torch.ones(1, h, w), (1, 1, 1, 1))  # outside the image there is no neighbour
    count = _neighbour_sum(inner)[0]
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    turns = [hole & ((rows + columns) % 2 == parity) for parity in (0, 1)]
    factor = 1.7
    for _ in range(_SWEEPS if h * w <= _LARGE else _FEW_SWEEPS):
        for turn in turns:
            mean = _neighbour_sum(F.pad(values, (1, 1, 1, 1))) / count
            values = torch.where(turn, values + factor * (mean - values), values)
    return values


def _neighbour_sum(padded: Tensor) -> Tensor:
    return padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
