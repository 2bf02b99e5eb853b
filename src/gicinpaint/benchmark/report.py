"""What came out of a benchmark: tables, CSV files, a plot; and figures with a goal, for what is no repeated step."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from gicinpaint.benchmark.measure import CaseResult

_COLUMNS = (
    *("what", "variant", "height", "width", "batch_size", "dtype", "threads", "device", "median_s", "fastest_s"),
    *("ratio", "memory_bytes", "left_out", "load_before", "runs_s"),
)
_HEADER = ("what", "variant", "size", "batch", "type", "threads", "median s", "fastest s", "ratio", "memory MB")


def table(results: Sequence[CaseResult], basis: str) -> str:
    """Return the results as aligned text, a blank line between comparisons."""
    rows = [_HEADER, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = []
    for number, row in enumerate(rows):
        left = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
        if number > 1 and results[number - 1].case.comparison != results[number - 2].case.comparison:
            lines.append("")
        lines.append("  ".join((*left, *right)).rstrip())
    return "\n".join([*lines, "", f"ratio: time of {basis} / time; memory: peak beyond inputs and weights"])


def write_csv(results: Sequence[CaseResult], path: Path, load: float) -> None:
    """Write a row for each case, with every single measurement and the machine's load before the run."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for result in results:
            case = result.case
            times = (f"{result.median:.6g}", f"{min(result.seconds):.6g}") if result.seconds else ("", "")
            writer.writerow(
                (
                    *(case.what, case.variant, case.height, case.width, case.batch_size, case.dtype, case.threads),
                    *(case.device, *times, "" if result.ratio is None else f"{result.ratio:.4g}"),
                    *("" if result.memory is None else result.memory, result.left_out, f"{load:.2f}"),
                    " ".join(f"{seconds:.6g}" for seconds in result.seconds),
                )
            )


def plot(results: Sequence[CaseResult], path: Path) -> None:
    """Draw time and memory against the pixels of an image, both axes logarithmic, a line for each curve.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    from matplotlib.figure import Figure as Canvas

    measured = [result for result in results if result.seconds]
    with_memory = [result for result in measured if result.memory]
    figure = Canvas(figsize=(12 if with_memory else 7, 5), layout="constrained")
    panels = figure.subplots(1, 2 if with_memory else 1, squeeze=False)[0]
    _draw(panels[0], measured, [result.median for result in measured], "seconds per step")
    if with_memory:
        _draw(panels[1], with_memory, [(result.memory or 0) / 1e6 for result in with_memory], "peak memory, MB")
    panels[0].legend(fontsize=7)
    figure.savefig(path, dpi=120)


def _draw(axes, results: Sequence[CaseResult], values: Sequence[float], label: str) -> None:  # type: ignore[no-untyped-def]
    curves: dict[tuple[object, ...], list[tuple[int, float]]] = {}
    for result, value in zip(results, values, strict=True):
        curves.setdefault(result.case.curve, []).append((result.case.pixels, value))
    for number, (curve, points) in enumerate(curves.items()):
        what, variant, batch_size, dtype, threads, _ = curve
        name = f"{what} {variant}, batch {batch_size}, {dtype}, {threads} threads"
        axes.loglog(*zip(*points, strict=True), marker="os^vD<>"[number % 7], label=name)
    first = min((points[0] for points in curves.values()), key=lambda point: point[1])
    last = max(pixels for points in curves.values() for pixels, _ in points)
    axes.loglog([first[0], last], [first[1], first[1] * last / first[0]], "k:", linewidth=1, label="linear in pixels")
    axes.set_xlabel("pixels (or feature cells)")
    axes.set_ylabel(label)
    axes.grid(which="both", alpha=0.2)


def _row(result: CaseResult) -> tuple[str, ...]:
    case = result.case
    size = f"{case.height}x{case.width}"
    start = (case.what, case.variant, size, str(case.batch_size), case.dtype, str(case.threads))
    if not result.seconds:
        return (*start, "", "", "", result.left_out)
    return (
        *start,
        f"{result.median:.4f}",
        f"{min(result.seconds):.4f}",
        "" if result.ratio is None else f"{result.ratio:.2f}",
        "" if result.memory is None else f"{result.memory / 1e6:,.0f}",
    )


@dataclass(frozen=True)
class Figure:
    """What was measured once.

    Attributes:
        part: The part of the benchmark that it belongs to.
        what: What was measured.
        value: The figure.
        unit: Its unit.
        least: Smallest value that is good enough, or None.
        most: Largest value that is good enough, or None.
    """

    part: str
    what: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None

    @property
    def goal(self) -> str:
        """The goal in words, or an empty string."""
        if self.least is not None:
            return f"at least {self.least:,.4g}"
        return "" if self.most is None else f"at most {self.most:,.4g}"

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.least is not None:
            return self.value >= self.least
        return None if self.most is None else self.value <= self.most

    @property
    def verdict(self) -> str:
        """The same in a word."""
        return {None: "", True: "reached", False: "missed"}[self.reached]


@runtime_checkable
class FigureBenchmark(Protocol):
    """A benchmark that measures figures instead of cases."""

    def figures(self, rounds: int) -> Iterator[Figure]:
        """Return the figures one after the other, the best of so many rounds where something is repeated."""
        ...


def figure_table(figures: Sequence[Figure]) -> str:
    """Return the figures as aligned text, a blank line between parts."""
    rows = [("what", "figure", "unit", "goal", "")]
    rows += [(f.what, f"{f.value:,.4g}", f.unit, f.goal, f.verdict) for f in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for number, row in enumerate(rows):
        if number > 1 and figures[number - 1].part != figures[number - 2].part:
            lines.append("")
        cells = (row[0].ljust(widths[0]), row[1].rjust(widths[1]), *map(str.ljust, row[2:], widths[2:]))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def write_figures(figures: Sequence[Figure], path: Path, load: float) -> None:
    """Write a row for each figure, with the machine's load before the run."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("part", "what", "value", "unit", "goal", "verdict", "load_before"))
        for f in figures:
            writer.writerow((f.part, f.what, f"{f.value:.6g}", f.unit, f.goal, f.verdict, f"{load:.2f}"))
