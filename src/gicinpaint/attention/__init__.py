"""Contextual attention: one layer, and the backends that compute it."""

from gicinpaint.attention.factorized import FactorizedAttention
from gicinpaint.attention.layer import AttentionBackend, ContextualAttention
from gicinpaint.attention.reference import ReferenceAttention
from gicinpaint.attention.tiled import TiledAttention
from gicinpaint.attention.unfold import UnfoldAttention

__all__ = [
    "AttentionBackend",
    "ContextualAttention",
    "FactorizedAttention",
    "ReferenceAttention",
    "TiledAttention",
    "UnfoldAttention",
]
