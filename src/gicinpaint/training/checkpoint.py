"""Checkpoint files: written whole or not at all, read without executing anything, and only if they are whole."""

import errno
import logging
import os
import re
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from torch import Tensor

from gicinpaint.config.atomic_files import atomic_file, partial_path
from gicinpaint.config.validation import JobError
from gicinpaint.weights.pretrained import check_settings, read_plain

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
_VERSION = "pytorch-lightning_version"
_NEEDED = ("state_dict", "optimizer_states", "counters", "global_step")

_log = logging.getLogger(__name__)


class CheckpointError(JobError):
    """A checkpoint that cannot be written or read; the message is one line."""


class AtomicCheckpointIO(CheckpointIO):
    """Write beside the target, flush to disk, then rename: a kill at any moment leaves the old file or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write plain data; storage_options {"previous": path} keeps the file that is replaced under that name.

        If the disk is full, a CheckpointError is raised and the older files are as they were.
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
                needed, free = _bytes(checkpoint) / 1e6, shutil.disk_usage(path.parent).free / 1e6
                raise CheckpointError(
                    f"cannot save {path}: the disk is full, {needed:.0f} MB needed and {free:.0f} MB free; older "
                    "checkpoints are as they were; free some space and continue with resume=auto"
                ) from error
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
    """Return a whole training checkpoint, on the CPU, or raise a CheckpointError if it is anything else."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a checkpoint, found no such file")
    with suppress(zipfile.BadZipFile):  # its end is damaged, which is told when it is read
        if not zipfile.is_zipfile(path):
            raise CheckpointError(f"{path}: not a whole checkpoint: its end is missing, or it is something else")
    try:
        checkpoint = read_plain(path)
        check_settings(checkpoint, path)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    missing = [key for key in _NEEDED if not isinstance(checkpoint, dict) or key not in checkpoint]
    if missing:
        raise CheckpointError(f"{path}: no checkpoint to resume from, it lacks {', '.join(missing)}")
    state, optimizers, counters = (checkpoint[key] for key in _NEEDED[:3])
    names = ("batches_seen", "generator_updates")
    counts = [counters.get(name) for name in names] if isinstance(counters, dict) else [None]
    logged, last = checkpoint.get("logged", {}), checkpoint.get("last_logged", {})
    right = {
        "state_dict": isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values()),
        "counters": all(type(count) is int and count >= 0 for count in (*counts, checkpoint["global_step"])),
        "optimizer_states": isinstance(optimizers, list) and {dict} == {type(state) for state in optimizers},
        "logged": isinstance(logged, dict) and all(type(count) is int and count >= 0 for count in logged.values()),
        "last_logged": isinstance(last, dict) and all(isinstance(value, Tensor) for value in last.values()),
        _VERSION: re.fullmatch(r"\d+\.\d+[\w.+-]*", str(checkpoint.get(_VERSION))),
    }
    for name, is_right in right.items():
        if not is_right:
            raise CheckpointError(f"{path}: no checkpoint to resume from, its {name} cannot be a run's; copy it again")
    return checkpoint


def find_newest(folder: str | Path) -> Path | None:
    """Return the newest checkpoint of a folder that can be read, warning of newer ones, or None if the folder has none.

    If there are some but none can be read, a CheckpointError is raised: starting over would hide the loss.
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


def _bytes(value: Any) -> int:
    """Return the size of all tensors in nested plain data."""
    if isinstance(value, Tensor):
        return value.nbytes
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(_bytes, items))
