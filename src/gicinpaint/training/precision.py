"""Faster steps: the precision that the device is fastest at, the memory format, compilation."""

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig

from gicinpaint.config.validation import ConfigurationError
from gicinpaint.training.module import InpaintingModule

_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # for products of bfloat16: Intel's and AMD's, and ARM's


def settle_precision(config: DictConfig) -> str:
    """Replace `trainer.precision=auto` by what is fastest on the device; return a line that says so, else nothing.

    Weights of 16 bits are a ConfigurationError: updates would be lost in their rounding.
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
    if found == ["avx512_bf16"] and "Intel" in capabilities.get("cpu_name", ""):
        return False, "an Intel processor with avx512_bf16 and without amx_bf16 is slower in bfloat16"
    return bool(found), f"the processor has {' and '.join(found) or 'no bfloat16 instructions'}"


def hasten(module: InpaintingModule, *, channels_last: bool, compiled: bool, backend: str = "inductor") -> str:
    """Store weights with the channels of a pixel side by side, compile the generator, or both, in place.

    Return a line on what compiling costs, or nothing. Names and shapes in checkpoints stay. The generator is one
    region: its layers differ in shape, and compiled one by one they take longer and gain nothing. Critics are not
    compiled: one without `input_gradient` is differentiated twice, which compiled code cannot be.
    """
    if channels_last:
        module.generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
        module.critics.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
    if not compiled:
        return ""
    module.generator.compile(backend=backend)
    folder = os.environ.get("TORCHINDUCTOR_CACHE_DIR", tempfile.gettempdir())
    return f"compile: the first update takes minutes, later runs find the code in {folder} (TORCHINDUCTOR_CACHE_DIR)"
