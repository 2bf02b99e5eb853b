"""What the paper's questions add to a report of a multirun: copies from afar, and convergence and stability."""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import torch
from omegaconf import OmegaConf
from PIL import Image

from gicinpaint.attention.visualize import attention_of
from gicinpaint.config.validation import build
from gicinpaint.data import ImageSource, RandomScaleCrop
from gicinpaint.evaluation.compare import Run, by_setting, draw_bands, figure_class, interval
from gicinpaint.evaluation.copying import (
    RepeatedImage,
    bin_name,
    copied_distance,
    draw_copying,
    measure_copying,
    repeat_view,
)
from gicinpaint.evaluation.images import EvaluationImages, spread
from gicinpaint.evaluation.report import Report
from gicinpaint.masks import CenterMask
from gicinpaint.training.run_record import OUTPUT_LOG
from gicinpaint.weights.pretrained import load_generator

_L1 = "validation/completed/hole/l1"
_NETWORKS = ("generator", "critics")


def report_copying(
    runs: Sequence[Run],
    report: Report,
    distances: Sequence[int] = (8, 16, 32, 64),
    count: int = 40,
    size: int = 192,
    hole: int = 24,
) -> None:
    """Add to a report: PSNR over the distance to the nearest copy, what attention copies, and from how far.

    The first run's validation photographs serve all of them.

    Args:
        runs: The runs.
        report: The report.
        distances: Distances at which the copies lie, in pixels, and edges between which pixels are taken together.
        count: Images that repeat a view.
        size: Their height and width in pixels.
        hole: Height and width of the hole in the middle.
    """
    report.heading("Copies from afar")
    dataset = OmegaConf.load(runs[0].folder / "config.yaml").dataset
    source = build(dataset.validation)
    images = _repeated(source, distances, count, size)
    few = min(count, len(source))
    photographs = EvaluationImages(source, RandomScaleCrop(1.0, enlarge=True), size, size, few)
    mask = CenterMask(hole)(1, size, size)[0]
    rows: dict[str, list[dict[str, float]]] = {}
    drawn: dict[str, Image.Image] = {}
    for setting, members in by_setting(runs).items():
        for run in members:
            generator = load_generator(run.checkpoint)
            row = measure_copying(generator, images, hole, distances)
            if attention_of(generator) is not None:
                apart = torch.cat([copied_distance(generator, photographs[i][None], mask) for i in range(few)])
                row |= {"median": float(apart.median()), "ninth": float(apart.quantile(0.9))}
                drawn = drawn or {run.name: draw_copying(generator, images[: len(distances)], hole)}
            rows.setdefault(setting, []).append(row)
    _report_rows(rows, report, [bin_name(*pair) for pair in pairwise((0, *distances, math.inf))], (count, size, hole))
    for name, sheet in drawn.items():
        report.picture(
            "arrows",
            sheet,
            f"What {name} copies into the hole. From top to bottom the view repeats about every "
            f"{', '.join(map(str, distances))} pixels. Left the whole image: the hole is outlined in white; an arrow "
            "starts at a patch of the hole, and its head is at the known patch that got most of its attention; colours "
            "are directions. Where attention copies truly, the arrow spans whole periods and both its ends show the "
            f"same place of the view. Right the hole, {hole} pixels wide, close up.",
        )


def _report_rows(
    rows: Mapping[str, list[dict[str, float]]], report: Report, bins: Sequence[str], made: tuple[int, int, int]
) -> None:
    bins = [name for name in bins if any(name in row for members in rows.values() for row in members)]
    report.text(
        f"{made[0]} images of {made[1]}x{made[1]} repeat one view of a validation photograph; period, skew and phase "
        f"differ from image to image. Hole of {made[2]}x{made[2]} in the middle; each of its pixels counts at the "
        "distance of the nearest known pixel that shows the same. PSNR in dB by that distance in pixels:"
    )
    titles = {
        "attention": "attention on true copies",
        "copies": "best match is a true copy",
        "chance": "by chance",
        "shuffled": "PSNR after shuffling, dB",
        "median": "copied from, median px",
        "ninth": "nine of ten within px",
    }

    def cells(members: list[dict[str, float]], names: Iterable[str], digits: int) -> Iterator[str]:
        for name in names:
            times, unit = (100, " %") if name in ("attention", "copies", "chance") else (1, "")
            values = [times * row[name] for row in members if name in row]
            yield interval(values, digits) + unit if values else ""

    table = [[setting, *cells(members, [*bins, "completed"], 2)] for setting, members in rows.items()]
    report.table([["setting", *bins, "whole hole"], *table])
    _draw_over_distance(rows, report, bins)
    attending = {setting: members for setting, members in rows.items() if "attention" in members[0]}
    if attending:
        report.text(
            "A true copy shows the same place of the view, to a cell of the attention's grid. After shuffling: the "
            "attention's results have changed places within the hole. Copied from: distance between a cell of the hole "
            "and its best match on the validation photographs themselves, which do not repeat."
        )
        table = [[setting, *cells(members, titles, 1)] for setting, members in attending.items()]
        report.table([["setting", *titles.values()], *table])


def _draw_over_distance(rows: Mapping[str, list[dict[str, float]]], report: Report, bins: Sequence[str]) -> None:
    figure = figure_class()(figsize=(6, 3.6), layout="constrained")
    ax = figure.subplots()
    curves = {
        setting: [[(i, row[name]) for i, name in enumerate(bins) if name in row] for row in members]
        for setting, members in rows.items()
    }
    draw_bands(ax, curves, marker="o")
    ax.set(xlabel="distance to the nearest true copy, pixels", ylabel="PSNR, dB")
    ax.set_xticks(range(len(bins)), bins)
    ax.legend(title="setting (seeds)", fontsize="small")
    report.picture(
        "copying", figure, "PSNR over the distance to the nearest true copy; bands: smallest to largest seed"
    )


def _repeated(source: ImageSource, distances: Sequence[int], count: int, size: int) -> list[RepeatedImage]:
    rng, images = torch.Generator().manual_seed(0), []
    scales = [*distances, 3 * distances[-1] // 2]
    for number, index in enumerate(spread(min(count, len(source)), len(source)) * -(-count // len(source))):
        period = scales[number % len(scales)]
        images.append(repeat_view(source.read(index), size, rng, (max(2, 3 * period // 4), 5 * period // 4)))
    return images[:count]


def report_convergence(runs: Sequence[Run], report: Report, target: float | None = None) -> None:
    """Add to a report: updates until an L1 is reached, spread of the Wasserstein estimates, skipped steps.

    The target is an L1 of validation in %, by default the best that even the worst run reaches.
    """
    curves = {run.name: run.logged(_L1) for run in runs}
    best = {name: min(value for _, value in points) for name, points in curves.items() if points}
    if not best:
        return
    target = max(best.values()) if target is None else target
    rows = []
    for setting, members in by_setting(runs).items():
        needed = [next((at for at, value in curves[run.name] if value <= target), math.inf) for run in members]
        cells = [interval(needed, 0) if all(map(math.isfinite, needed)) else "not reached"]
        for critic in ("global", "local"):
            logged = [run.logged(f"train/critic/{critic}_scores/wasserstein") for run in members]
            late = [[value for _, value in points[len(points) // 2 :]] for points in logged]
            spreads = [statistics.stdev(values) for values in late if len(values) > 1]
            cells.append(interval(spreads, 3) if spreads else "")
        rows.append([setting, *cells, *(str(sum(_skipped(run, name) for run in members)) for name in _NETWORKS)])
    report.heading("Convergence and stability")
    report.text(
        f"Updates until validation's L1 in the hole is {target:.2f} % or less; standard deviation of the critics' "
        "Wasserstein estimates over the second half of the run; steps that were skipped because they were not finite, "
        "all seeds together."
    )
    critics = ["spread of the global critic", "of the local critic"]
    report.table([["setting", "updates to the L1", *critics, *(f"skipped: {name}" for name in _NETWORKS)], *rows])


def _skipped(run: Run, network: str) -> int:
    path = run.folder / OUTPUT_LOG
    log = path.read_text(encoding="utf-8") if path.is_file() else ""
    return sum(line.startswith(f"skipped a step of the {network} ") for line in log.splitlines())
