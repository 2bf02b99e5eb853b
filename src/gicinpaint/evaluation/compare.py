"""Compare the runs of a multirun: a row for each setting, curves over generator updates with seeds as bands."""

import colorsys
import csv
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import yaml
from scipy.stats import t as student

from gicinpaint.config.atomic_files import write_text
from gicinpaint.config.validation import JobError
from gicinpaint.evaluation.measuring import MethodResult
from gicinpaint.evaluation.tables import SHOWN, csv_text, markdown_lines, text_lines

PANELS = {  # logged value: title
    "validation/completed/hole/l1": "L1 in the hole, validation, %",
    "validation/completed/hole/psnr": "PSNR in the hole, validation, dB",
    "validation/completed/hole/tv_ratio": "TV in the hole over the ground truth's, validation",
    "validation/completed/hole/patch_distance": "patch distance in the hole, validation",
    "train/generator/total": "generator loss",
    "train/critic/global_scores/wasserstein": "global critic's Wasserstein estimate",
    "train/critic/local_scores/wasserstein": "local critic's Wasserstein estimate",
}
Curve = Sequence[tuple[float, float]]  # updates and a value
_SEED = "seed"
_LONGEST = 60  # characters of a setting that still serve as a title and a file's name


@dataclass(frozen=True)
class Run:
    """A training run that has ended or can be looked at."""

    folder: Path
    setting: str  # what sets it apart from the other runs beside its seed, e.g. "baseline"
    seed: int
    checkpoint: Path  # the newest one
    image_size: tuple[int, int] | None  # height and width that it was trained on, where its configuration says so
    mark: str = ""  # what sets it apart from runs of the same setting and seed, if there are any

    @property
    def name(self) -> str:
        """Setting and seed, fit for a file name."""
        return f"{self.setting} seed {self.seed}{self.mark}".replace("/", "_").replace("\\", "_")

    def logged(self, column: str) -> list[tuple[float, float]]:
        """Return a logged value by generator updates, as (updates, value); empty if it was not logged."""
        path = self.folder / "csv" / "metrics.csv"
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(row.get("step"), row.get(column)) for row in csv.DictReader(file)]
        points = [(float(step), float(value)) for step, value in rows if step and value]
        return [point for point in points if math.isfinite(point[1])]


def find_runs(folder: Path, name_by: Sequence[str] = ()) -> list[Run]:
    """Return the runs below a folder, in the order of their numbers.

    A run is a folder with `.hydra/overrides.yaml` and `checkpoints/last.ckpt`, as the train job leaves it. The
    overrides of `name_by` name a run even where all runs have the same.

    Raises:
        JobError: If there is none.
    """
    if folder.is_file():
        raise JobError(
            f"runs must be a multirun's folder, got the file {folder}; a checkpoint is +checkpoints.NAME=FILE"
        )
    if not folder.is_dir():
        raise JobError(f"runs: looked for training runs in {folder}, which does not exist; name a multirun's folder")

    def natural(path: Path) -> list[tuple[int, int | str]]:
        return [(0, int(part)) if part.isdigit() else (1, part) for part in path.parts]

    records = sorted((path.parents[1] for path in folder.rglob(".hydra/overrides.yaml")), key=natural)
    found = [run for run in records if (run / "checkpoints" / "last.ckpt").is_file()]
    if not found:
        raise JobError(
            f"runs: looked for training runs in {folder}: found {len(records)} with .hydra/overrides.yaml, none of "
            "them with checkpoints/last.ckpt; name the folder of a multirun that has saved something"
        )
    overrides = [read_overrides(run) for run in found]
    settings = _settings(overrides, name_by)
    if max(map(len, settings)) > _LONGEST:  # then each is called by the folder of its first run
        first = dict(zip(reversed(settings), reversed(found), strict=True))
        settings = [str(first[setting].relative_to(folder)) for setting in settings]
    runs = [_read_run(*one) for one in zip(found, settings, overrides, strict=True)]
    counts = Counter(run.name for run in runs)
    return [replace(r, mark=f" {r.folder.relative_to(folder)}") if counts[r.name] > 1 else r for r in runs]


def by_setting(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs of each setting, one for each seed."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.setting, []).append(run)
    return groups


def _settings(overrides: Sequence[Mapping[str, str]], name_by: Sequence[str]) -> list[str]:
    """Name each run by the overrides in which runs differ: the value alone if it is one, else key=value."""
    differ, keys = differing(overrides), dict.fromkeys(key for given in overrides for key in given if key != _SEED)
    varied = [key for key in keys if key in name_by or key in differ]
    shown = "{1}" if len(varied) == 1 else "{0}={1}"
    return [" ".join(shown.format(k, given[k]) for k in varied if k in given) or "default" for given in overrides]


def differing(overrides: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the keys whose values differ, or that not all have."""
    keys = dict.fromkeys(key for given in overrides for key in given)
    return [key for key in keys if len({given.get(key) for given in overrides}) > 1]


def read_overrides(run: Path) -> dict[str, str]:
    """Return the overrides that a run was started with, by key."""
    listed = yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text(encoding="utf-8")) or []
    pairs = [str(text).lstrip("+~").partition("=") for text in listed]
    return {key: value for key, _, value in pairs if key != "output"}


def _read_run(folder: Path, setting: str, overrides: Mapping[str, str]) -> Run:
    path = folder / ".hydra" / "config.yaml"
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    size = (config.get("dataset") or {}).get("image_size")
    size = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, list) else None
    seed = config.get("seed", overrides.get(_SEED, 0))
    return Run(folder, setting, int(seed), folder / "checkpoints" / "last.ckpt", size)


def write_comparison(runs: Sequence[Run], results: Mapping[str, MethodResult], folder: Path) -> list[str]:
    """Write settings.csv, settings.md and curves.png of what each run reached, by its name; return what to print.

    Raises:
        JobError: If matplotlib is not installed.
    """
    header, rows = settings_table(runs, results)
    write_text(folder / "settings.csv", csv_text(header, rows))
    write_text(folder / "settings.md", "\n".join(markdown_lines([header, *rows])) + "\n")
    figure, lines = draw_curves(runs), text_lines([header, *rows])
    if figure is None:
        return [*lines, "no curves: the runs have no csv/metrics.csv; train with logger=csv"]
    figure.savefig(folder / "curves.png", dpi=110)
    return lines


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


def draw_curves(runs: Sequence[Run], wanted: Mapping[str, str] = PANELS) -> Any:
    """Return a figure of what the runs logged, or None if they logged nothing that has a panel, a title by its value.

    A line is the mean over the seeds of a setting, its band reaches from the smallest to the largest of them. A setting
    has one colour in all panels and in the legend.

    Raises:
        JobError: If matplotlib is not installed.
    """
    panels = {column: title for column, title in wanted.items() if any(run.logged(column) for run in runs)}
    if not panels:
        return None
    figure = figure_class()(figsize=(5.5 * min(2, len(panels)), 3.6 * math.ceil(len(panels) / 2)), layout="constrained")
    axes = figure.subplots(math.ceil(len(panels) / 2), min(2, len(panels)), squeeze=False).ravel()
    settings = by_setting(runs)
    lines: dict[str, Any] = {}  # of the legend: of each setting one
    for ax, (column, title) in zip(axes, panels.items(), strict=False):
        lines |= draw_bands(ax, {name: [run.logged(column) for run in members] for name, members in settings.items()})
        ax.set(title=title, xlabel="generator updates")
    for ax in axes[len(panels) :]:
        ax.remove()
    shown = [lines[setting] for setting in settings if setting in lines]
    figure.legend(handles=shown, title="setting (seeds)", loc="outside upper center", ncols=5)
    return figure


def draw_bands(ax: Any, curves: Mapping[str, Sequence[Curve]], marker: str = ".") -> dict[str, Any]:
    """Draw the seeds' curves of each setting as what `band` returns, markers on short ones; return the means' lines."""
    lines = {}
    for colour, (setting, seeds) in zip(colours(len(curves)), curves.items(), strict=True):
        if points := band(seeds):
            updates, means, lows, highs = zip(*points, strict=True)
            ax.fill_between(updates, lows, highs, color=colour, alpha=0.2, linewidth=0)
            style = {"color": colour, "label": f"{setting} ({len(seeds)})", "marker": marker * (len(points) < 20)}
            (lines[setting],) = ax.plot(updates, means, **style)
    return lines


def colours(count: int) -> list[Any]:
    """Return as many colours, each another: matplotlib's usual ten, or hues of two brightnesses in turn."""
    if count <= 10:
        return [f"C{number}" for number in range(count)]
    return [colorsys.hsv_to_rgb(n / count, 1, 0.95 if n % 2 else 0.55) for n in range(count)]


def band(curves: Sequence[Curve]) -> list[tuple[float, float, float, float]]:
    """Return (updates, mean, smallest, largest) of several curves, where at least one has a point.

    Several values of one curve at the same updates count as their mean.
    """
    points: dict[float, list[float]] = {}
    for curve in curves:
        for updates, same in groupby(sorted(curve), key=itemgetter(0)):
            points.setdefault(updates, []).append(statistics.fmean(value for _, value in same))
    return [(u, statistics.fmean(v), min(v), max(v)) for u, v in sorted(points.items())]


def deviation(values: Sequence[float], digits: int, times: float = 1) -> str:
    """Return the mean and, of several values, their standard deviation, or so many times it."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {times * statistics.stdev(values):.{digits}f}"


def interval(values: Sequence[float], digits: int) -> str:
    """Return the mean and, of several values, half the width of its 95 % interval by Student's t."""
    return deviation(values, digits, student.ppf(0.975, len(values) - 1) / math.sqrt(len(values)))


def settings_table(
    runs: Sequence[Run], results: Mapping[str, MethodResult], join: Callable[[Sequence[float], int], str] = deviation
) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a table of settings from what each run reached, by its name.

    `join` writes the values of several seeds with so many digits.
    """
    columns = [column for column in SHOWN if all(column in results[run.name].values for run in runs)]
    header = ["setting", "seeds", "updates", *(SHOWN[column][0] for column in columns)]
    rows = []
    for setting, members in by_setting(runs).items():
        updates = [f"{point[0]:.0f}" for run in members for point in run.logged("validation/completed/hole/l1")]
        cells = [join([results[run.name].values[column] for run in members], SHOWN[column][1]) for column in columns]
        rows.append([setting, str(len(members)), max(updates, key=int, default=""), *cells])
    return header, rows
