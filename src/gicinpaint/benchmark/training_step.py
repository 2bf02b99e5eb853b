"""One training step of the whole algorithm: the module's own, under Fabric instead of a trainer."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from lightning import Fabric

from gicinpaint.attention import ContextualAttention
from gicinpaint.benchmark.cases import Case, Step, check_parts, layout_variants
from gicinpaint.data import Batch
from gicinpaint.models.compositing import Box
from gicinpaint.models.critics import GlobalCritic, LocalCritic
from gicinpaint.models.generator import Generator
from gicinpaint.training.module import InpaintingModule

PARTS = ("critic_update", "pair")
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


@dataclass(frozen=True)
class TrainingWork:
    """Random images with a hole in the middle, half as high and wide, through `InpaintingModule.training_step`.

    Args:
        layer: Attention layer of the generator, or None.
        width: Channels of the generator at full size; the critics have twice as many.
        pair: Whether the step updates the generator as well as the critics.
        channels_last: Whether weights and images lie in memory pixel by pixel.
    """

    layer: ContextualAttention | None
    width: int
    pair: bool
    channels_last: bool

    def __call__(self, case: Case) -> Step:
        """Return an update of both critics, or of both critics and the generator."""
        logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # it greets once per fabric
        height, width = case.height, case.width
        module = InpaintingModule(
            Generator(self.width, attention=self.layer),
            {
                "global": GlobalCritic(2 * self.width, (height, width)),
                "local": LocalCritic(2 * self.width, (height // 2, width // 2)),
            },
        )
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        module = module.to(memory_format=layout)
        fabric = Fabric(accelerator=case.device, devices=1, precision=PRECISIONS[case.dtype])  # type: ignore[arg-type]
        optimizers, _ = module.configure_optimizers()
        wrapped, *_ = fabric.setup(module, *optimizers)
        batch = _batch(case, layout)

        def step() -> None:
            module.batches_seen = module.critic_steps - 1 if self.pair else 0
            with fabric.autocast():  # as the trainer does; Fabric would for `forward` alone
                wrapped.training_step(batch, 0)

        return step


class TrainingStepBenchmark:
    """Measure critic updates and generator updates; compare attention backends and layouts in memory.

    Args:
        layers: Attention layers by backend; None for the baseline without attention.
        basis: The variant that the others are compared with.
        layouts: "contiguous", "channels_last" or both.
        parts: "critic_update" (both critics), "pair" (both critics and the generator) or both.
        sizes: Pixels, multiples of 32, as numbers or pairs (height, width).
        batch_sizes: Images per step.
        dtypes: "float32", or "bfloat16" and "float16" for mixed precision.
        width: Channels of the generator at full size.

    Raises:
        ValueError: If a part, a layout or a type is none of those.
    """

    def __init__(
        self,
        layers: Mapping[str, ContextualAttention | None],
        basis: str = "tiled contiguous",
        layouts: Sequence[str] = ("contiguous", "channels_last"),
        parts: Sequence[str] = PARTS,
        sizes: Sequence[int | Sequence[int]] = (256,),
        batch_sizes: Sequence[int] = (1, 4),
        dtypes: Sequence[str] = ("float32",),
        width: int = 32,
    ) -> None:
        check_parts(parts, PARTS)
        for dtype in dtypes:
            if dtype not in PRECISIONS:
                raise ValueError(f"dtypes must be among {', '.join(PRECISIONS)}, got {dtype!r}; correct the list")
        self.layers = layers
        self.variants = layout_variants(layers, layouts)
        self.basis = basis
        self.parts = parts
        self.sizes = sizes
        self.batch_sizes = batch_sizes
        self.dtypes = dtypes
        self.width = width

    def work(self, part: str, variant: str) -> TrainingWork:
        """Return what sets up a variant's step."""
        name, layout = variant.split()
        return TrainingWork(self.layers[name], self.width, part == "pair", layout == "channels_last")


def _batch(case: Case, layout: torch.memory_format) -> Batch:
    b, height, width = case.batch_size, case.height, case.width
    image = torch.rand(b, 3, height, width, device=case.device).mul(2).sub(1).contiguous(memory_format=layout)
    top, left = height // 4, width // 4
    mask = torch.zeros(b, 1, height, width, device=case.device)
    mask[..., top : top + height // 2, left : left + width // 2] = 1
    places = [torch.full((b,), place, device=case.device) for place in (top, left)]
    return Batch(image, mask, Box(places[0], places[1], height // 2, width // 2))
