"""The benchmark job: list the cases, measure them, write table, CSV and plot."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from gicinpaint.benchmark.cases import Case, list_cases
from gicinpaint.benchmark.measure import BenchmarkLimits, CaseResult, Measuring, load
from gicinpaint.benchmark.report import Figure, FigureBenchmark, figure_table, plot, table, write_csv, write_figures
from gicinpaint.config.validation import JobError, build, check_configuration, load_option

READS = {
    "backends": list[str] | None,
    "attention": Any,
    "threads": list[int],
    "device": str,
    "memory": bool,
    "output": str,
}
BUSY = 0.5  # processes that want a core besides this one

_LOG = logging.getLogger(__name__)


def run_benchmark(config: DictConfig) -> Sequence[CaseResult | Figure]:
    """Measure what a configuration describes and return the results: of cases, or figures with a goal each.

    Args:
        config: `conf/benchmark.yaml`, composed.

    Raises:
        ConfigurationError: If a value is missing, wrong or unused; nothing is measured then.
        JobError: If there is no such device, size or type.
    """
    if config.backends is not None:
        OmegaConf.update(config, "benchmark.layers", _layers(config), force_add=True)
    check_configuration(config, READS)
    device = _device(config.device)
    benchmark = build(config.benchmark)
    limits: BenchmarkLimits = build(config.limits)
    before = load()
    try:
        cases = [] if isinstance(benchmark, FigureBenchmark) else list(list_cases(benchmark, config.threads, device))
    except ValueError as error:
        raise JobError(str(error)) from error
    _LOG.info(machine(device))
    if before > BUSY:
        _LOG.warning(
            f"other programs kept {before:.1f} cores busy during the last minute: times are too long and ratios may "
            "be off; measure on a quiet machine"
        )
    if isinstance(benchmark, FigureBenchmark):
        return _measure_figures(benchmark, limits.rounds, before, Path(config.output))
    results = _measure(cases, Measuring(benchmark.basis, limits, config.memory))
    folder = Path(config.output)
    _LOG.info(table(results, benchmark.basis))
    write_csv(results, folder / "benchmark.csv", before)
    _LOG.info(f"numbers    {folder / 'benchmark.csv'}")
    try:
        plot(results, folder / "benchmark.png")
        _LOG.info(f"plot       {folder / 'benchmark.png'}")
    except ImportError:
        _LOG.info("plot       none: install matplotlib, or gicinpaint[plots]")
    return results


def machine(device: str) -> str:
    """Return what the numbers were measured on, in a line."""
    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return f"torch {torch.__version__} on {name}, {os.cpu_count()} processors"


def _layers(config: DictConfig) -> dict[str, Any]:
    """Return the configuration of each backend's layer; `attention=...` on the command line is one of two."""
    names = list(config.backends)
    chosen = {}
    if config.get("attention") is not None:
        choice = str(HydraConfig.get().runtime.choices["attention"])
        names, chosen = ["reference", choice], {choice: config.attention}
    chosen["baseline"] = None
    return {name: chosen[name] if name in chosen else load_option("attention", name) for name in names}


def _measure(cases: list[Case], measuring: Measuring) -> list[CaseResult]:
    total = len(cases) * (measuring.limits.rounds + measuring.with_memory)
    results = []
    with tqdm(total=total, desc="measuring", unit="run", leave=False, dynamic_ncols=True) as bar:

        def show(case: Case) -> None:
            bar.set_postfix_str(str(case), refresh=False)
            bar.update()

        measuring.after_each = show
        for result in measuring.results(cases):
            results.append(result)
            bar.total -= 0 if result.seconds else measuring.limits.rounds + measuring.with_memory
    return results


def _measure_figures(benchmark: FigureBenchmark, rounds: int, load_before: float, folder: Path) -> list[Figure]:
    figures = []
    try:
        for figure in benchmark.figures(rounds):
            figures.append(figure)
            write_figures(figures, folder / "benchmark.csv", load_before)  # after each: the next one may take minutes
    except OSError as error:
        raise JobError(f"cannot measure: {error}") from error
    _LOG.info(figure_table(figures))
    _LOG.info(f"numbers    {folder / 'benchmark.csv'}")
    return figures


def _device(name: str) -> str:
    if name not in ("auto", "cpu", "cuda"):
        raise JobError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise JobError("device=cuda: torch finds no CUDA device here; use device=cpu")
    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    import platform

    return platform.processor() or "a processor"
