"""The table of results: for the terminal, as CSV, as Markdown."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gicinpaint.evaluation import published
from gicinpaint.evaluation.measuring import Result

SHOWN = {  # column: heading, digits
    "hole/l1": ("L1 %", 2),
    "hole/l2": ("L2 %", 2),
    "hole/psnr": ("PSNR dB", 2),
    "hole/tv": ("TV %", 2),
    "image/psnr": ("image PSNR dB", 2),
    "image/ssim": ("image SSIM", 4),
    "relative/l1": ("relative L1 %", 2),
    "lpips": ("LPIPS", 4),
    "fid": ("FID", 2),
}


@dataclass(frozen=True)
class Table:
    """Results by method, in the order of the rows.

    Args:
        results: What each method reached.
        with_published: Whether the paper's numbers stand below them.
        with_costs: Whether seconds and memory stand beside them.
    """

    results: Mapping[str, Result]
    with_published: bool = False
    with_costs: bool = True

    def csv(self) -> str:
        """Return every column with all digits; equal runs give equal text."""
        columns = self._columns()
        rows = [[name, str(r.images), *(exact(r.values.get(c)) for c in columns)] for name, r in self.results.items()]
        for name, values in self._published().items():
            rows.append([name, "", *(exact(values.get(column)) for column in columns)])
        return csv_text(["method", "images", *columns], rows)

    def costs_csv(self) -> str:
        """Return seconds and memory, which differ from run to run."""
        rows = [[n, f"{r.seconds_per_image:.6f}", f"{r.peak_memory_mib:.1f}"] for n, r in self.results.items()]
        return csv_text(["method", "seconds_per_image", "peak_memory_mib"], rows)

    def markdown(self) -> str:
        """Return the columns that matter, as a Markdown table with its notes."""
        return "\n".join([*markdown_lines(self.cells()), "", *self.notes()])

    def text(self) -> str:
        """Return the same for a terminal."""
        return "\n".join([*text_lines(self.cells()), "", *self.notes()])

    def notes(self) -> list[str]:
        """Return what a reader of the table must know."""
        notes = ["L1, L2, PSNR and TV are measured in the hole, values in [0, 1], averaged over images."]
        notes += self.target_note()
        return [*notes, published.NOTE] if self.with_published else notes

    def target_note(self) -> list[str]:
        """Return what the methods' TV is to be compared with, if it was measured."""
        target = next(iter(self.results.values())).values.get("target/hole/tv") if self.results else None
        if target is None:
            return []
        return [f"The ground truth's own TV in the holes is {target:.2f} %: closer to it is better."]

    def _columns(self) -> list[str]:
        return list(dict.fromkeys(column for result in self.results.values() for column in result.values))

    def _published(self) -> Mapping[str, Mapping[str, float]]:
        return published.ROWS if self.with_published else {}

    def cells(self) -> list[list[str]]:
        """Return the columns that matter, rounded, as a header and rows."""
        shown = [column for column in SHOWN if column in self._columns()]
        costs = ["s/image", "memory MiB"] * self.with_costs
        cells = [["method", *(SHOWN[column][0] for column in shown), *costs]]
        for name, result in self.results.items():
            cost = [f"{result.seconds_per_image:.3f}", f"{result.peak_memory_mib:.0f}"] * self.with_costs
            cells.append([name.replace("_", " "), *_rounded(result.values, shown), *cost])
        cells += [[name, *_rounded(values, shown), *[""] * len(costs)] for name, values in self._published().items()]
        return cells


def finite(value: float) -> float | str | None:
    """Return a number as JSON can hold it: text for an infinite one, None for one that is missing."""
    return None if math.isnan(value) else value if math.isfinite(value) else str(value)


def _rounded(values: Mapping[str, float], columns: Sequence[str]) -> list[str]:
    return [f"{values[column]:.{SHOWN[column][1]}f}" if column in values else "" for column in columns]


def exact(value: float | None) -> str:
    """Return a number with all its digits, nothing for one that is missing."""
    return "" if value is None else repr(value)


def csv_text(header: list[str], rows: list[list[str]]) -> str:
    """Return rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def markdown_lines(cells: Sequence[Sequence[str]]) -> list[str]:
    """Return a header and rows as a Markdown table; all columns but the first are numbers."""
    header, *rows = cells
    return [_pipes(header), _pipes(["---", *["---:"] * (len(header) - 1)]), *map(_pipes, rows)]


def text_lines(cells: Sequence[Sequence[str]]) -> list[str]:
    """Return the same in columns for a terminal."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
