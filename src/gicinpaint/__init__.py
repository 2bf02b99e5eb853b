"""Generative image inpainting with contextual attention (Yu et al., CVPR 2018) on PyTorch Lightning and Hydra."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from gicinpaint.compat import register_moved_modules
from gicinpaint.config.aliases import TARGETS

if TYPE_CHECKING:
    from gicinpaint import attention, losses, masks, metrics, weights
    from gicinpaint.attention import ContextualAttention
    from gicinpaint.data import InpaintingDataModule
    from gicinpaint.inference import Inpainter
    from gicinpaint.models import (
        CoarseNetwork,
        Completion,
        GatedGenerator,
        Generator,
        GlobalCritic,
        LocalCritic,
        PatchCritic,
        RefinementNetwork,
        composite,
        mask_out,
    )
    from gicinpaint.training import InpaintingModule

_ROOMS = {
    "ContextualAttention": "attention",
    "Inpainter": "inference",
    "InpaintingDataModule": "data",
    "InpaintingModule": "training",
}  # all others are in models

__all__ = [
    "CoarseNetwork",
    "Completion",
    "ContextualAttention",
    "GatedGenerator",
    "Generator",
    "GlobalCritic",
    "Inpainter",
    "InpaintingDataModule",
    "InpaintingModule",
    "LocalCritic",
    "PatchCritic",
    "RefinementNetwork",
    "attention",
    "composite",
    "losses",
    "mask_out",
    "masks",
    "metrics",
    "official",
    "weights",
]


def __getattr__(name: str) -> Any:  # on first use: `gicinpaint --help` would otherwise wait seconds for torch
    if name == "__version__":
        return version("gicinpaint")
    if name in ("attention", "losses", "masks", "metrics", "weights") or f"gicinpaint.{name}" in TARGETS:
        return import_module(f"gicinpaint.{name}")
    if name in __all__:
        return getattr(import_module(f"gicinpaint.{_ROOMS.get(name, 'models')}"), name)
    raise AttributeError(f"module 'gicinpaint' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


register_moved_modules()
