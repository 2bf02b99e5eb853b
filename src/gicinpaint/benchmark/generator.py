"""The whole generator, as in use: no gradients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from gicinpaint.attention import ContextualAttention
from gicinpaint.benchmark.cases import Case, Step, check_parts, floating_point, layout_variants
from gicinpaint.models.generator import Generator


@dataclass(frozen=True)
class GeneratorWork:
    """A masked image with a hole in the middle, through a generator with random weights.

    Args:
        layer: Attention layer of the second stage, or None.
        width: Channels at full size.
        channels_last: Whether weights and images lie in memory pixel by pixel.
    """

    layer: ContextualAttention | None
    width: int
    channels_last: bool

    def __call__(self, case: Case) -> Step:
        """Return a forward pass."""
        generator = Generator(self.width, attention=self.layer).eval().to(case.device, floating_point(case.dtype))
        masked = torch.rand(case.batch_size, 3, case.height, case.width, device=case.device).mul(2).sub(1)
        mask = torch.zeros(case.batch_size, 1, case.height, case.width, device=case.device)
        mask[..., case.height // 4 : 3 * case.height // 4, case.width // 4 : 3 * case.width // 4] = 1
        masked = (masked * (1 - mask)).to(floating_point(case.dtype))
        if self.channels_last:
            generator = generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            masked = masked.contiguous(memory_format=torch.channels_last)

        @torch.inference_mode()
        def forward() -> object:
            return generator(masked, mask)

        return forward


class GeneratorBenchmark:
    """Compare generators by their attention backend and their layout in memory.

    Args:
        layers: Attention layers by backend; None for the generator without attention.
        basis: The variant that the others are compared with.
        layouts: "contiguous", "channels_last" or both.
        parts: "forward", the only part.
        sizes: Pixels, multiples of 8, as numbers or pairs (height, width).
        batch_sizes: Images per step.
        dtypes: Types of weights and images.
        width: Channels at full size.

    Raises:
        ValueError: If a part, a layout or a size is none of those.
    """

    def __init__(
        self,
        layers: Mapping[str, ContextualAttention | None],
        basis: str = "reference contiguous",
        layouts: Sequence[str] = ("contiguous", "channels_last"),
        parts: Sequence[str] = ("forward",),
        sizes: Sequence[int | Sequence[int]] = (256, 512),
        batch_sizes: Sequence[int] = (1,),
        dtypes: Sequence[str] = ("float32",),
        width: int = 32,
    ) -> None:
        check_parts(parts, ("forward",))
        self.layers = layers
        self.variants = layout_variants(layers, layouts)
        self.basis = basis
        self.parts = parts
        self.sizes = sizes
        self.batch_sizes = batch_sizes
        self.dtypes = dtypes
        self.width = width

    def work(self, part: str, variant: str) -> GeneratorWork:
        """Return what sets up a variant's pass."""
        name, layout = variant.split()
        return GeneratorWork(self.layers[name], self.width, layout == "channels_last")
