"""The report that ends a multirun: one HTML file that opens offline, and Markdown, with tables, curves and pictures."""

import base64
import html
import io
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from gicinpaint.config.atomic_files import atomic_file, write_text
from gicinpaint.config.validation import JobError, build
from gicinpaint.evaluation.compare import (
    PANELS,
    Run,
    differing,
    draw_curves,
    find_runs,
    interval,
    read_overrides,
    settings_table,
)
from gicinpaint.evaluation.evaluate import evaluate
from gicinpaint.evaluation.measuring import MethodResult
from gicinpaint.evaluation.tables import markdown_lines
from gicinpaint.masks.sampler import NumberedMasks
from gicinpaint.training.run_record import STARTS

_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:80em;margin:2em auto;padding:0 1em}div{overflow-x:auto;margin:1em 0}"
    "table{border-collapse:collapse;font-size:12.5px}td,th{border:1px solid #ccc;padding:.2em .4em;text-align:right}"
    "td{white-space:nowrap}th{text-wrap:balance;vertical-align:bottom}td:first-child,th:first-child{text-align:left}"
    "small{font-size:85%}p,figcaption{max-width:60em}figure{margin:1em 0}img{max-width:100%}figcaption{color:#555}"
)


class Report:
    """Headings, paragraphs, tables and pictures in their order; pictures are files of the folder too."""

    def __init__(self, title: str, folder: Path) -> None:
        self.title = title
        self.folder = folder
        self._html = [f"<h1>{html.escape(title)}</h1>"]
        self._markdown = [f"# {title}"]

    def heading(self, text: str) -> None:
        """Start a section."""
        self._add(f"<h2>{html.escape(text)}</h2>", f"## {text}")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._add(f"<p>{html.escape(text)}</p>", text)

    def table(self, cells: Sequence[Sequence[str]]) -> None:
        """Add a table: a header, then rows."""
        rows = zip(["th", *["td"] * (len(cells) - 1)], cells, strict=True)
        shown = ("".join(f"<{tag}>{_cell(cell)}</{tag}>" for cell in row) for tag, row in rows)
        page = "".join(f"<tr>{row}</tr>" for row in shown)
        self._add(f"<div><table>{page}</table></div>", "\n".join(markdown_lines(cells)))

    def picture(self, name: str, picture: Any, caption: str) -> None:
        """Add a picture, a Pillow image or a figure of matplotlib, and write it as `<name>.png`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        data = io.BytesIO()
        if isinstance(picture, Image.Image):
            picture.save(data, "PNG")
        else:
            picture.savefig(data, dpi=110)
        with atomic_file(self.folder / f"{name}.png") as partial:
            partial.write_bytes(data.getvalue())
        source = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
        image = f'<img alt="{html.escape(name)}" src="{source}"><figcaption>{html.escape(caption)}</figcaption>'
        self._add(f"<figure>{image}</figure>", f"![{caption}]({self.folder.name}/{name}.png)")

    def html(self) -> str:
        """Return one page that needs no other file."""
        head = f'<meta charset="utf-8"><title>{html.escape(self.title)}</title><style>{_STYLE}</style>'
        return f"<!doctype html><html><head>{head}</head><body>\n" + "\n".join(self._html) + "\n</body></html>\n"

    def markdown(self) -> str:
        """Return the same as Markdown, whose pictures are files of the folder beside it."""
        return "\n\n".join(self._markdown) + "\n"

    def _add(self, as_html: str, as_markdown: str) -> None:
        self._html.append(as_html)
        self._markdown.append(as_markdown)


def _cell(text: str) -> str:
    value, sign, spread = html.escape(text).partition(" ± ")
    return f"{value} <small>± {spread}</small>" if sign else value


Section = Callable[[Sequence[Run], Report], None]


def write_report(
    folder: str | Path,
    question: str = "",
    curves: Sequence[str] = tuple(PANELS),
    sections: Mapping[str, Section] | None = None,
    name_by: Sequence[str] = (),
    count: int = 100,
    pictures: int = 4,
) -> None:
    """Measure the runs of a multirun and write report.html and report.md into its folder; the path is printed.

    Args:
        folder: Of the multirun.
        question: What the multirun asks; the title of the page.
        curves: Logged values that get a panel.
        sections: What the question asks for besides, by name.
        name_by: Overrides that name a run even where all have the same.
        count: Validation images to measure, at most.
        pictures: Rows of the pictures.

    Raises:
        JobError: If the runs cannot be measured.
    """
    folder = Path(folder)
    try:
        runs = find_runs(folder, name_by)
    except JobError:
        print("no report: none of the runs has saved a checkpoint", flush=True)
        return
    report = Report(question or "Runs compared", folder / "report")
    report.text(f"{len(runs)} runs, {datetime.now():%Y-%m-%d %H:%M}; a setting is a row, its seeds are joined.")
    groups = {report.folder / f"images_{number}": members for number, members in enumerate(_by_dataset(runs))}
    results: dict[str, MethodResult] = {}
    for images, members in groups.items():
        results |= _measure(members, images, count, pictures)
    report.heading("Errors, texture and spread")
    report.text(
        "In the holes of validation images; mean over seeds, with the 95 % interval of Student's t where there are two "
        "or more. TV ratio: total variation over the truth's, 1 is as much texture. Patch distance: lower is better."
    )
    header, rows = settings_table(runs, results, interval)
    report.table([header, *rows])
    _add_curves(runs, report, curves)
    for section in (sections or {}).values():
        section(runs, report)
    report.heading("Side by side")
    for number, (images, members) in enumerate(groups.items()):
        sheet = Image.open(images / "results.png")
        report.picture(f"pictures_{number}", sheet, f"validation images of {', '.join(run.name for run in members)}")
    records = [json.loads((images / "results.json").read_text(encoding="utf-8")) for images in groups]
    _add_runs(runs, report, results, records)
    write_text(folder / "report.html", report.html())
    write_text(folder / "report.md", report.markdown())
    print(f"report       {folder / 'report.html'}", flush=True)


def _add_curves(runs: Sequence[Run], report: Report, curves: Sequence[str]) -> None:
    report.heading("Curves")
    try:
        figure = draw_curves(runs, {column: PANELS.get(column, column) for column in curves})
    except JobError as error:  # matplotlib is an extra
        report.text(str(error))
        return
    if figure is None:
        report.text("The runs have no csv/metrics.csv; train with logger=csv.")
    else:
        report.picture("curves", figure, "one colour per setting in all panels; bands: smallest to largest seed")


def _add_runs(
    runs: Sequence[Run], report: Report, results: Mapping[str, MethodResult], records: Sequence[Mapping[str, Any]]
) -> None:
    overrides = {run.name: read_overrides(run.folder) for run in runs}
    varied = differing(list(overrides.values()))
    shared = [f"{key}={value}" for key, value in next(iter(overrides.values())).items() if key not in varied]
    hashes = {name: method["sha256"] for record in records for name, method in record["methods"].items()}
    own = [key for key in varied if key != "seed"]
    rows = []
    for run in runs:
        start = json.loads((run.folder / STARTS).read_text(encoding="utf-8").splitlines()[-1])
        took = run.checkpoint.stat().st_mtime - datetime.fromisoformat(start["time"]).timestamp()
        speed = [value for _, value in run.logged("speed/images_per_second")]
        cells = [run.folder.name, str(run.seed), *(overrides[run.name].get(key, "") for key in own)]
        cost = [f"{took / 60:.1f}", f"{statistics.median(speed):.0f}" if speed else ""]
        cost += [f"{results[run.name].seconds_per_image:.3f}", f"{results[run.name].peak_memory_mib:.0f}"]
        rows.append([*cells, *cost, start["data"]["training"]["sha256"][:12], hashes[run.name][:12]])
    report.heading("Runs: overrides that differ, seeds, cost, hashes")
    cost = ["minutes of the last start", "images/s trained", "s/image filled", "MiB filled"]
    report.table([["run", "seed", *own, *cost, "training images SHA-256", "checkpoint SHA-256"], *rows])
    report.text(f"Overrides that all share: {' '.join(shared) or 'none'}.")
    for record in records:
        images, masks, git, device = (record[key] for key in ("images", "masks", "git", "device"))
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        report.text(
            f"Measured on {images['count']} images of {images['height']}x{images['width']} (SHA-256 "
            f"{images['sha256'][:12]}), masks {masks['preset']} (SHA-256 {masks['sha256'][:12]}), {device['name']}, "
            f"threads: {device['threads']}; commit {git['commit']}{' with changes' * bool(git['modified'])}; {versions}"
        )


def _by_dataset(runs: Sequence[Run]) -> list[list[Run]]:
    """Return runs together that are measured on the same validation images."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        dataset: Any = OmegaConf.to_container(_config(run).dataset)
        images = [dataset.get(key) for key in ("validation", "validation_crop", "image_size")]
        groups.setdefault(json.dumps(images, sort_keys=True), []).append(run)
    return list(groups.values())


def _measure(runs: Sequence[Run], folder: Path, count: int, pictures: int) -> dict[str, MethodResult]:
    """Measure runs by the evaluate job, on the first one's validation images and holes."""
    given = _config(runs[0])
    config = GlobalHydra.instance().config_loader().load_configuration("evaluate", ["method=none"], RunMode.RUN)
    OmegaConf.set_struct(config, False)
    config.pop("hydra")
    fixed = given.dataset.get("validation_mask")
    if fixed is None or not isinstance(build(fixed), NumberedMasks):
        samplers, seed = fixed or given.mask, given.dataset.get("validation_seed", 0)
        fixed = {"_target_": "gicinpaint.masks.FixedMasks", "preset": "validation", "samplers": samplers, "seed": seed}
    config.merge_with(
        {
            "eval_mask": None,
            "checkpoints": {run.name: str(run.checkpoint) for run in runs},
            "count": min(count, len(build(given.dataset.validation))),
            "pictures": pictures,
            "accelerator": given.trainer.accelerator,
            "threads": given.threads,
            "output": str(folder),
        }
    )
    config.dataset, config.eval_mask = given.dataset, fixed
    return evaluate(config)


def _config(run: Run) -> DictConfig:
    config = OmegaConf.load(run.folder / "config.yaml")
    assert isinstance(config, DictConfig)
    return config
