"""The networks: generators, critics, and what joins images and holes."""

from gicinpaint.models.compositing import Box, composite, crop_box, fill_with_mean, mask_out
from gicinpaint.models.critics import Critic, GlobalCritic, LocalCritic, PatchCritic
from gicinpaint.models.gated import GatedConvolution, GatedGenerator
from gicinpaint.models.generator import CoarseGenerator, CoarseNetwork, Completion, Generator, RefinementNetwork
from gicinpaint.models.harmonic_fill import fill_harmonically, solve_laplace

__all__ = [
    "Box",
    "CoarseGenerator",
    "CoarseNetwork",
    "Completion",
    "Critic",
    "GatedConvolution",
    "GatedGenerator",
    "Generator",
    "GlobalCritic",
    "LocalCritic",
    "PatchCritic",
    "RefinementNetwork",
    "composite",
    "crop_box",
    "fill_harmonically",
    "fill_with_mean",
    "mask_out",
    "solve_laplace",
]
