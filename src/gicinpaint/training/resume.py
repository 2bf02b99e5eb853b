"""From which checkpoint a run continues."""

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from gicinpaint.config.aliases import modernize
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
        overrides: Of this run, as they were given.

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
    if not path.is_dir():
        read_checkpoint(path)
        return path
    if found := find_newest(path / "checkpoints" if (path / "checkpoints").is_dir() else path):
        return found
    raise CheckpointError(f"resume={resume}: expected checkpoints (*.ckpt) there, found none")


def check_fit(path: Path, module: nn.Module, config: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint that fits a module: other weights are a CheckpointError, other settings a warning."""
    checkpoint = read_checkpoint(path)
    changed = _differences(*(_flatten(modernize(given)) for given in (checkpoint.get("config", {}), config)))
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
    return checkpoint


def run_settings(config: Any) -> dict[str, Any]:
    """Return the settings of data, seed and precision on which batches and rounding depend, resolved and flat."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    kept = {"seed": plain["seed"], "dataset": plain["dataset"], "precision": plain["trainer"]["precision"]}
    return {key: value for key, value in _flatten(kept).items() if key not in _FREE}


def changes(path: Path, settings: dict[str, Any]) -> list[str]:
    """Return which settings of a run differ from those in a checkpoint, which version 0.1.0 did not write."""
    before = read_checkpoint(path).get("run_settings")
    return _differences(before, settings) if isinstance(before, dict) and before else []


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [f"{k}: {before.get(k)} -> {now.get(k)}" for k in before | now if before.get(k) != now.get(k)]


def _earlier_runs(output: Path, overrides: Sequence[str]) -> list[Path]:
    """Return the runs with the same overrides beside one named by date and time, latest first; multiruns lie deeper."""
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
