"""Kinds of images among those of an evaluation, such as faces and textures: a table of results for each of them."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from statistics import fmean

from gicinpaint.config.validation import JobError
from gicinpaint.evaluation.measuring import Result
from gicinpaint.evaluation.tables import Table, csv_text, exact, markdown_lines, text_lines
from gicinpaint.evaluation.writing import write_text

BY_FOLDER = "folders"
_OVERVIEW = "L1 % in the hole, by group"
Groups = Mapping[str, Sequence[int]]


def group_images(names: Sequence[str], wanted: str | Mapping[str, str | Sequence[str]]) -> dict[str, list[int]]:
    """Return the numbers of each group's images.

    Args:
        names: What the images are called, by number; usually their paths.
        wanted: "folders", which makes a group of each folder at the first place where paths differ; or the patterns of
            each group, one or several, as in shells, where `*` also stands for slashes.

    Raises:
        JobError: If the images lie in one folder, or a group's patterns fit none.

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


def write_groups(groups: Groups, results: Mapping[str, Result], folder: Path) -> list[str]:
    """Write groups.csv and groups.md; return what to tell the user.

    Args:
        groups: Numbers of each group's images.
        results: What each method reached, image by image.
        folder: Where to write.
    """
    tables = {group: _table(results, numbers) for group, numbers in groups.items()}
    columns = list(dict.fromkeys(column for result in results.values() for column in result.each))
    rows = [
        [group, name, str(result.images), *(exact(result.values.get(column)) for column in columns)]
        for group, table in tables.items()
        for name, result in table.results.items()
    ]
    write_text(folder / "groups.csv", csv_text(["group", "method", "images", *columns], rows))
    overview = _overview(tables)
    pages = [f"### {_OVERVIEW}", "", *markdown_lines(overview), ""]
    text = ["", _OVERVIEW, *text_lines(overview)]
    for group, table in tables.items():
        title, notes = f"{group}, images: {len(groups[group])}", table.target_note()
        pages += [f"### {title}", "", *markdown_lines(table.cells()), "", *notes, ""]
        text += ["", title, *text_lines(table.cells()), *notes]
    write_text(folder / "groups.md", "\n".join(pages[:-1]) + "\n")
    return text


def write_images(names: Sequence[str], groups: Groups, results: Mapping[str, Result], folder: Path) -> None:
    """Write images.csv: a row for each method and image, with all digits; equal runs give equal text."""
    columns = list(dict.fromkeys(column for result in results.values() for column in result.each))
    kinds: list[list[str]] = [[] for _ in names]
    for group, numbers in groups.items():
        for number in numbers:
            kinds[number].append(group)
    rows = [
        [
            method,
            str(i),
            name,
            " ".join(kinds[i]),
            *(exact(result.each[c][i]) if c in result.each else "" for c in columns),
        ]
        for method, result in results.items()
        for i, name in enumerate(names)
    ]
    write_text(folder / "images.csv", csv_text(["method", "image", "name", "groups", *columns], rows))


def _by_folder(names: Sequence[str]) -> dict[str, list[int]]:
    parents = [PurePath(name).parent.parts for name in names]
    shared = 0
    while all(len(parts) > shared for parts in parents) and len({parts[shared] for parts in parents}) == 1:
        shared += 1
    groups: dict[str, list[int]] = {}
    for number, parts in enumerate(parents):
        groups.setdefault(parts[shared] if len(parts) > shared else ".", []).append(number)
    if len(groups) < 2:
        raise JobError(
            f"groups=folders: expected images in several folders, got all {len(names)} in "
            f"{PurePath(*parents[0]) if parents[0] else 'one'}; name patterns, e.g. '+groups.faces=*face*'"
        )
    return dict(sorted(groups.items()))


def _table(results: Mapping[str, Result], numbers: Sequence[int]) -> Table:
    """Average over a group's images; an image without a number does not count, as in the whole table."""
    averages = {}
    for name, result in results.items():
        chosen = {column: [each[i] for i in numbers] for column, each in result.each.items()}
        found = {column: [value for value in values if value is not None] for column, values in chosen.items()}
        means = {column: fmean(values) for column, values in found.items() if values}
        averages[name] = Result(means, len(numbers), 0.0, 0.0)
    return Table(averages, with_costs=False)


def _overview(tables: Mapping[str, Table]) -> list[list[str]]:
    """Return one number of each method and group: what the groups are compared by."""
    methods = next(iter(tables.values())).results
    found = {m: [table.results[m].values.get("hole/l1") for table in tables.values()] for m in methods}
    cells = [[m.replace("_", " "), *("" if v is None else f"{v:.2f}" for v in values)] for m, values in found.items()]
    return [["method", *tables], *cells]
