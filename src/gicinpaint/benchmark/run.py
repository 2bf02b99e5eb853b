"""The benchmark job: list the cases, measure them, write a table, a CSV file and a plot."""

import csv
import logging
import os
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from gicinpaint.benchmark.cases import Case, Figure, FigureBenchmark, list_cases
from gicinpaint.benchmark.measure import BenchmarkLimits, CaseResult, Measuring, load
from gicinpaint.config.progress_bar import Bar
from gicinpaint.config.validation import JobError, build, check_configuration, load_option
from gicinpaint.training.run_record import processor_name

READS = {
    "backends": list[str] | None,
    "attention": Any,
    "threads": list[int],
    "device": str,
    "memory": bool,
    "output": str,
}
BUSY = 0.5  # processes that want a core besides this one
_COLUMNS = (
    *("what", "variant", "height", "width", "batch_size", "dtype", "threads", "device", "median_s", "fastest_s"),
    *("ratio", "memory_bytes", "left_out", "load_before", "runs_s"),
)
_HEADER = ("what", "variant", "size", "batch", "type", "threads", "median s", "fastest s", "ratio", "memory MB")
_LOG = logging.getLogger(__name__)


def run_benchmark(config: DictConfig) -> Sequence[CaseResult | Figure]:
    """Measure what `conf/benchmark.yaml`, composed, describes and return the results: of cases, or figures.

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
    folder = Path(config.output)
    if isinstance(benchmark, FigureBenchmark):
        return _measure_figures(benchmark, limits.rounds, before, folder)
    results = _measure(cases, Measuring(benchmark.basis, limits, config.memory))
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
    name = torch.cuda.get_device_name() if device == "cuda" else processor_name()
    return f"torch {torch.__version__} on {name}, {os.cpu_count()} processors"


def table(results: Sequence[CaseResult], basis: str) -> str:
    """Return the results as aligned text, a blank line between comparisons."""
    rows = [_HEADER, *(_row(result) for result in results)]
    text = _aligned(rows, [result.case.comparison for result in results], right=range(3, len(_HEADER)))
    return f"{text}\n\nratio: time of {basis} / time; memory: peak beyond inputs and weights"


def write_csv(results: Sequence[CaseResult], path: Path, load: float) -> None:
    """Write a row for each case, with every single measurement and the machine's load before the run."""
    rows: list[Sequence[object]] = [_COLUMNS]
    for result in results:
        case = [getattr(result.case, name) for name in _COLUMNS[:8]]
        times = [f"{result.median:.6g}", f"{min(result.seconds):.6g}"] if result.seconds else ["", ""]
        cost = ["" if result.ratio is None else f"{result.ratio:.4g}", "" if result.memory is None else result.memory]
        runs = " ".join(f"{seconds:.6g}" for seconds in result.seconds)
        rows.append([*case, *times, *cost, result.left_out, f"{load:.2f}", runs])
    _write_rows(rows, path)


def plot(results: Sequence[CaseResult], path: Path) -> None:
    """Draw time and memory against the pixels of an image, both axes logarithmic, a line for each curve."""
    from matplotlib.figure import Figure as Canvas

    measured = [result for result in results if result.seconds]
    times = [(result.case, result.median) for result in measured]
    memory = [(result.case, result.memory / 1e6) for result in measured if result.memory]
    figure = Canvas(figsize=(12 if memory else 7, 5), layout="constrained")
    panels = figure.subplots(1, 2 if memory else 1, squeeze=False)[0]
    _draw(panels[0], times, "seconds per step")
    if memory:
        _draw(panels[1], memory, "peak memory, MB")
    panels[0].legend(fontsize=7)
    figure.savefig(path, dpi=120)


def figure_table(figures: Sequence[Figure]) -> str:
    """Return the figures as aligned text, a blank line between parts."""
    rows = [("what", "figure", "unit", "goal", "")]
    rows += [(f.what, f"{f.value:,.4g}", f.unit, f.goal, f.verdict) for f in figures]
    return _aligned(rows, [figure.part for figure in figures], right=(1,))


def write_figures(figures: Sequence[Figure], path: Path, load: float) -> None:
    """Write a row for each figure, with the machine's load before the run."""
    rows = [("part", "what", "value", "unit", "goal", "verdict", "load_before")]
    rows += [(f.part, f.what, f"{f.value:.6g}", f.unit, f.goal, f.verdict, f"{load:.2f}") for f in figures]
    _write_rows(rows, path)


def _aligned(rows: Sequence[Sequence[str]], groups: Sequence[object], right: Container[int]) -> str:
    """Return a header and rows as aligned text, a blank line between the rows of different groups."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for number, row in enumerate(rows):
        if number > 1 and groups[number - 1] != groups[number - 2]:
            lines.append("")
        cells = (f"{text:{'>' if i in right else '<'}{widths[i]}}" for i, text in enumerate(row))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _write_rows(rows: Iterable[Sequence[object]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


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
    with Bar(total=total, desc="measuring", unit="run", leave=False) as bar:

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


def _draw(axes: Any, values: Iterable[tuple[Case, float]], label: str) -> None:
    curves: dict[tuple[object, ...], list[tuple[int, float]]] = {}
    for case, value in values:
        curves.setdefault(case.curve, []).append((case.pixels, value))
    for number, (curve, points) in enumerate(curves.items()):
        what, variant, batch_size, dtype, threads, _ = curve
        name = f"{what} {variant}, batch {batch_size}, {dtype}, {threads} threads"
        axes.loglog(*zip(*points, strict=True), marker="os^vD<>"[number % 7], label=name)
    first = min((points[0] for points in curves.values()), key=lambda point: point[1])
    last = max(pixels for points in curves.values() for pixels, _ in points)
    axes.loglog([first[0], last], [first[1], first[1] * last / first[0]], "k:", linewidth=1, label="linear in pixels")
    axes.set(xlabel="pixels (or feature cells)", ylabel=label)
    axes.grid(which="both", alpha=0.2)


def _row(result: CaseResult) -> tuple[str, ...]:
    case, size = result.case, f"{result.case.height}x{result.case.width}"
    start = (case.what, case.variant, size, str(case.batch_size), case.dtype, str(case.threads))
    if not result.seconds:
        return (*start, "", "", "", result.left_out)
    ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
    memory = "" if result.memory is None else f"{result.memory / 1e6:,.0f}"
    return (*start, f"{result.median:.4f}", f"{min(result.seconds):.4f}", ratio, memory)
