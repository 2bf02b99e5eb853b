"""The files of an evaluation: table, picture, and everything needed to repeat it."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gicinpaint.evaluation.device import describe_device
from gicinpaint.evaluation.measuring import Measurement, Result
from gicinpaint.evaluation.sheet import draw_methods
from gicinpaint.evaluation.tables import Table, finite
from gicinpaint.evaluation.writing import write_text
from gicinpaint.training.environment import git_commit, versions


def write_record(
    measurement: Measurement, table: Table, identities: Mapping[str, Any], command: str, config: Mapping[str, Any]
) -> None:
    """Write results.csv, costs.csv, results.md, results.json and results.png.

    Args:
        measurement: What was measured; the files go to its folder.
        table: The results.
        identities: Manifests of images and masks, and what tells each method from others.
        command: What was typed.
        config: The whole configuration, as plain data.
    """
    fabric, folder = measurement.fabric, measurement.folder
    now, git = datetime.now(UTC), git_commit()
    device = describe_device(fabric.device, fabric.world_size)
    record = {
        "command": command,
        "date": now.isoformat(timespec="seconds"),
        "git": git,
        "versions": versions(),
        "device": device,
        "seed": config["seed"],
        **identities,
        "results": {name: _plain(result) for name, result in table.results.items()},
        "config": config,
    }
    write_text(folder / "results.json", json.dumps(record, indent=2) + "\n")
    write_text(folder / "results.csv", table.csv())
    write_text(folder / "costs.csv", table.costs_csv())
    write_text(folder / "results.md", f"{_head(identities, device, git, now)}\n\n{table.markdown()}\n")
    if measurement.pictured:
        draw_methods(measurement, list(table.results)).save(folder / "results.png")


def _head(identities: Mapping[str, Any], device: Mapping[str, Any], git: Mapping[str, Any], now: datetime) -> str:
    images, masks = identities["images"], identities["masks"]
    commit = git["commit"][:10] + (" with changes" if git["modified"] else "") if git["commit"] else "unknown"
    return (
        f"{images['count']} images of {images['height']}x{images['width']} (SHA-256 {images['sha256'][:12]}), "
        f"masks {masks['preset']} (SHA-256 {masks['sha256'][:12]}); {device['name']}, "
        f"processes: {device['processes']}, threads of each: {device['threads']}; {now:%Y-%m-%d}, commit {commit}."
    )


def _plain(result: Result) -> dict[str, Any]:
    return {
        "values": {column: finite(value) for column, value in result.values.items()},
        "images": result.images,
        "seconds_per_image": result.seconds_per_image,
        "peak_memory_mib": result.peak_memory_mib,
    }
