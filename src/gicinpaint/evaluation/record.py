"""Files of an evaluation: tables, an image of all methods, and everything needed to repeat it."""

import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from gicinpaint.attention.image_grid import draw_sheet, to_tensor
from gicinpaint.config.atomic_files import write_text
from gicinpaint.evaluation.measuring import Measurement, MethodResult
from gicinpaint.evaluation.tables import Table, finite
from gicinpaint.models.compositing import composite
from gicinpaint.training.environment import git_commit, versions


def write_record(
    measurement: Measurement, table: Table, identities: Mapping[str, Any], command: str, config: Mapping[str, Any]
) -> None:
    """Write results.csv, costs.csv, results.md, results.json and results.png.

    Args:
        measurement: What was measured; the files go to its folder.
        table: The results.
        identities: Manifests of images and masks, and the identity of each method.
        command: The command line.
        config: The whole configuration, as plain data.
    """
    folder, now, git = measurement.folder, datetime.now(UTC), git_commit()
    device = _describe_device(measurement.fabric.device, measurement.fabric.world_size)
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
    images, masks = identities["images"], identities["masks"]
    commit = git["commit"][:10] + (" with changes" if git["modified"] else "") if git["commit"] else "unknown"
    head = (
        f"{images['count']} images of {images['height']}x{images['width']} (SHA-256 {images['sha256'][:12]}), "
        f"masks {masks['preset']} (SHA-256 {masks['sha256'][:12]}); {device['name']}, "
        f"processes: {device['processes']}, threads of each: {device['threads']}; {now:%Y-%m-%d}, commit {commit}."
    )
    write_text(folder / "results.md", f"{head}\n\n{table.markdown()}\n")
    if measurement.pictured:
        _draw_methods(measurement, list(table.results)).save(folder / "results.png")


def _draw_methods(measurement: Measurement, names: list[str]) -> Image.Image:
    """Draw a row for each pictured image: input, each method's saved completion, ground truth."""
    images, pictured = measurement.images, measurement.pictured
    truth = torch.stack([images[index] for index in pictured])
    mask, _ = measurement.masks(pictured, images.height, images.width)
    columns = {"input": composite(truth, torch.ones_like(truth), mask)}
    for name in names:
        completed = [to_tensor(Image.open(measurement.picture(name, index))) for index in pictured]
        columns[name.replace("_", " ")] = torch.stack(completed)
    return draw_sheet({**columns, "ground truth": truth}, smallest_width=128)  # titles need that much room


def _describe_device(device: torch.device, processes: int) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {"type": device.type, "name": name, "processes": processes, "threads": torch.get_num_threads()}


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _plain(result: MethodResult) -> dict[str, Any]:
    return {
        "values": {column: finite(value) for column, value in result.values.items()},
        "images": result.images,
        "seconds_per_image": result.seconds_per_image,
        "peak_memory_mib": result.peak_memory_mib,
    }
