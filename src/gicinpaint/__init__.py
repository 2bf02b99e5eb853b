"""Generative image inpainting with contextual attention (Yu et al., CVPR 2018) on PyTorch Lightning and Hydra."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gicinpaint import attention, losses, masks, metrics, official
    from gicinpaint.attention import ContextualAttention
    from gicinpaint.compositing import composite, mask_out
    from gicinpaint.critics import GlobalCritic, LocalCritic
    from gicinpaint.data import InpaintingDataModule
    from gicinpaint.generator import CoarseNetwork, Completion, Generator, RefinementNetwork
    from gicinpaint.inpainter import Inpainter
    from gicinpaint.module import InpaintingModule

__all__ = [
    "CoarseNetwork",
    "Completion",
    "ContextualAttention",
    "Generator",
    "GlobalCritic",
    "Inpainter",
    "InpaintingDataModule",
    "InpaintingModule",
    "LocalCritic",
    "RefinementNetwork",
    "attention",
    "composite",
    "losses",
    "mask_out",
    "masks",
    "metrics",
    "official",
]

_HOMES = {
    "CoarseNetwork": "generator",
    "Completion": "generator",
    "ContextualAttention": "attention",
    "Generator": "generator",
    "GlobalCritic": "critics",
    "Inpainter": "inpainter",
    "InpaintingDataModule": "data",
    "InpaintingModule": "module",
    "LocalCritic": "critics",
    "RefinementNetwork": "generator",
    "composite": "compositing",
    "mask_out": "compositing",
}


def __getattr__(name: str) -> Any:  # on first use: `gicinpaint --help` would otherwise wait seconds for torch
    if name in _HOMES:
        return getattr(import_module(f"gicinpaint.{_HOMES[name]}"), name)
    if name in __all__:
        return import_module(f"gicinpaint.{name}")
    raise AttributeError(f"module 'gicinpaint' has no attribute {name!r}")
