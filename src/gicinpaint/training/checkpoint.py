"""Checkpoint files: written whole or not at all, read without executing anything, and only if they are whole."""

import errno
import logging
import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from torch import Tensor

from gicinpaint.config.atomic_files import atomic_file, partial_path
from gicinpaint.config.validation import JobError
from gicinpaint.weights.pretrained import check_archive, check_settings, refusal

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
VERSION = "pytorch-lightning_version"
_COUNTERS = ("batches_seen", "generator_updates")
_NEEDED = ("state_dict", "optimizer_states", "counters", "global_step")

_log = logging.getLogger(__name__)


class CheckpointError(JobError):
    """A checkpoint that cannot be written or read; the message is one line."""


class AtomicCheckpointIO(CheckpointIO):
    """Write beside the target, flush to disk, then rename: a kill at any moment leaves the old file or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: Plain data.
            path: Where to; the folder is made.
            storage_options: {"previous": path}: keep the file that is replaced under that name.

        Raises:
            CheckpointError: If the disk is full; files that were there before are left as they were.
        """
        path = Path(path)
        try:
            with atomic_file(path) as partial:
                with partial.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())  # before an older file is given up
                if storage_options and path.exists():
                    _keep(path, Path(storage_options["previous"]))
        except Exception as error:
            if _means_full(error):
                raise CheckpointError(_describe_full(checkpoint, path)) from error
            raise

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; whatever is asked for, code in it is refused."""
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return a training checkpoint, on the CPU, after checking that every byte is as it was written.

    Raises:
        CheckpointError: If it is absent, truncated, altered, holds code, or is no training checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a checkpoint, found no such file")
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("its end is missing, or it is something else")
        check_archive(path)  # checksums too, which torch.load does not look at
    except Exception as error:  # what altered bytes make the reader raise is not documented
        raise CheckpointError(f"{path}: not a whole checkpoint ({_first_words(error)})") from error
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        words = refusal(error) if isinstance(error, pickle.UnpicklingError) else _first_words(error)
        raise CheckpointError(f"{path}: cannot be read as plain data ({words})") from None
    missing = [key for key in _NEEDED if not isinstance(checkpoint, dict) or key not in checkpoint]
    if missing:
        raise CheckpointError(f"{path}: no checkpoint to resume from, it lacks {', '.join(missing)}")
    _check_contents(checkpoint, path)
    return checkpoint


def _check_contents(checkpoint: dict[str, Any], path: Path) -> None:
    """Raise if a part is none that a run could have written."""
    counters, optimizers = checkpoint["counters"], checkpoint["optimizer_states"]
    counts = [counters.get(name) for name in _COUNTERS] if isinstance(counters, dict) else [None]
    wrong = {
        "state_dict": not isinstance(checkpoint["state_dict"], dict)
        or not all(isinstance(value, Tensor) for value in checkpoint["state_dict"].values()),
        "counters": not all(type(count) is int and count >= 0 for count in (*counts, checkpoint["global_step"])),
        "optimizer_states": not isinstance(optimizers, list)
        or not optimizers
        or not all(isinstance(state, dict) for state in optimizers),
        VERSION: re.fullmatch(r"\d+\.\d+[\w.+-]*", str(checkpoint.get(VERSION))) is None,
    }
    if names := [name for name, is_wrong in wrong.items() if is_wrong]:
        raise CheckpointError(f"{path}: no checkpoint to resume from, its {names[0]} cannot be a run's; copy it again")
    try:
        check_settings(checkpoint, path)
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def find_newest(folder: str | Path) -> Path | None:
    """Return the newest checkpoint of a folder that can be read, or None if there is no checkpoint at all.

    Each newer one that cannot is logged as a warning.

    Raises:
        CheckpointError: If there are checkpoints but none can be read: starting over would hide the loss.
    """
    found = sorted(Path(folder).glob("*.ckpt"), key=lambda path: (path.name != LAST, -path.stat().st_mtime_ns))
    for path in found:
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            _log.warning("skipped %s", error)
        else:
            return path
    if found:
        raise CheckpointError(
            f"{folder}: none of {', '.join(path.name for path in found)} can be read; "
            "restore one from a copy, or start over in another folder"
        )
    return None


def _keep(path: Path, previous: Path) -> None:
    """Give a file a second name; where the file system has no such links, rename it."""
    linked = partial_path(previous)
    try:
        linked.unlink(missing_ok=True)
        os.link(path, linked)
        os.replace(linked, previous)
    except OSError:
        os.replace(path, previous)


def _means_full(error: BaseException | None) -> bool:
    """Tell whether a full disk or quota is behind an error; torch's writer raises one of its own over it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def _describe_full(checkpoint: dict[str, Any], path: Path) -> str:
    needed, free = _bytes(checkpoint), shutil.disk_usage(path.parent).free
    return (
        f"cannot save {path}: the disk is full, {needed / 1e6:.0f} MB needed and {free / 1e6:.0f} MB free; older "
        "checkpoints are as they were; free some space and continue with resume=auto"
    )


def _bytes(value: Any) -> int:
    """Return the size of all tensors in nested plain data."""
    if isinstance(value, Tensor):
        return value.nbytes
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(_bytes, items))


def _first_words(error: Exception) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:160]
