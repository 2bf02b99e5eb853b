"""A multirun as one comparison: a row for each setting, and curves over generator updates with seeds as bands."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gicinpaint.config.validation import JobError
from gicinpaint.evaluation.measuring import Result
from gicinpaint.evaluation.runs import Run, by_setting
from gicinpaint.evaluation.tables import SHOWN, csv_text, markdown_lines, text_lines
from gicinpaint.evaluation.writing import write_text

PANELS = {  # logged value: title
    "validation/completed/hole/l1": "L1 in the hole, validation, %",
    "validation/completed/hole/psnr": "PSNR in the hole, validation, dB",
    "train/generator/total": "generator loss",
    "train/critic/global_scores/wasserstein": "global critic's Wasserstein estimate",
    "train/critic/local_scores/wasserstein": "local critic's Wasserstein estimate",
}


def write_comparison(runs: Sequence[Run], results: Mapping[str, Result], folder: Path) -> list[str]:
    """Write settings.csv, settings.md and curves.png; return what to tell the user.

    Args:
        runs: The runs; each was measured under its name.
        results: What each method reached.
        folder: Where to write.

    Raises:
        JobError: If matplotlib is not installed.
    """
    header, rows = _settings_table(runs, results)
    write_text(folder / "settings.csv", csv_text(header, rows))
    write_text(folder / "settings.md", "\n".join(markdown_lines([header, *rows])) + "\n")
    figure = draw_curves(runs)
    if figure is not None:
        figure.savefig(folder / "curves.png", dpi=110)
    return [
        *text_lines([header, *rows]),
        *([] if figure is not None else ["no curves: the runs have no csv/metrics.csv; train with logger=csv"]),
    ]


def figure_class() -> Any:
    """Return matplotlib's figure, which needs no screen.

    Raises:
        JobError: If matplotlib is not installed; the message names the extra.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise JobError("curves of runs need matplotlib; install the extra: pip install 'gicinpaint[plots]'") from error
    return Figure


def draw_curves(runs: Sequence[Run]) -> Any:
    """Return a figure of what the runs logged, or None if they logged nothing that has a panel.

    A line is the mean over the seeds of a setting, its band reaches from the smallest to the largest of them.

    Raises:
        JobError: If matplotlib is not installed.
    """
    panels = {column: title for column, title in PANELS.items() if any(run.logged(column) for run in runs)}
    if not panels:
        return None
    figure = figure_class()(figsize=(5.5 * min(2, len(panels)), 3.6 * math.ceil(len(panels) / 2)), layout="constrained")
    axes = figure.subplots(math.ceil(len(panels) / 2), min(2, len(panels)), squeeze=False).ravel()
    for ax, (column, title) in zip(axes, panels.items(), strict=False):
        for setting, members in by_setting(runs).items():
            curve = band([run.logged(column) for run in members])
            if curve:
                updates, means, lows, highs = zip(*curve, strict=True)
                (line,) = ax.plot(updates, means, label=f"{setting} ({len(members)})", marker="." * (len(curve) < 20))
                ax.fill_between(updates, lows, highs, color=line.get_color(), alpha=0.2, linewidth=0)
        ax.set(title=title, xlabel="generator updates")
    for ax in axes[len(panels) :]:
        ax.remove()
    axes[0].legend(title="setting (seeds)", fontsize="small")
    return figure


def band(curves: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float, float, float]]:
    """Return (updates, mean, smallest, largest) of several curves, where at least one has a point.

    Several values of one curve at the same updates count as their mean.
    """
    points: dict[float, list[float]] = {}
    for curve in curves:
        own: dict[float, list[float]] = {}
        for updates, value in curve:
            own.setdefault(updates, []).append(value)
        for updates, values in own.items():
            points.setdefault(updates, []).append(statistics.fmean(values))
    return [(u, statistics.fmean(v), min(v), max(v)) for u, v in sorted(points.items())]


def _settings_table(runs: Sequence[Run], results: Mapping[str, Result]) -> tuple[list[str], list[list[str]]]:
    groups = by_setting(runs)
    columns = [column for column in SHOWN if all(column in results[run.name].values for run in runs)]
    header = ["setting", "seeds", "updates", *(SHOWN[column][0] for column in columns)]
    rows = []
    for setting, members in groups.items():
        updates = max(
            (point[0] for run in members for point in run.logged("validation/completed/hole/l1")), default=None
        )
        cells = [_spread([results[run.name].values[column] for run in members], SHOWN[column][1]) for column in columns]
        rows.append([setting, str(len(members)), "" if updates is None else f"{updates:.0f}", *cells])
    return header, rows


def _spread(values: Sequence[float], digits: int) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"
