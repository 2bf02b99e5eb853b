"""The evaluate job: methods x images x masks, measured alike, as one table with everything needed to repeat it."""

import json
import re
import shlex
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from gicinpaint.attention.visualize import draw_sheet, to_image, to_tensor
from gicinpaint.config.atomic_files import write_text
from gicinpaint.config.validation import ConfigurationError, JobError, build, check_configuration
from gicinpaint.data import CenterCropResize, ImageError
from gicinpaint.evaluation.compare import Run, figure_class, find_runs, write_comparison
from gicinpaint.evaluation.images import EvaluationImages, spread
from gicinpaint.evaluation.measuring import Measurement, MethodResult
from gicinpaint.evaluation.methods import Checkpoint, Method, try_columns, try_method
from gicinpaint.evaluation.tables import BY_FOLDER, Table, group_images, update_page, write_groups, write_images
from gicinpaint.models.compositing import composite
from gicinpaint.training.loggers import UpdatesWandbLogger
from gicinpaint.training.run_record import chosen_option, git_commit, given_overrides, processor_name, versions

READS = {
    "seed": int,
    "output": str,
    "data_dir": str,
    "count": int | None,
    "pictures": int,
    "published": bool,
    "batch_size": int,
    "workers": int,
    "accelerator": str,
    "devices": int | str,
    "threads": int | None,
    "runs": str | None,
    "results_page": str | None,
    "wandb": str | None,
    "groups": str | dict | None,
    "mask": None,
}
_NAME = re.compile(r"[^/\\\0]{1,200}")


class Candidate(NamedTuple):
    """A method to measure."""

    make: Callable[[], Method]
    identity: Any  # plain data that differs from that of every other method


def evaluate(config: DictConfig) -> dict[str, MethodResult]:
    """Measure what a configuration, `conf/evaluate.yaml` composed, lists; return the result of each method.

    Raises:
        ConfigurationError: If a value is missing, wrong or unused; nothing is built then.
        JobError: If a method, the images or the masks cannot be used, or a package that is needed is absent.
    """
    check_configuration(config, {**READS, **_named_values(config)})
    for key, smallest in (("batch_size", 1), ("workers", 0), ("pictures", 0), ("threads", 1)):
        if config[key] is not None and config[key] < smallest:
            raise ConfigurationError(f"{key}: expected {smallest} or more, got {config[key]}")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    runs = find_runs(Path(config.runs)) if config.runs else []
    if runs:
        figure_class()  # what is missing shows before the work starts
    images = build_images(config)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    groups = group_images(images.names(), plain["groups"] or {})
    masks = build(config.eval_mask)
    fabric = _fabric(config)
    candidates = _candidates(config, runs, fabric.device)
    try:
        mask_manifest = masks.manifest(len(images), images.height, images.width)
    except ValueError as error:
        raise JobError(f"eval_mask: {error}") from error
    for name, candidate in candidates.items():
        try_method(name, candidate.make(), fabric.device)
    metrics = build(config.metrics)
    try_columns(metrics, images.height, images.width)
    folder = Path(config.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"output: cannot make the folder {folder}: {error.strerror}; name another") from error
    fabric.launch()
    pictured = spread(min(config.pictures, len(images)), len(images)) if config.pictures else []
    measurement = Measurement(
        images, masks, metrics, folder, pictured, fabric, config.batch_size, config.workers, groups
    )
    try:
        results, identities = _measure_all(measurement, candidates, mask_manifest)
    except ImageError as error:
        raise JobError(str(error)) from error
    if fabric.is_global_zero:
        _report(plain, measurement, Table(results, config.published), identities, runs)
    return results


def build_images(config: DictConfig) -> EvaluationImages:
    """Build the validation images of the dataset, cropped as its validation does.

    Raises:
        JobError: If they are absent, or there are fewer than wanted.
    """
    size = config.dataset.image_size
    height, width = (size, size) if isinstance(size, int) else size
    crop = config.dataset.get("validation_crop")
    crop = CenterCropResize() if crop is None else build(crop)
    try:
        return EvaluationImages(build(config.dataset.validation), crop, height, width, config.count)
    except ValueError as error:
        raise JobError(str(error)) from error


def _candidates(config: DictConfig, runs: list[Run], device: torch.device) -> dict[str, Candidate]:
    found = {
        str(name): Candidate(partial(build, node), OmegaConf.to_container(node, resolve=True))
        for name, node in (config.get("method") or {}).items()
        if node is not None
    }
    paths = {str(name): Path(path) for name, path in config.checkpoints.items() if path is not None}
    for name, path in (paths | {run.name: run.checkpoint for run in runs}).items():
        if name in found:
            raise JobError(f"{name}: two methods have this name; give the checkpoint another")
        try:
            identity = Checkpoint(path).sha256()  # reading it now: a wrong file shows before the work starts
        except (ValueError, ImportError) as error:
            raise JobError(f"{name}: {error}") from error
        make = partial(lambda path: Checkpoint(path).to(device), path)
        found[name] = Candidate(make, {"checkpoint": str(path), "sha256": identity})
    if not found:
        raise JobError("there is no method to evaluate; set method=classical, +checkpoints.<name>=FILE or runs=FOLDER")
    for name in found:
        if not _NAME.fullmatch(name) or name.startswith("."):
            raise JobError(f"{name!r}: the name of a method must do as a file name; choose another")
    return found


def _measure_all(
    measurement: Measurement, candidates: Mapping[str, Candidate], mask_manifest: Mapping[str, Any]
) -> tuple[dict[str, MethodResult], dict[str, Any]]:
    fabric, groups = measurement.fabric, measurement.groups
    image_manifest = measurement.images.manifest(progress=True) if fabric.is_global_zero else None
    manifests = {"images": fabric.broadcast(image_manifest), "masks": dict(mask_manifest)}
    results = {}
    for name, candidate in candidates.items():
        identity = {
            **manifests,
            "method": candidate.identity,
            "columns": {column: repr(metric) for column, metric in measurement.metrics.items()},
            "pictured": list(measurement.pictured),
            "device": fabric.device.type,
            **({"groups": dict(groups)} if groups else {}),
        }
        results[name] = measurement.run(name, candidate.make, identity)
    return results, {**manifests, "methods": {name: candidate.identity for name, candidate in candidates.items()}}


def _report(
    config: Mapping[str, Any], measurement: Measurement, table: Table, identities: Mapping[str, Any], runs: list[Run]
) -> None:
    """Write all files and print the tables; the configuration is plain data."""
    images, groups, folder = measurement.images, measurement.groups, measurement.folder
    _write_record(measurement, table, identities, config)
    write_images(images.names(), groups, table.results, folder)
    if config["results_page"]:
        path = Path(config["dataset"]["validation"].get("path") or "").parts[-2:]  # tells folders apart
        dataset = f"{chosen_option('dataset') or config['dataset']['_target_']} {'/'.join(path)}".strip()
        update_page(Path(config["results_page"]), dataset, table.results, identities)
    print("\n" + table.text())
    if groups:
        print("\n".join(write_groups(groups, table.results, folder)))
    if runs:
        other = [run.name for run in runs if run.image_size not in (None, (images.height, images.width))]
        print("\n" + "\n".join(write_comparison(runs, table.results, folder)))
        if other:
            print(f"trained on images of another size than {images.height}x{images.width}: {', '.join(other)}")
    print(f"\neverything is in {config['output']}", flush=True)
    if config["wandb"]:
        _log_tables(config, measurement, table)


def _write_record(
    measurement: Measurement, table: Table, identities: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    """Write results.csv, costs.csv, results.md, results.json and results.png."""
    folder, now, git, place = measurement.folder, datetime.now(UTC), git_commit(), measurement.fabric.device
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else processor_name()
    processes, threads = measurement.fabric.world_size, torch.get_num_threads()
    record = {
        "command": shlex.join(["gicinpaint", "evaluate", *given_overrides()]),
        "date": now.isoformat(timespec="seconds"),
        "git": git,
        "versions": versions(),
        "device": {"type": place.type, "name": name, "processes": processes, "threads": threads},
        "seed": config["seed"],
        **identities,
        "results": {method: result.summary() for method, result in table.results.items()},
        "config": config,
    }
    write_text(folder / "results.json", json.dumps(record, indent=2) + "\n")
    write_text(folder / "results.csv", table.csv())
    write_text(folder / "costs.csv", table.costs_csv())
    images, masks = identities["images"], identities["masks"]
    commit = git["commit"][:10] + (" with changes" if git["modified"] else "") if git["commit"] else "unknown"
    head = (
        f"{images['count']} images of {images['height']}x{images['width']} (SHA-256 {images['sha256'][:12]}), "
        f"masks {masks['preset']} (SHA-256 {masks['sha256'][:12]}); {name}, "
        f"processes: {processes}, threads of each: {threads}; {now:%Y-%m-%d}, commit {commit}."
    )
    write_text(folder / "results.md", f"{head}\n\n{table.markdown()}\n")
    if measurement.pictured:
        _draw_methods(measurement, list(table.results)).save(folder / "results.png")


def _log_tables(config: Mapping[str, Any], measurement: Measurement, table: Table) -> None:
    """Log two tables to a run of W&B: the methods, and each pictured image as every method fills it, holes overlaid."""
    import wandb  # imported where used: it takes a second

    folder, images, pictured, results = measurement.folder, measurement.images, measurement.pictured, table.results
    logger = UpdatesWandbLogger(str(folder), config["wandb"], chosen_option("dataset"), job_type="evaluate", tags=None)
    logger.keep_run(resumed=True)  # an evaluation that goes on
    means = list(dict.fromkeys(column for result in results.values() for column in result.values))
    columns = list(dict.fromkeys(column for result in results.values() for column in result.each))
    rows = [[name, *(result.values.get(column) for column in means)] for name, result in results.items()]
    names, filled = images.names(), wandb.Table(columns=["image", "method", "ground truth", "completed", *columns])
    masks, _ = measurement.masks(pictured, images.height, images.width)
    for index, mask in zip(pictured, masks, strict=True):
        overlay = {"hole": {"mask_data": mask[0].to(torch.uint8).numpy(), "class_labels": {0: "known", 1: "hole"}}}
        for name, result in results.items():
            pictures = [to_image(images[index]), Image.open(measurement.picture(name, index))]
            values = [result.each[column][index] if column in result.each else None for column in columns]
            shown = [wandb.Image(picture, masks=overlay) for picture in pictures]
            filled.add_data(names[index], name, *shown, *values)
    methods = wandb.Table(columns=["method", *means], data=rows)
    logger.experiment.config.update(dict(config), allow_val_change=True)
    logger.experiment.log({"evaluation/methods": methods, "evaluation/images": filled})
    logger.finish()


def _draw_methods(measurement: Measurement, names: list[str]) -> Image.Image:
    images, pictured = measurement.images, measurement.pictured
    truth = torch.stack([images[index] for index in pictured])
    mask, _ = measurement.masks(pictured, images.height, images.width)
    columns = {"input": composite(truth, torch.ones_like(truth), mask)}
    for name in names:
        completed = [to_tensor(Image.open(measurement.picture(name, index))) for index in pictured]
        columns[name.replace("_", " ")] = torch.stack(completed)
    return draw_sheet({**columns, "ground truth": truth}, smallest_width=128)  # titles need that much room


def _fabric(config: DictConfig) -> Fabric:
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    strategy = "auto" if config.devices in (1, "1") else "ddp"
    try:
        return Fabric(accelerator=config.accelerator, devices=config.devices, strategy=strategy)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise JobError(f"accelerator: {error}") from error


def _named_values(config: DictConfig) -> dict[str, Any]:
    """Return the values that the job reads under names of the user's own; raise if one is of a wrong kind."""
    checkpoints, groups = (OmegaConf.select(config, key) for key in ("checkpoints", "groups"))
    if not OmegaConf.is_dict(checkpoints):
        raise ConfigurationError(
            f"checkpoints: expected files by name, got {checkpoints!r}; write +checkpoints.<name>=FILE"
        )
    for name, path in checkpoints.items():
        if not isinstance(path, str | None):
            raise ConfigurationError(f"checkpoints.{name}: expected a file or a folder, got {path!r}")
    if not OmegaConf.is_dict(groups) and groups not in (None, BY_FOLDER):
        raise ConfigurationError(
            f"groups: expected {BY_FOLDER}, or patterns by name, got {groups!r}; write e.g. +groups.faces='*/faces/*'"
        )
    named = groups if OmegaConf.is_dict(groups) else {}
    for name, given in named.items():
        patterns = list(given) if OmegaConf.is_list(given) else [given]
        if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
            raise ConfigurationError(f"groups.{name}: expected a pattern or a list of patterns, got {given!r}")
    return {f"checkpoints.{name}": str for name in checkpoints} | {f"groups.{name}": str for name in named}
