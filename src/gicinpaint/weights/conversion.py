"""The convert job: a model from one kind of file to another, compared with the original before it counts as done."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from gicinpaint.config.atomic_files import atomic_file
from gicinpaint.config.validation import JobError, check_configuration
from gicinpaint.models.generator import Completion
from gicinpaint.models.stored import StoredNetwork
from gicinpaint.weights.export import difference, example
from gicinpaint.weights.pretrained import configuration_node, load_generator, save_generator
from gicinpaint.weights.tf_checkpoint import read_checkpoint
from gicinpaint.weights.tf_convert import swap_image_channels
from gicinpaint.weights.tf_write import write_checkpoint
from gicinpaint.weights.training_state import TrainingState, from_checkpoint, from_variables, write_training_checkpoint

READS = {
    "source": str,
    "output": str,
    "dtype": Literal["float32", "float16"],
    "raw": bool,
    "to": Literal["gicinpaint", "tensorflow"],
    "slots": bool,
    "check": str | None,
    "tolerance": float,
}
_MOST_ROUNDING = 1 / 255  # of an output in [-1, 1] on average: half a level of an 8-bit picture
_GOLDEN = {"coarse": "x_stage1", "refined": "x_stage2"}  # names of the stages in files of golden outputs


def convert(config: DictConfig) -> None:
    """Convert what `conf/convert.yaml` names.

    Raises:
        ConfigurationError: If a value is missing, wrong or unused.
        JobError: If the source is no model, or the result does not give the outputs that it must give.
    """
    check_configuration(config, READS)
    official = (Path(config.source) / "checkpoint").is_file() and not (Path(config.source) / "config.json").is_file()
    to_tensorflow = config.to == "tensorflow"
    swapped = official and not config.raw and not to_tensorflow
    dtype: torch.dtype = getattr(torch, config.dtype)
    image, mask = example((2, 64, 96))
    given = image.flip(1) if swapped else image
    try:
        original, state = load_generator(config.source, raw=True), None
        if config.slots:
            state = from_variables(read_checkpoint(config.source)) if official else from_checkpoint(config.source)
            original = _with_weights(original, state.networks["generator"])  # the trained weights, not their average
        exact = run(original, given, mask)
        expected = run(rounded(original, dtype).float(), given, mask)
        changed = _rounding(expected, exact, config.dtype)
        weights = swap_image_channels(original.state_dict()) if swapped else original.state_dict()
        generator = rounded(_with_weights(original, weights), dtype)
        if to_tensorflow:
            state = state or TrainingState({"generator": generator.state_dict()}, {})
            _write_tensorflow(state if official or config.raw else state.swapped(), original, config.output)
        elif state is not None:
            write_training_checkpoint(state.swapped() if swapped else state, generator, config.output)
        else:
            save(generator, config.output)
        result = load_generator(config.output, raw=official or config.raw)
        if to_tensorflow:
            result = _with_weights(original, result.state_dict())  # variables tell no padding
    except (ValueError, OSError) as error:
        raise JobError(str(error)) from error
    found = compare(run(result, image, mask), {k: v.flip(1) if swapped else v for k, v in expected.items()})
    what = "the original" if dtype == torch.float32 else f"the original rounded to {config.dtype}"
    _judge(found, config.tolerance, what)
    parameters = sum(parameter.numel() for parameter in result.parameters())
    print(f"{config.source} -> {config.output}: {parameters:,} parameters, equal to {what} to {found:.2g}")
    if state is not None and config.slots:
        print(f"with {', '.join(state.networks)}, Adam's moments and {state.adam_updates:,} updates")
    if dtype != torch.float32:
        print(f"rounding to {config.dtype} changes its outputs in [-1, 1] by {changed:.2g} on average")
    if official or to_tensorflow:
        reversed_ = config.raw or to_tensorflow
        print("its images are " + ("blue, green, red" if reversed_ else "red, green, blue (the authors' are not)"))
    if config.check is not None:
        found = check_golden(result, config.check, swapped)
        _judge(found, config.tolerance, config.check)
        print(f"equal to the outputs in {config.check} to {found:.2g}")


def _with_weights(generator: StoredNetwork, weights: Mapping[str, Tensor]) -> StoredNetwork:
    return type(generator).build(generator.settings, weights, type(generator).__name__)


def _write_tensorflow(state: TrainingState, generator: StoredNetwork, output: str) -> None:
    for name, expected in (("residual", (False,)), ("padding", ("zeros", "mirror"))):
        if (value := generator.settings.get(name, expected[0])) not in expected:
            raise ValueError(
                f"the authors' code has no generator with {name}={value}; keep it as safetensors, or export it"
            )
    if output.endswith(".ckpt"):
        raise ValueError(f"output must be a folder for a TensorFlow checkpoint, got {output}; leave out .ckpt")
    write_checkpoint(state.variables(), output, f"snap-{state.generator_updates}")


def save(generator: StoredNetwork, output: str) -> None:
    """Write weights and settings as a checkpoint if the name ends in .ckpt, else as a folder of safetensors."""
    if not output.endswith(".ckpt"):
        save_generator(generator, output)
        return
    weights = {f"generator.{name}": value for name, value in generator.state_dict().items()}
    run = {"dataset.image_size": generator.trained_size} if generator.trained_size else {}
    config = {"generator": configuration_node(generator)}
    with atomic_file(output) as partial:
        torch.save({"state_dict": weights, "config": config, "run_settings": run}, partial)


def rounded(generator: StoredNetwork, dtype: torch.dtype) -> StoredNetwork:
    """Return a generator, changed in place, with its weights in another type, or raise if one is not finite there."""
    generator = generator.to(dtype)
    for name, value in generator.state_dict().items():
        if not value.isfinite().all():
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
    return {name: value for name in _GOLDEN if (value := getattr(completion, name)) is not None}


def compare(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the largest absolute difference over all stages; infinite where a stage is missing or not a number."""
    if actual.keys() != expected.keys():
        return math.inf
    return max(difference(actual[name], value) for name, value in expected.items())


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
    """Return the largest difference from the authors' outputs, `x_stage1` and `x_stage2` for `x` and `mask` in a file.

    The file's images are blue, green, red; swapped tells that the network takes red, green, blue.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: torch.from_numpy(archive[name]).float() for name in ("x", "mask", *_GOLDEN.values())}
        if swapped:
            arrays = {name: value if name == "mask" else value.flip(1) for name, value in arrays.items()}
        actual = run(generator, arrays["x"], arrays["mask"])
    except Exception as error:  # foreign bytes and shapes raise anything
        raise JobError(f"check: {path} must hold x, mask, x_stage1 and x_stage2: {error}") from error
    return compare(actual, {name: arrays[golden] for name, golden in _GOLDEN.items() if name in actual})


def _judge(found: float, tolerance: float, what: str) -> None:
    if not found <= tolerance:
        more = f"differ from those of {what} by {found:.3g}, more than {tolerance:g}"
        raise JobError(f"the result's outputs {more}; do not use it")
