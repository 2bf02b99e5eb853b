"""The losses of the training algorithm."""

from gicinpaint.losses.adversarial import (
    Adversary,
    Hinge,
    LeastSquares,
    NonSaturating,
    Wasserstein,
    gradient_norm,
    gradient_penalty,
    penalty,
)
from gicinpaint.losses.inpainting import CriticLoss, InpaintingLoss, Terms
from gicinpaint.losses.reconstruction import (
    BoxReconstruction,
    HoleReconstruction,
    ImageReconstruction,
    discounted_l1,
    hole_discount,
    known_l1,
    spatial_discount,
)

__all__ = [
    "Adversary",
    "BoxReconstruction",
    "CriticLoss",
    "Hinge",
    "HoleReconstruction",
    "ImageReconstruction",
    "InpaintingLoss",
    "LeastSquares",
    "NonSaturating",
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
