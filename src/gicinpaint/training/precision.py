"""Precision, memory layout and compilation: a faster training step, whose results differ by rounding alone."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from omegaconf import DictConfig

from gicinpaint.config.validation import ConfigurationError
from gicinpaint.training.module import InpaintingModule

_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # for products of bfloat16: Intel's and AMD's, and ARM's


def settle_precision(config: DictConfig) -> str:
    """Replace `trainer.precision=auto` by what is fastest on the device; return a line that says so, else nothing.

    Args:
        config: A job's configuration; `config.trainer.precision` is set in place.

    Raises:
        ConfigurationError: If the weights themselves would be 16 bits wide: updates would be lost in their rounding.
    """
    settings = config.trainer
    if settings.precision in ("bf16-true", "16-true"):
        mixed = settings.precision.replace("true", "mixed")
        raise ConfigurationError(
            f"trainer.precision: expected 32-true, 64-true, bf16-mixed, 16-mixed or auto, got {settings.precision}; "
            f"use {mixed}, which keeps the weights in float32"
        )
    if settings.precision != "auto":
        return ""
    fast, reason = _fast_bfloat16(settings.accelerator)
    settings.precision = "bf16-mixed" if fast else "32-true"
    return f"precision: {settings.precision}, because {reason}"


def _fast_bfloat16(accelerator: str) -> tuple[bool, str]:
    """Tell whether a device multiplies bfloat16 by instructions of its own, and how that is known."""
    if accelerator != "cpu" and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return fast, f"{torch.cuda.get_device_name()} {'computes' if fast else 'does not compute'} in bfloat16"
    if accelerator == "mps" or (accelerator != "cpu" and torch.backends.mps.is_available()):
        return False, "bfloat16 is not tested on mps"
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 does not have it
    found = [name for name in _INSTRUCTIONS if capabilities.get(name)]
    return bool(found), f"the processor has {' and '.join(found) or 'no bfloat16 instructions'}"


def hasten(module: InpaintingModule, *, channels_last: bool, compiled: bool, backend: str = "inductor") -> None:
    """Prepare a module's networks; names and shapes in its checkpoints stay as they are.

    Args:
        module: Its networks are changed in place.
        channels_last: Store convolutions' weights with the channels of a pixel side by side; outputs follow.
        compiled: Compile the generator. The critics are left out: one without `input_gradient` is
            differentiated twice, which compiled code cannot be.
        backend: What compiles, a name that torch.compile knows.
    """
    if channels_last:
        for network in (module.generator, module.critics):
            cast(Any, network).to(memory_format=torch.channels_last)
    if compiled:
        module.generator.compile(backend=backend)
