"""Settings that make a training step faster on some machines and change its results by rounding alone."""

from typing import Any, cast

import torch

from gicinpaint.training.module import InpaintingModule


def hasten(module: InpaintingModule, *, channels_last: bool, compiled: bool, backend: str = "inductor") -> None:
    """Prepare a module's networks; names and shapes in its checkpoints stay as they are.

    Args:
        module: Its networks are changed in place.
        channels_last: Lay convolutions' weights out pixel by pixel, which their outputs follow.
        compiled: Compile the generator. The critics are left out: one without `input_gradient` is
            differentiated twice, which compiled code cannot be.
        backend: What compiles, a name that torch.compile knows.
    """
    if channels_last:
        for network in (module.generator, module.critics):
            cast(Any, network).to(memory_format=torch.channels_last)
    if compiled:
        module.generator.compile(backend=backend)
