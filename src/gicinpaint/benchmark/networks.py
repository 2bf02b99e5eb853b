"""What the benchmarks of networks time: attention alone, the generator, a training step of the whole algorithm."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from lightning import Fabric
from torch import Tensor, nn

from gicinpaint.attention import ContextualAttention
from gicinpaint.benchmark.cases import Case, Step, Work, check_parts, floating_point
from gicinpaint.data import Batch
from gicinpaint.losses import Hinge, ImageReconstruction, InpaintingLoss
from gicinpaint.masks import CenterMask
from gicinpaint.models.compositing import Box, mask_out
from gicinpaint.models.critics import GlobalCritic, LocalCritic, PatchCritic
from gicinpaint.models.gated import GatedGenerator
from gicinpaint.models.generator import Generator
from gicinpaint.training.module import InpaintingModule

PARTS = ("critic_update", "pair")
Size = tuple[int, int]  # height and width in pixels
Paper = Callable[[ContextualAttention | None, int, Size], InpaintingModule]
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


def attention_step(case: Case, layer: ContextualAttention, channels: int, backward: bool) -> Step:
    """Return a pass of random features with a hole in the middle through one layer, with or without the gradient."""
    shape = (case.batch_size, channels, case.height, case.width)
    features = torch.randn(shape, device=case.device).to(floating_point(case.dtype))
    mask, _ = _middle_hole(case)
    if not backward:
        return torch.inference_mode()(lambda: layer(features, mask=mask))
    features.requires_grad_()
    weight = torch.randn_like(features)

    def both() -> None:
        features.grad = None
        output: Tensor = layer(features, mask=mask)
        output.backward(weight)

    return both


@dataclass
class AttentionBenchmark:
    """Compare attention backends with each other; a wrong part raises a ValueError."""

    layers: Mapping[str, ContextualAttention]  # by backend
    basis: str = "reference"  # the backend that the others are compared with
    parts: Sequence[str] = ("forward", "forward_backward")
    sizes: Sequence[int | Sequence[int]] = (64, 128)  # feature cells: the image has four times as many along each axis
    batch_sizes: Sequence[int] = (1,)
    dtypes: Sequence[str] = ("float32",)
    channels: int = 128  # the paper's
    variants: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        check_parts(self.parts, ("forward", "forward_backward"))
        self.variants = tuple(self.layers)

    def work(self, part: str, variant: str) -> Work:
        """Return what sets up a backend's pass."""
        backward = part == "forward_backward"
        return partial(attention_step, layer=self.layers[variant], channels=self.channels, backward=backward)


def generator_step(
    case: Case, layer: ContextualAttention | None, width: int, network: type[nn.Module], channels_last: bool
) -> Step:
    """Return a pass of a masked image with a hole in the middle through a generator with random weights."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    generator = network(width, attention=layer).eval().to(case.device, floating_point(case.dtype))
    generator = generator.to(memory_format=layout)  # type: ignore[call-overload, unused-ignore]
    mask, _ = _middle_hole(case)
    masked = mask_out(_images(case), mask).to(floating_point(case.dtype)).contiguous(memory_format=layout)
    return torch.inference_mode()(lambda: generator(masked, mask))


@dataclass
class GeneratorBenchmark:
    """Compare generators by attention backend and layout in memory; a wrong part or layout raises a ValueError."""

    layers: Mapping[str, ContextualAttention | None]  # by backend; None is the generator without attention
    basis: str = "reference contiguous"  # the variant that the others are compared with
    layouts: Sequence[str] = ("contiguous", "channels_last")
    parts: Sequence[str] = ("forward",)
    sizes: Sequence[int | Sequence[int]] = (256, 512)  # pixels, multiples of 8
    batch_sizes: Sequence[int] = (1,)
    dtypes: Sequence[str] = ("float32",)  # of weights and images
    width: int = 32  # channels at full size, or of the second paper's first kernel
    network: type[nn.Module] = Generator
    variants: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        check_parts(self.parts, ("forward",))
        self.variants = _variants(self.layers, self.layouts)

    def work(self, part: str, variant: str) -> Work:
        """Return what sets up a variant's pass."""
        options = _options(self.layers, variant)
        return partial(generator_step, width=self.width, network=self.network, **options)


def training_step(
    case: Case, layer: ContextualAttention | None, width: int, paper: Paper, pair: bool, channels_last: bool
) -> Step:
    """Return an update of the critics, or of critics and generator, from images with a hole in the middle."""
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # it greets once per fabric
    layout = torch.channels_last if channels_last else torch.contiguous_format
    module = paper(layer, width, (case.height, case.width)).to(memory_format=layout)
    fabric = Fabric(accelerator=case.device, devices=1, precision=PRECISIONS[case.dtype])  # type: ignore[arg-type]
    optimizers, _ = module.configure_optimizers()
    wrapped, *_ = fabric.setup(module, *optimizers)
    batch = Batch(_images(case).contiguous(memory_format=layout), *_middle_hole(case))

    def step() -> None:
        module.batches_seen = module.critic_steps - 1 if pair else 0
        with fabric.autocast():  # as the trainer does; Fabric would for `forward` alone
            wrapped.training_step(batch, 0)

    return step


def first_paper(layer: ContextualAttention | None, width: int, size: Size) -> InpaintingModule:
    """Return the first paper's networks and losses; the critics have twice the generator's width, in channels."""
    half = (size[0] // 2, size[1] // 2)
    critics = {"global": GlobalCritic(2 * width, size), "local": LocalCritic(2 * width, half)}
    return InpaintingModule(Generator(width, attention=layer), critics)


def second_paper(layer: ContextualAttention | None, width: int, size: Size) -> InpaintingModule:
    """Return the second paper's networks and losses; the critic has four thirds of the generator's width."""
    loss = InpaintingLoss(Hinge(0.5), ImageReconstruction(), 1.0, 1.0, 0.0, 1.0, penalty_weight=0.0)
    critics = {"patch": PatchCritic(4 * width // 3)}
    return InpaintingModule(GatedGenerator(width, attention=layer), critics, loss, critic_steps=1)


@dataclass
class TrainingStepBenchmark:
    """Measure critic updates and generator updates; compare attention backends and layouts in memory.

    A wrong part, layout or type raises a ValueError.
    """

    layers: Mapping[str, ContextualAttention | None]  # by backend; None is the baseline without attention
    basis: str = "tiled contiguous"  # the variant that the others are compared with
    layouts: Sequence[str] = ("contiguous", "channels_last")
    parts: Sequence[str] = PARTS  # "critic_update": all critics; "pair": all critics and the generator
    sizes: Sequence[int | Sequence[int]] = (256,)  # pixels, multiples of 32
    batch_sizes: Sequence[int] = (1, 4)
    dtypes: Sequence[str] = ("float32",)  # bfloat16 and float16 are mixed precision
    width: int = 32  # channels of the generator, as for `first_paper` or `second_paper`
    paper: Paper = first_paper  # makes the module
    variants: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        check_parts(self.parts, PARTS)
        for dtype in self.dtypes:
            if dtype not in PRECISIONS:
                raise ValueError(f"dtypes must be among {', '.join(PRECISIONS)}, got {dtype!r}; correct the list")
        self.variants = _variants(self.layers, self.layouts)

    def work(self, part: str, variant: str) -> Work:
        """Return what sets up a variant's step."""
        options = _options(self.layers, variant)
        return partial(training_step, width=self.width, paper=self.paper, pair=part == "pair", **options)


def _variants(names: Iterable[str], layouts: Sequence[str]) -> tuple[str, ...]:
    """Return "<name> <layout>" for every name and layout in memory."""
    for layout in layouts:
        if layout not in ("contiguous", "channels_last"):
            raise ValueError(f"layouts must be contiguous or channels_last, got {layout!r}; correct benchmark.layouts")
    return tuple(f"{name} {layout}" for name in names for layout in layouts)


def _options(layers: Mapping[str, ContextualAttention | None], variant: str) -> dict[str, Any]:
    name, layout = variant.split()
    return {"layer": layers[name], "channels_last": layout == "channels_last"}


def _images(case: Case) -> Tensor:
    return torch.rand(case.batch_size, 3, case.height, case.width, device=case.device).mul(2).sub(1)


def _middle_hole(case: Case) -> tuple[Tensor, Box]:
    """Return masks whose hole is half as high and wide as the image, in its middle, and the holes' boxes."""
    mask = CenterMask((max(1, case.height // 2), max(1, case.width // 2)))
    return mask(case.batch_size, case.height, case.width, device=case.device)
