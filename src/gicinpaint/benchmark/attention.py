"""Contextual attention alone, backend by backend."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gicinpaint.attention import ContextualAttention
from gicinpaint.benchmark.cases import Case, Step, check_parts, floating_point


@dataclass(frozen=True)
class AttentionWork:
    """Random features with a hole in the middle, through one layer.

    Args:
        layer: The layer.
        channels: Channels of the features.
        backward: Whether the gradient belongs to the step.
    """

    layer: ContextualAttention
    channels: int
    backward: bool

    def __call__(self, case: Case) -> Step:
        """Return a forward pass without gradients, or a forward and a backward pass."""
        shape = (case.batch_size, self.channels, case.height, case.width)
        features = torch.randn(shape, device=case.device).to(floating_point(case.dtype))
        mask = torch.zeros(case.batch_size, 1, case.height, case.width, device=case.device)
        mask[..., case.height // 4 : 3 * case.height // 4, case.width // 4 : 3 * case.width // 4] = 1
        if not self.backward:
            return lambda: self._look(features, mask)
        features.requires_grad_()
        weight = torch.randn_like(features)

        def both() -> None:
            features.grad = None
            output: Tensor = self.layer(features, mask=mask)
            output.backward(weight)

        return both

    @torch.inference_mode()
    def _look(self, features: Tensor, mask: Tensor) -> object:
        return self.layer(features, mask=mask)


class AttentionBenchmark:
    """Compare attention backends with each other.

    Args:
        layers: Attention layers by backend.
        basis: The backend that the others are compared with.
        parts: "forward", "forward_backward" or both.
        sizes: Feature cells, as numbers or pairs (height, width); the image has four times as many along each axis.
        batch_sizes: Images per step.
        dtypes: Types of the features.
        channels: Channels of the features; the paper's network has 128.

    Raises:
        ValueError: If a part is none of the two.
    """

    def __init__(
        self,
        layers: Mapping[str, ContextualAttention],
        basis: str = "reference",
        parts: Sequence[str] = ("forward", "forward_backward"),
        sizes: Sequence[int | Sequence[int]] = (64, 128),
        batch_sizes: Sequence[int] = (1,),
        dtypes: Sequence[str] = ("float32",),
        channels: int = 128,
    ) -> None:
        check_parts(parts, ("forward", "forward_backward"))
        self.layers = layers
        self.variants = tuple(layers)
        self.basis = basis
        self.parts = parts
        self.sizes = sizes
        self.batch_sizes = batch_sizes
        self.dtypes = dtypes
        self.channels = channels

    def work(self, part: str, variant: str) -> AttentionWork:
        """Return what sets up a backend's pass."""
        return AttentionWork(self.layers[variant], self.channels, part == "forward_backward")
