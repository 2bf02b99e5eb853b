"""Single figures with a goal each, for what is no step that is repeated: a table and a CSV file."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable


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
