"""The page of results: a row for each trained model, dataset and protocol, beside the paper's."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gicinpaint.config.atomic_files import write_text
from gicinpaint.config.validation import JobError
from gicinpaint.evaluation.measuring import MethodResult
from gicinpaint.evaluation.tables import PUBLISHED, PUBLISHED_NOTE, SHOWN, markdown_lines
from gicinpaint.training.run_record import git_commit

_COLUMNS = [column for column in SHOWN if column.startswith("hole/")]
_KEYS = ["model", "dataset", "holes"]
_HEADER = [
    *_KEYS,
    "images",
    *(SHOWN[column][0] for column in _COLUMNS),
    "weights, images, masks SHA-256",
    "commit",
    "date",
]
_HEAD = f"""# Results

Written by `gicinpaint evaluate results_page=docs/results.md +checkpoints.NAME=PATH`, never by hand: a row for each
model, dataset and set of holes, which the next measurement of them replaces. Values are means in the hole, colours in
[0, 1]. TV ratio: total variation over the truth's, 1 is as much texture. Patch distance: lower is better.

{PUBLISHED_NOTE}
"""


def update_page(path: Path, dataset: str, results: Mapping[str, MethodResult], identities: Mapping[str, Any]) -> None:
    """Add a row for each trained model to a page, or replace the one of equal model, dataset and holes.

    Args:
        path: The page; it is made if it is not there.
        dataset: Name of the dataset.
        results: Result of each method; methods that are not trained are left out.
        identities: Hashes of images, masks and methods, as `results.json` has them.

    Raises:
        JobError: If the file holds something else.
    """
    rows = {tuple(row[: len(_KEYS)]): row for row in _read(path)}
    images, masks, commit = identities["images"], identities["masks"], git_commit()["commit"] or "unknown"
    holes = f"{masks['preset']} {masks['height']}x{masks['width']}"
    for name, result in results.items():
        weights = identities["methods"][name].get("sha256")
        if weights is not None:
            values = [f"{result.values[c]:.{SHOWN[c][1]}f}" if c in result.values else "" for c in _COLUMNS]
            hashes = " ".join(digest[:8] for digest in (weights, images["sha256"], masks["sha256"]))
            more = [hashes, commit[:10], f"{datetime.now(UTC):%Y-%m-%d}"]
            rows[name, dataset, holes] = [name, dataset, holes, str(result.images), *values, *more]
    published = [
        [name, "Places2", "not published", "", *(str(values.get(c, "")) for c in _COLUMNS), "", "", ""]
        for name, values in PUBLISHED.items()
    ]
    ordered = sorted(rows.values(), key=lambda row: (row[1], row[2]))
    write_text(path, _HEAD + "\n" + "\n".join(markdown_lines([_HEADER, *ordered, *published])) + "\n")


def _read(path: Path) -> list[list[str]]:
    """Return the rows of trained models."""
    if not path.is_file():
        return []
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    if not cells or cells[0] != _HEADER:
        raise JobError(f"results_page={path}: expected a page that evaluate wrote, got another text; name another file")
    return [row for row in cells[2:] if row[0] not in PUBLISHED]
