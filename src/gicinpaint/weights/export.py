"""The export job: write the files, compare each with the network, keep what computes the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from torch.export import ExportedProgram
from tqdm import tqdm

from gicinpaint.config.validation import ConfigurationError, JobError, check_configuration
from gicinpaint.models.generator import SIZE_MULTIPLE
from gicinpaint.weights.export_parity import Check, compare, open_onnx, open_torch
from gicinpaint.weights.export_program import LEAST_SIZE, Completer, Output, Size, trace, write_onnx, write_torch
from gicinpaint.weights.pretrained import find_default, load_generator

Format = Literal["onnx", "torch"]

READS = {
    "checkpoint": str | None,
    "output": str,
    "formats": list[Format],
    "outputs": list[Output],
    "check_sizes": list[Size],
    "tolerance": float,
}
FILES = {"onnx": "generator.onnx", "torch": "generator.pt2"}


def export(config: DictConfig) -> None:
    """Write a generator in the formats that a configuration names, and compare each with the network.

    Args:
        config: `conf/export.yaml`, composed.

    Raises:
        ConfigurationError: If a value is missing, wrong or unused.
        JobError: If there is no model, a package is absent, or a file does not compute what the network computes; the
            file is removed then.
    """
    check_configuration(config, READS)
    sizes: list[Size] = _plain(config.check_sizes)
    formats: list[Format] = _plain(config.formats)
    _check_sizes(sizes)
    try:
        path = config.checkpoint or find_default()
        completer = Completer(load_generator(path), _plain(config.outputs))
    except ValueError as error:
        raise JobError(str(error)) from error
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    with tqdm(total=1 + len(formats) * (1 + len(sizes)), desc="tracing", unit="step", leave=False) as bar:
        program = trace(completer)
        bar.update()
        for name in formats:
            bar.set_description(f"writing {FILES[name]}")
            checks = _write_and_check(name, program, completer, folder / FILES[name], sizes, bar)
            bar.write(report(folder / FILES[name], checks))
            _judge(folder / FILES[name], checks, config.tolerance)


def report(path: Path, checks: Sequence[Check]) -> str:
    """Return a table of how a file compares with the network."""
    lines = [
        f"{path}  {path.stat().st_size / 1e6:.1f} MB",
        f"  {'images':>14}{'difference':>12}{'network s':>11}{'file s':>9}",
    ]
    for (batch, height, width), difference, network, file in checks:
        lines.append(f"  {f'{batch} x {height}x{width}':>14}{difference:12.1e}{network:11.2f}{file:9.2f}")
    return "\n".join(lines)


def _write_and_check(
    name: Format, program: ExportedProgram, completer: Completer, path: Path, sizes: Sequence[Size], bar: tqdm
) -> list[Check]:
    try:
        if name == "onnx":
            write_onnx(program, completer.outputs, path)
            run = open_onnx(path)
        else:
            write_torch(program, path)
            run = open_torch(path)
    except (ImportError, OSError) as error:
        raise JobError(f"{path}: {error}") from error
    bar.update()
    checks = []
    for size in sizes:
        bar.set_description(f"checking {path.name} at {size[1]}x{size[2]}")
        checks.append(compare(run, completer, size))
        bar.update()
    return checks


def _judge(path: Path, checks: Sequence[Check], tolerance: float) -> None:
    worst = max(checks, key=lambda check: check.difference if check.difference == check.difference else float("inf"))
    if not worst.difference <= tolerance:
        path.unlink()
        raise JobError(
            f"{path} differed from the network by {worst.difference:.2g} at {worst.size[1]}x{worst.size[2]}, allowed "
            f"are {tolerance:g}; it was removed. Use the versions of constraints.txt"
        )


def _check_sizes(sizes: Sequence[Size]) -> None:
    for batch, height, width in sizes:
        if batch < 1 or min(height, width) < LEAST_SIZE or height % SIZE_MULTIPLE or width % SIZE_MULTIPLE:
            raise ConfigurationError(
                f"check_sizes: expected a batch, a height and a width, multiples of {SIZE_MULTIPLE} from {LEAST_SIZE} "
                f"on, got {[batch, height, width]}"
            )


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True)
