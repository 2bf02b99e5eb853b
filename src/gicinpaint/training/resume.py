"""From which checkpoint a run continues."""

import csv
import logging
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger
from omegaconf import OmegaConf
from torch import nn

from gicinpaint.config.aliases import modernize
from gicinpaint.config.atomic_files import atomic_file
from gicinpaint.training.checkpoint import CheckpointError, find_newest, read_checkpoint

AUTO = "auto"
_DATE, _TIME = re.compile(r"\d{4}-\d\d-\d\d"), re.compile(r"\d\d-\d\d-\d\d(-\d+)?")

_READING = ("workers", "prefetch", "multiprocessing_context", "train.cache_dir", "validation.cache_dir", "train.hint")
_ONCE = ("validation_batch_size", "validation.hint", "seed", "mask.seed")  # the seed is told of the run
_FREE = {f"dataset.{key}" for key in (*_READING, *_ONCE)}  # what changes no batch
_ASIDE = ("resume", "resume_with_changes", "trainer.max_time")  # of two runs of one command

_log = logging.getLogger(__name__)


def find_checkpoint(resume: str | None, output: Path, overrides: Sequence[str]) -> Path | None:
    """Return the checkpoint to continue from, or None to start at zero.

    Args:
        resume: None: start at zero. "auto": continue the run in `output`; where Hydra names that folder by the
            time, the latest run or job of a multirun beside it that was started with the same overrides. Otherwise a
            checkpoint, a folder of checkpoints or the folder of a run.
        output: Where this run writes.
        overrides: The overrides of this run, as they were given.

    Raises:
        CheckpointError: If a path holds no checkpoint, or there are some but none can be read.
    """
    if resume is None:
        return None
    if resume == AUTO:
        for folder in [output, *_earlier_runs(output, overrides)]:
            if found := find_newest(folder / "checkpoints"):
                return found
        return None
    path = Path(resume).expanduser()
    if path.is_dir():
        if found := find_newest(path / "checkpoints" if (path / "checkpoints").is_dir() else path):
            return found
        raise CheckpointError(f"resume={resume}: expected checkpoints (*.ckpt) there, found none")
    read_checkpoint(path)
    return path


def check_fit(path: Path, module: nn.Module, config: dict[str, Any]) -> int:
    """Return a checkpoint's generator updates if its weights fit a module; warn of settings that have changed.

    Args:
        path: A checkpoint that can be read.
        module: What shall take its weights.
        config: The plain data from which the module was built.

    Raises:
        CheckpointError: If weights are missing, left over or of another shape.
    """
    checkpoint = read_checkpoint(path)
    before, now = (_flatten(modernize(given)) for given in (checkpoint.get("config", {}), config))
    changed = [
        f"{key}: {before.get(key)} -> {now.get(key)}" for key in (before | now) if before.get(key) != now.get(key)
    ]
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    saved = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    wrong = sorted(name for name in shapes.keys() | saved.keys() if shapes.get(name) != saved.get(name))
    if wrong:
        raise CheckpointError(
            f"{path} belongs to another model: {wrong[0]} is {saved.get(wrong[0], 'absent')} there and "
            f"{shapes.get(wrong[0], 'absent')} here; settings that differ: {'; '.join(changed[:4]) or 'none recorded'}"
        )
    if changed:
        _log.warning("the resumed run had other settings: %s", "; ".join(changed))
    return int(checkpoint["counters"]["generator_updates"])


def run_settings(config: Any) -> dict[str, Any]:
    """Return the settings, resolved and flat, on which batches and rounding depend, from a train job's configuration.

    Where a dataset lies belongs to them, the number of its readers does not; nor do the model's settings, which
    `check_fit` compares.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    kept = {"seed": plain["seed"], "dataset": plain["dataset"], "precision": plain["trainer"]["precision"]}
    flat = _flatten(kept)
    return {key: value for key, value in flat.items() if key not in _FREE}


def changes(path: Path, settings: dict[str, Any]) -> list[str]:
    """Return which settings of a run differ from those in a checkpoint, as "key: before -> now".

    Checkpoints of version 0.1.0 do not hold them.
    """
    before = read_checkpoint(path).get("run_settings")
    if not isinstance(before, dict) or not before:
        return []
    return [f"{k}: {before.get(k)} -> {settings.get(k)}" for k in before | settings if before.get(k) != settings.get(k)]


def continue_metrics(loggers: Sequence[Logger], updates: int) -> None:
    """Keep the rows of metrics.csv up to the resumed update; the logger would start an empty file.

    Args:
        loggers: The run's loggers, not used yet.
        updates: Generator updates that the resumed run has made.
    """
    for logger in loggers:
        if not isinstance(logger, CSVLogger) or not (path := Path(logger.log_dir) / "metrics.csv").is_file():
            continue
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if float(row.get("step") or 0) <= updates]
        columns = list(reader.fieldnames or ())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Experiment logs directory")
            experiment = logger.experiment  # deletes the old file
        with atomic_file(path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        experiment.metrics_keys = columns


def _earlier_runs(output: Path, overrides: Sequence[str]) -> list[Path]:
    """Return the runs with the same overrides beside one that is named by date and time, latest first.

    A job of a multirun lies one folder deeper, DATE/TIME/NUMBER.
    """
    for time, pattern in ((output, "*/*"), (output.parent, "*/*/*")):
        if _TIME.fullmatch(time.name) and _DATE.fullmatch(time.parent.name):
            runs = sorted(time.parent.parent.glob(f"{pattern}/.hydra/overrides.yaml"), reverse=True)
            break
    else:
        return []
    asked = _without_resume(overrides)
    return [run.parents[1] for run in runs if _without_resume(OmegaConf.load(run)) == asked]


def _without_resume(overrides: Iterable[Any]) -> list[str]:
    return sorted(text for text in map(str, overrides) if text.lstrip("+~").partition("=")[0] not in _ASIDE)


def _flatten(node: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of nested plain data by their dotted keys."""
    if not isinstance(node, dict | list) or not node:
        return {path: node}
    items = node.items() if isinstance(node, dict) else enumerate(node)
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= _flatten(value, f"{path}.{key}" if path else str(key))
    return flat
