"""The export job: write a generator as ONNX or for torch.export, and keep the files that agree with the network."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from gicinpaint.attention import ContextualAttention, FactorizedAttention
from gicinpaint.config.atomic_files import atomic_file
from gicinpaint.config.progress_bar import Bar
from gicinpaint.config.validation import ConfigurationError, JobError, check_configuration
from gicinpaint.models.compositing import composite, mask_out
from gicinpaint.models.generator import SIZE_MULTIPLE, Completion
from gicinpaint.weights.onnx_file import Run, open_onnx, quiet, to_float, to_levels, write_onnx
from gicinpaint.weights.pretrained import find_default, load_generator

Format = Literal["onnx", "torch"]
Output = Literal["completed", "coarse", "refined", "offset"]
Size = tuple[int, int, int]  # batch, height, width

READS = {
    "checkpoint": str | None,
    "output": str,
    "formats": list[Format],
    "outputs": list[Output],
    "check_sizes": list[Size],
    "tolerance": float,
    "uint8": bool,
}
FILES = {"onnx": "generator.onnx", "torch": "generator.pt2"}
_LEVEL = 2 / 255  # of 8 bits: where rounding may fall to either side
_LEAST_SIZE = 2 * SIZE_MULTIPLE  # torch.export takes a count of 1, here of attended cells, for a constant


class Check(NamedTuple):
    """How a file compares with the network at one size: in [-1, 1], for offsets the share of cells that differ."""

    size: Size
    difference: float
    network_seconds: float
    file_seconds: float


class Completer(nn.Module):
    """What is exported: from an image and its hole to the completed image.

    The generator is copied, with the attention of `FactorizedAttention`: plain tensor operations for any size, the same
    numbers, and memory for the whole score matrix.

    Args:
        generator: Maps (masked, mask) to a `Completion`.
        outputs: What is returned, in order: the completed image, the coarse one (known pixels in place), the second
            stage's raw output, or where each cell was copied from.

    Shape:
        - image: (B, 3, H, W), [-1, 1], H and W multiples of 8; what lies in the hole does not matter
        - mask: (B, 1, H, W), {0, 1}
        - returned: one tensor for each name in outputs: (B, 3, H, W), or int64 (B, 2, H / 8, W / 8) for the offset

    Raises:
        ValueError: If an output is asked for that the generator does not have, or its attention has a stride.
    """

    def __init__(self, generator: nn.Module, outputs: Sequence[Output] = ("completed",)) -> None:
        super().__init__()
        self.generator = copy.deepcopy(generator).cpu().eval().requires_grad_(False)
        self.outputs = tuple(outputs)
        layers = [module for module in self.generator.modules() if isinstance(module, ContextualAttention)]
        for layer in layers:
            if layer.stride > 1:
                raise ValueError(f"attention must take every patch to be exported, got stride={layer.stride}")
            layer.backend = FactorizedAttention()
        absent = {"offset"} if not layers else set()
        absent |= {"refined"} if not hasattr(generator, "refinement_network") else set()
        if not outputs or absent & set(outputs):
            offered = [name for name in get_args(Output) if name not in absent]
            raise ValueError(f"outputs must be some of {', '.join(offered)} for this generator, got {list(outputs)}")

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs that were asked for."""
        completion: Completion = self.generator(mask_out(image, mask), mask, return_offset="offset" in self.outputs)
        made: dict[str, Callable[[], Tensor | None]] = {  # what is not asked for stays out of the file
            "completed": lambda: composite(image, completion.prediction, mask),
            "coarse": lambda: composite(image, completion.coarse, mask),
            "refined": lambda: completion.refined,
            "offset": lambda: completion.offset,
        }
        return tuple(tensor for name in self.outputs if (tensor := made[name]()) is not None)


def export(config: DictConfig) -> None:
    """Write a generator in the formats that `conf/export.yaml` names, and compare each with the network.

    Raises:
        ConfigurationError: If a value is missing, wrong or unused.
        JobError: If there is no model, a package is absent, the output is a file, or a written file fails its check.
    """
    check_configuration(config, READS)
    if Path(config.output).is_file():
        raise JobError(f"output: {config.output} is a file; name a folder")
    lists: Any = {key: OmegaConf.to_container(config[key]) for key in ("formats", "outputs", "check_sizes")}
    sizes: list[Size] = lists["check_sizes"]
    _check_sizes(sizes)
    if config.uint8 and (lists["formats"], lists["outputs"]) != (["onnx"], ["completed"]):
        raise ConfigurationError("uint8: expected formats=[onnx] and outputs=[completed], whose images have 8 bits")
    try:
        completer = Completer(load_generator(config.checkpoint or find_default()), lists["outputs"])
    except ValueError as error:
        raise JobError(str(error)) from error
    with Bar(total=1 + len(lists["formats"]) * (1 + len(sizes)), desc="tracing", unit="step", leave=False) as bar:
        program = trace(completer)
        bar.update()
        for name in lists["formats"]:
            path = Path(config.output) / FILES[name]
            bar.set_description(f"writing {path.name}")
            written = _write(name, program, completer.outputs, path, config.uint8)
            bar.update()
            checks = []
            for size in sizes:
                bar.set_description(f"checking {path.name} at {size[1]}x{size[2]}")
                checks.append(compare(written, completer, size, config.uint8))
                bar.update()
            bar.write(_report(path, checks))
            _judge(path, checks, config.tolerance + (_LEVEL if config.uint8 else 0))


def trace(completer: Completer) -> ExportedProgram:
    """Return a completer as a program for any batch, height and width: multiples of 8, from 16 on (ONNX: from 8)."""
    image, mask = example((2, 6 * SIZE_MULTIPLE, 4 * SIZE_MULTIPLE))
    axes = {0: Dim("batch"), 2: SIZE_MULTIPLE * Dim("rows"), 3: SIZE_MULTIPLE * Dim("columns")}
    with quiet():
        return torch.export.export(completer, (image, mask), dynamic_shapes=(axes, axes), strict=False)


def write_torch(program: ExportedProgram, path: Path) -> None:
    """Write a traced completer for `torch.export.load`, whole or not at all."""
    with quiet(), atomic_file(path) as partial, partial.open("wb") as file:  # a stream: a path would need .pt2
        torch.export.save(program, file)


def open_torch(path: Path) -> Run:
    """Return a function that runs a file of torch.export."""
    program = torch.export.load(path).module()
    return lambda image, mask: program(image, mask)


@torch.inference_mode()
def compare(run: Run, completer: Completer, size: Size, uint8: bool = False) -> Check:
    """Run an exported file and the network on the same random images with holes, one hole per image, 8-bit or not."""
    image, mask = example(size)
    image = to_float(to_levels(image)) if uint8 else image
    begin = time.perf_counter()
    expected = completer(image, mask)
    between = time.perf_counter()
    actual = run(image, mask)
    end = time.perf_counter()
    return Check(size, max(map(difference, actual, expected)), between - begin, end - between)


def example(size: Size) -> tuple[Tensor, Tensor]:
    """Return smooth random images in [-1, 1] and masks with a hole of another place in each image."""
    batch, height, width = size
    rng = torch.Generator().manual_seed(height * 10007 + width)
    coarse = torch.rand(batch, 3, height // 8, width // 8, generator=rng) * 2 - 1
    image = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    mask = torch.zeros(batch, 1, height, width)
    for i in range(batch):
        top, left = (3 * i + 2) % (height // 2), (5 * i + 3) % (width // 2)
        mask[i, :, top : top + height // 3, left : left + width // 3] = 1
    return image, mask


def _write(name: Format, program: ExportedProgram, outputs: Sequence[str], path: Path, uint8: bool) -> Run:
    """Return a function that runs the file that was written."""
    try:
        if name == "onnx":
            write_onnx(program, outputs, path, uint8=uint8)
            return open_onnx(path)
        write_torch(program, path)
        return open_torch(path)
    except (ImportError, OSError) as error:
        raise JobError(f"{path}: {error}") from error


def _report(path: Path, checks: Sequence[Check]) -> str:
    lines = [f"{path}  {path.stat().st_size / 1e6:.1f} MB"]
    lines.append(f"  {'images':>14}{'difference':>12}{'network s':>11}{'file s':>9}")
    for (batch, height, width), difference, network, file in checks:
        lines.append(f"  {f'{batch} x {height}x{width}':>14}{difference:12.1e}{network:11.2f}{file:9.2f}")
    return "\n".join(lines)


def _judge(path: Path, checks: Sequence[Check], tolerance: float) -> None:
    worst = max(checks, key=lambda check: check.difference)
    if not worst.difference <= tolerance:
        path.unlink()
        raise JobError(
            f"{path} differed from the network by {worst.difference:.2g} at {worst.size[1]}x{worst.size[2]}, allowed "
            f"are {tolerance:g}; it was removed. Use the versions of constraints.txt"
        )


def difference(actual: Tensor | np.ndarray, expected: Tensor) -> float:
    """Return the largest absolute difference, or of whole numbers the share that differ.

    It is infinite where shapes differ or something is not a number.
    """
    found = torch.as_tensor(actual)
    if found.shape != expected.shape:
        return math.inf
    if not expected.is_floating_point():  # offsets: keys that are equally good may be told apart by rounding
        return (found != expected).double().mean().item()
    return (found.double() - expected.double()).abs().nan_to_num(math.inf, math.inf).max().item()


def _check_sizes(sizes: Sequence[Size]) -> None:
    if not sizes:
        raise ConfigurationError("check_sizes: expected at least one size, got none; every file is compared")
    for batch, height, width in sizes:
        if batch < 1 or min(height, width) < _LEAST_SIZE or height % SIZE_MULTIPLE or width % SIZE_MULTIPLE:
            raise ConfigurationError(
                f"check_sizes: expected a batch, a height and a width, multiples of {SIZE_MULTIPLE} from {_LEAST_SIZE} "
                f"on, got {[batch, height, width]}"
            )
