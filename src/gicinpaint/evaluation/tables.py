"""Tables of results as text, CSV and Markdown: of all images, of each image, of groups; and the page of results."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path, PurePath
from statistics import fmean
from typing import Any

from gicinpaint.config.atomic_files import write_text
from gicinpaint.config.validation import JobError
from gicinpaint.evaluation.measuring import MethodResult
from gicinpaint.training.run_record import git_commit

BY_FOLDER = "folders"
Groups = Mapping[str, Sequence[int]]
SHOWN = {  # column: heading, digits
    "hole/l1": ("L1 %", 2),
    "hole/l2": ("L2 %", 2),
    "hole/psnr": ("PSNR dB", 2),
    "hole/tv": ("TV %", 2),
    "hole/tv_ratio": ("TV ratio", 2),
    "hole/patch_distance": ("patch distance", 4),
    "hole/patch_distance_15": ("at 15 px", 4),
    "image/psnr": ("image PSNR dB", 2),
    "image/ssim": ("image SSIM", 4),
    "relative/l1": ("relative L1 %", 2),
    "lpips": ("LPIPS", 4),
    "fid": ("FID", 2),
}
OVERVIEWS = {"hole/l1": "L1 % in the hole, by group", "hole/patch_distance": "patch distance in the hole, by group"}
PUBLISHED = {
    "PatchMatch (published)": {"hole/l1": 16.1, "hole/l2": 3.9, "hole/psnr": 16.62, "hole/tv": 25.0},
    "without attention (published)": {"hole/l1": 9.4, "hole/l2": 2.4, "hole/psnr": 18.15, "hole/tv": 25.7},
    "full model (published)": {"hole/l1": 8.6, "hole/l2": 2.1, "hole/psnr": 18.91, "hole/tv": 25.3},
}
PUBLISHED_NOTE = (
    "Published numbers: Yu et al. 2018, table 1, Places2 validation images; protocol not published. Mean errors inside "
    "the hole with values in [0, 1] fit them; what their TV measures is not known."
)
_COLUMNS = [column for column in SHOWN if column.startswith("hole/")]
_KEYS = ["model", "dataset", "holes"]
_HEADER = [*_KEYS, "images", *(SHOWN[c][0] for c in _COLUMNS), "weights, images, masks SHA-256", "commit", "date"]
_HEAD = f"""# Results

Written by `gicinpaint evaluate results_page=docs/results.md +checkpoints.NAME=PATH`, never by hand: a row for each
model, dataset and set of holes, which the next measurement of them replaces. Values are means in the hole, colours in
[0, 1]. TV ratio: total variation over the truth's, 1 is as much texture. Patch distance: lower is better.

{PUBLISHED_NOTE}
"""


@dataclass(frozen=True)
class Table:
    """Results by method, in the order of the rows."""

    results: Mapping[str, MethodResult]
    with_published: bool = False  # the paper's numbers are added below
    with_costs: bool = True  # seconds and memory are shown

    def csv(self) -> str:
        """Return all columns with all digits; two equal runs give the same text."""
        columns = _columns(self.results)
        published = [[name, "", *_exact(values, columns)] for name, values in self._published().items()]
        return csv_text(["method", "images", *columns], self.exact_rows(columns) + published)

    def exact_rows(self, columns: Sequence[str]) -> list[list[str]]:
        """Return method, number of images and some columns with all digits."""
        return [[name, str(r.images), *_exact(r.values, columns)] for name, r in self.results.items()]

    def costs_csv(self) -> str:
        """Return seconds and memory, which differ from run to run."""
        rows = [[n, f"{r.seconds_per_image:.6f}", f"{r.peak_memory_mib:.1f}"] for n, r in self.results.items()]
        return csv_text(["method", "seconds_per_image", "peak_memory_mib"], rows)

    def markdown(self) -> str:
        """Return the main columns as a Markdown table with notes."""
        return "\n".join([*markdown_lines(self.cells()), "", *self.notes()])

    def text(self) -> str:
        """Return the main columns for a terminal, with notes."""
        return "\n".join([*text_lines(self.cells()), "", *self.notes()])

    def notes(self) -> list[str]:
        """Return what a reader of the table must know."""
        first = "L1, L2, PSNR and TV are measured in the hole, values in [0, 1], averaged over images."
        return [first, *self.target_note(), *[PUBLISHED_NOTE] * self.with_published]

    def target_note(self) -> list[str]:
        """Return how to read TV and patch distance, if they were measured."""
        values = next(iter(self.results.values())).values if self.results else {}
        target, notes = values.get("target/hole/tv"), []
        if target is not None:
            notes.append(f"The ground truth's own TV in the holes is {target:.2f} %: closer to it is better.")
        if "hole/patch_distance" in values:
            notes.append("Patch distance compares the texture of all holes with the ground truth's: lower is better.")
        return notes

    def cells(self) -> list[list[str]]:
        """Return the main columns, rounded, as a header and rows."""
        shown = [column for column in SHOWN if column in _columns(self.results)]
        costs = ["s/image", "memory MiB"] * self.with_costs
        cells = [["method", *(SHOWN[column][0] for column in shown), *costs]]
        for name, result in self.results.items():
            cost = [f"{result.seconds_per_image:.3f}", f"{result.peak_memory_mib:.0f}"] * self.with_costs
            cells.append([name.replace("_", " "), *_rounded(result.values, shown), *cost])
        cells += [[name, *_rounded(values, shown), *[""] * len(costs)] for name, values in self._published().items()]
        return cells

    def _published(self) -> Mapping[str, Mapping[str, float]]:
        return PUBLISHED if self.with_published else {}


def group_images(names: Sequence[str], wanted: str | Mapping[str, str | Sequence[str]]) -> dict[str, list[int]]:
    """Return the indices of each group's images.

    Args:
        names: Names of the images, usually their paths.
        wanted: "folders" makes a group of each folder at the first level where the paths differ; otherwise one or
            several shell patterns for each group, where `*` also matches slashes.

    Raises:
        JobError: If all images lie in one folder, or a group's patterns match none.

    Example:
        >>> group_images(["data/faces/val/1.jpg", "data/scenes/val/1.jpg"], "folders")
        {'faces': [0], 'scenes': [1]}
        >>> group_images(["data/faces/val/1.jpg", "data/scenes/val/1.jpg"], {"people": "*/faces/*"})
        {'people': [0]}
    """
    if isinstance(wanted, str):
        return _by_folder(names)
    groups = {}
    for group, patterns in wanted.items():
        patterns = [patterns] if isinstance(patterns, str) else patterns
        groups[group] = [i for i, name in enumerate(names) if any(fnmatchcase(name, p) for p in patterns)]
        if not groups[group]:
            raise JobError(
                f"groups.{group}: expected a pattern that fits images, got {', '.join(patterns)}, which fits none of "
                f"{len(names)}; the first is called {names[0]}"
            )
    return groups


def write_groups(groups: Groups, results: Mapping[str, MethodResult], folder: Path) -> list[str]:
    """Write groups.csv and groups.md; return the tables as text."""
    tables = {group: _group_table(results, group, indices) for group, indices in groups.items()}
    columns = list(dict.fromkeys(column for table in tables.values() for column in _columns(table.results)))
    rows = [[group, *row] for group, table in tables.items() for row in table.exact_rows(columns)]
    write_text(folder / "groups.csv", csv_text(["group", "method", "images", *columns], rows))
    sections = [
        (title, _overview(tables, column), list[str]()) for column, title in OVERVIEWS.items() if column in columns
    ]
    sections += [(f"{g}, images: {len(groups[g])}", table.cells(), table.target_note()) for g, table in tables.items()]
    pages = [["### " + title, "", *markdown_lines(cells), "", *notes, ""] for title, cells, notes in sections]
    write_text(folder / "groups.md", "\n".join([line for page in pages for line in page][:-1]) + "\n")
    return [line for title, cells, notes in sections for line in ("", title, *text_lines(cells), *notes)]


def write_images(names: Sequence[str], groups: Groups, results: Mapping[str, MethodResult], folder: Path) -> None:
    """Write images.csv: a row for each method and image with all digits; two equal runs give the same text."""
    columns = list(dict.fromkeys(column for result in results.values() for column in result.each))
    members = {group: set(indices) for group, indices in groups.items()}
    rows = []
    for method, result in results.items():
        for i, name in enumerate(names):
            own = {column: values[i] for column, values in result.each.items()}
            rows.append([method, str(i), name, " ".join(g for g in groups if i in members[g]), *_exact(own, columns)])
    write_text(folder / "images.csv", csv_text(["method", "image", "name", "groups", *columns], rows))


def update_page(path: Path, dataset: str, results: Mapping[str, MethodResult], identities: Mapping[str, Any]) -> None:
    """Add a row for each trained model to a page of results, or replace the one of equal model, dataset and holes.

    The page is made if it is not there. The identities are hashes of images, masks and methods, as in `results.json`.

    Raises:
        JobError: If the file holds something else.
    """
    rows = {tuple(row[: len(_KEYS)]): row for row in _read_page(path)}
    images, masks, commit = identities["images"], identities["masks"], git_commit()["commit"] or "unknown"
    holes = f"{masks['preset']} {masks['height']}x{masks['width']}"
    for name, result in results.items():
        weights = identities["methods"][name].get("sha256")
        if weights is not None:
            hashes = " ".join(digest[:8] for digest in (weights, images["sha256"], masks["sha256"]))
            cells = [str(result.images), *_rounded(result.values, _COLUMNS), hashes, commit[:10]]
            rows[name, dataset, holes] = [name, dataset, holes, *cells, f"{datetime.now(UTC):%Y-%m-%d}"]
    published = [
        [name, "Places2", "not published", "", *(str(values.get(c, "")) for c in _COLUMNS), "", "", ""]
        for name, values in PUBLISHED.items()
    ]
    ordered = sorted(rows.values(), key=lambda row: (row[1], row[2]))
    write_text(path, _HEAD + "\n" + "\n".join(markdown_lines([_HEADER, *ordered, *published])) + "\n")


def _read_page(path: Path) -> list[list[str]]:
    """Return the rows of trained models."""
    if not path.is_file():
        return []
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    if not cells or cells[0] != _HEADER:
        raise JobError(f"results_page={path}: expected a page that evaluate wrote, got another text; name another file")
    return [row for row in cells[2:] if row[0] not in PUBLISHED]


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
    """Return a header and rows as aligned columns for a terminal."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]


def _by_folder(names: Sequence[str]) -> dict[str, list[int]]:
    parents = [PurePath(name).parent.parts for name in names]
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, zip(*parents, strict=False)))
    groups: dict[str, list[int]] = {}
    for index, parts in enumerate(parents):
        groups.setdefault(parts[shared] if len(parts) > shared else ".", []).append(index)
    if len(groups) < 2:
        raise JobError(
            f"groups=folders: expected images in several folders, got all {len(names)} in "
            f"{PurePath(*parents[0]) if parents[0] else 'one'}; name patterns, e.g. '+groups.faces=*face*'"
        )
    return dict(sorted(groups.items()))


def _group_table(results: Mapping[str, MethodResult], group: str, indices: Sequence[int]) -> Table:
    """Average over a group's images, as for the whole table; measures of a set, such as FID, have no such average."""
    rows = {}
    for name, result in results.items():
        found = {c: [v for i in indices if (v := each[i]) is not None] for c, each in result.each.items()}
        means = {column: fmean(values) for column, values in found.items() if values}
        if means.get("target/hole/tv") and "hole/tv_ratio" in means:
            means["hole/tv_ratio"] = means["hole/tv"] / means["target/hole/tv"]
        rows[name] = MethodResult({**means, **result.groups.get(group, {})}, len(indices), 0.0, 0.0)
    return Table(rows, with_costs=False)


def _overview(tables: Mapping[str, Table], column: str) -> list[list[str]]:
    """Return one column of all methods and groups."""
    rows = []
    for name in next(iter(tables.values())).results:
        cells = [_rounded(table.results[name].values, [column])[0] for table in tables.values()]
        rows.append([name.replace("_", " "), *cells])
    return [["method", *tables], *rows]


def _rounded(values: Mapping[str, float], columns: Sequence[str]) -> list[str]:
    return [f"{values[column]:.{SHOWN[column][1]}f}" if column in values else "" for column in columns]


def _exact(values: Mapping[str, float | None], columns: Sequence[str]) -> list[str]:
    return ["" if (value := values.get(column)) is None else repr(value) for column in columns]


def _columns(results: Mapping[str, MethodResult]) -> list[str]:
    return list(dict.fromkeys(column for result in results.values() for column in result.values))


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
