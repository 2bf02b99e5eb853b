"""The convert job: a model from one kind of file to another, compared with the original before it counts as done."""

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from gicinpaint.config.atomic_files import atomic_file
from gicinpaint.config.validation import JobError, check_configuration
from gicinpaint.models.generator import Completion
from gicinpaint.models.stored import StoredNetwork
from gicinpaint.weights.pretrained import load_generator, save_generator

READS = {
    "source": str,
    "output": str,
    "dtype": Literal["float32", "float16"],
    "raw": bool,
    "check": str | None,
    "tolerance": float,
}
_SUFFIX = ".ckpt"
_STAGES = ("coarse", "refined")
_MOST_ROUNDING = 1 / 255  # of an output in [-1, 1] on average: half a level of an 8-bit picture
_GOLDEN = {"coarse": "x_stage1", "refined": "x_stage2"}  # names of the stages in files of golden outputs


def convert(config: DictConfig) -> None:
    """Convert what a configuration names.

    Args:
        config: `conf/convert.yaml`, composed.

    Raises:
        ConfigurationError: If a value is missing, wrong or unused.
        JobError: If the source is no model, or the result does not give the outputs that it must give.
    """
    check_configuration(config, READS)
    official = (Path(config.source) / "checkpoint").is_file() and not (Path(config.source) / "config.json").is_file()
    swapped = official and not config.raw
    dtype: torch.dtype = getattr(torch, config.dtype)
    image, mask = _example()
    given = image.flip(1) if swapped else image
    try:
        original = load_generator(config.source, raw=True)
        exact = run(original, given, mask)
        expected = run(rounded(original, dtype).float(), given, mask)
        changed = _rounding(expected, exact, config.dtype)
        save(rounded(load_generator(config.source, raw=config.raw), dtype), config.output)
        result = load_generator(config.output)
    except (ValueError, OSError) as error:
        raise JobError(str(error)) from error
    difference = compare(run(result, image, mask), {k: v.flip(1) if swapped else v for k, v in expected.items()})
    what = "the original" if dtype == torch.float32 else f"the original rounded to {config.dtype}"
    _judge(difference, config.tolerance, what)
    parameters = sum(parameter.numel() for parameter in result.parameters())
    print(f"{config.source} -> {config.output}: {parameters:,} parameters, equal to {what} to {difference:.2g}")
    if dtype != torch.float32:
        print(f"rounding to {config.dtype} changes its outputs in [-1, 1] by {changed:.2g} on average")
    if official:
        print("its images are " + ("blue, green, red" if config.raw else "red, green, blue (the authors' are not)"))
    if config.check is not None:
        difference = check_golden(result, config.check, swapped)
        _judge(difference, config.tolerance, config.check)
        print(f"equal to the outputs in {config.check} to {difference:.2g}")


def save(generator: nn.Module, output: str) -> None:
    """Write a generator as a checkpoint where the name ends in .ckpt, else as a folder of safetensors and settings.

    A checkpoint has the generator's weights and configuration as training checkpoints have them, and nothing else.

    Raises:
        ValueError: If it is no network of this package.
    """
    if not output.endswith(_SUFFIX):
        save_generator(generator, output)
        return
    if not isinstance(generator, StoredNetwork):
        raise ValueError(f"generator must be one of this package, got {type(generator).__name__}")
    settings = dict(generator.settings)
    node: dict[str, Any] = {"_target_": f"{type(generator).__module__}.{settings.pop('network')}", **settings}
    if node.get("attention") is not None:
        node["attention"] = {"_target_": "gicinpaint.attention.ContextualAttention", **node["attention"]}
    weights = {f"generator.{name}": value for name, value in generator.state_dict().items()}
    with atomic_file(output) as partial:
        torch.save({"state_dict": weights, "config": {"generator": node}}, partial)


def rounded(generator: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a generator, changed in place, with its weights in another type.

    Raises:
        ValueError: If a weight is not finite in that type.
    """
    generator = generator.to(dtype)
    for name, value in generator.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            kind, most = str(dtype).removeprefix("torch."), torch.finfo(dtype).max
            raise ValueError(
                f"weights must be finite and at most {most:.5g} to be stored as {kind}, got others in {name}; use "
                "dtype=float32, or train the model again"
            )
    return generator


@torch.no_grad()
def run(generator: nn.Module, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Return the stages' outputs by name, (B, 3, H, W), for images and masks as networks take them."""
    completion: Completion = generator(image * (1 - mask), mask)
    return {name: value for name in _STAGES if (value := getattr(completion, name)) is not None}


def compare(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the largest absolute difference over all stages; infinite where a stage is missing or not a number."""
    if actual.keys() != expected.keys():
        return float("inf")
    differences = [(actual[name] - value).abs().max().item() for name, value in expected.items()]
    return max(float("inf") if np.isnan(difference) else difference for difference in differences)


def _rounding(actual: dict[str, Tensor], exact: dict[str, Tensor], dtype: str) -> float:
    """Return by how much the rounding of weights changes the stages' outputs, on average over the worse stage."""
    changed = max((actual[name] - value).abs().mean().item() for name, value in exact.items())
    if not changed <= _MOST_ROUNDING:
        raise ValueError(
            f"rounding to {dtype} must change outputs by at most {_MOST_ROUNDING:.2g} on average, got {changed:.2g}; "
            "use dtype=float32"
        )
    return changed


def check_golden(generator: nn.Module, path: str | os.PathLike[str], swapped: bool) -> float:
    """Return the largest difference from outputs that the authors' code computed.

    Args:
        generator: The converted network.
        path: A file of arrays `x`, `mask`, `x_stage1` and `x_stage2`, for blue, green, red.
        swapped: Whether the network takes red, green, blue.

    Raises:
        JobError: If the file cannot be read or lacks one of them.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: torch.from_numpy(archive[name]).float() for name in ("x", "mask", *_GOLDEN.values())}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise JobError(f"check: {path} must hold x, mask, x_stage1 and x_stage2: {error}") from error
    if swapped:
        arrays = {name: value if name == "mask" else value.flip(1) for name, value in arrays.items()}
    actual = run(generator, arrays["x"], arrays["mask"])
    return compare(actual, {name: arrays[golden] for name, golden in _GOLDEN.items() if name in actual})


def _judge(difference: float, tolerance: float, what: str) -> None:
    if not difference <= tolerance:
        raise JobError(
            f"the result's outputs differ from those of {what} by {difference:.3g}, more than {tolerance:g}; "
            "do not use it"
        )


def _example() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(2, 1, 64, 96)
    mask[0, :, 16:48, 30:62] = 1
    mask[1, :, 8:24, 8:32] = 1
    return torch.rand(2, 3, 64, 96, generator=generator) * 2 - 1, mask
