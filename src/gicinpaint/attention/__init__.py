"""Contextual attention: one layer, and the backends that compute it."""

from gicinpaint.attention.factorized import FactorizedAttention, UnfoldAttention
from gicinpaint.attention.layer import AttentionBackend, ContextualAttention
from gicinpaint.attention.reference import ReferenceAttention
from gicinpaint.attention.tiled import TiledAttention

__all__ = [
    "AttentionBackend",
    "ContextualAttention",
    "FactorizedAttention",
    "ReferenceAttention",
    "TiledAttention",
    "UnfoldAttention",
]
