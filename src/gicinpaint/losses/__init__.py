"""The losses of the training algorithm."""

from gicinpaint.losses.adversaries import (
    Adversary,
    CrossEntropy,
    Hinge,
    LeastSquares,
    Wasserstein,
    gradient_norm,
    gradient_penalty,
    penalty,
)
from gicinpaint.losses.inpainting import CriticLoss, InpaintingLoss, Terms
from gicinpaint.losses.reconstruction import (
    BoxReconstruction,
    HoleReconstruction,
    discounted_l1,
    hole_discount,
    known_l1,
    spatial_discount,
)

__all__ = [
    "Adversary",
    "BoxReconstruction",
    "CriticLoss",
    "CrossEntropy",
    "Hinge",
    "HoleReconstruction",
    "InpaintingLoss",
    "LeastSquares",
    "Terms",
    "Wasserstein",
    "discounted_l1",
    "gradient_norm",
    "gradient_penalty",
    "hole_discount",
    "known_l1",
    "penalty",
    "spatial_discount",
]
