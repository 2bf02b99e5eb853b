"""Checkpoint files are whole, plain data, and never replaced by half of one."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoint_faults import assert_damage_is_found, assert_kills_leave_whole_files, checkpoint, number_of
from gicinpaint.training.checkpoint import (
    AtomicCheckpointIO,
    CheckpointError,
    read_checkpoint,
)


def test_what_was_written_is_read_and_the_one_before_is_kept(tmp_path: Path) -> None:
    path, previous = tmp_path / "folder" / "last.ckpt", tmp_path / "folder" / "previous.ckpt"
    for number in range(3):
        AtomicCheckpointIO().save_checkpoint(checkpoint(number), path, {"previous": previous})
    assert (number_of(path), number_of(previous)) == (2, 1)
    torch.testing.assert_close(read_checkpoint(path)["state_dict"]["weight"], torch.full((1000,), 2.0))
    assert sorted(file.name for file in path.parent.iterdir()) == ["last.ckpt", "previous.ckpt"]


def test_where_files_have_one_name_only_the_one_before_is_kept_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    test_what_was_written_is_read_and_the_one_before_is_kept(tmp_path)


@pytest.mark.parametrize("moment", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_leaves_the_old_files(
    moment: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for old in (1, 2):
        AtomicCheckpointIO().save_checkpoint(checkpoint(old), path, {"previous": previous})

    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, moment, fail)
    with pytest.raises(CheckpointError, match=r"last.ckpt: the disk is full, 8 MB needed and \d+ MB free; older check"):
        AtomicCheckpointIO().save_checkpoint(checkpoint(3, 2_000_000), path)
    assert (number_of(path), number_of(previous)) == (2, 1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]


def test_a_process_killed_while_it_saves_leaves_a_whole_file(tmp_path: Path) -> None:
    """Two kills here; fifty in test_faults.py."""
    assert_kills_leave_whole_files(tmp_path, kills=2, seed=0)


def test_every_damage_is_found(tmp_path: Path) -> None:
    """Some here; 50 truncations and 400 flipped bits in test_faults.py."""
    assert_damage_is_found(tmp_path, truncations=5, flips=40, seed=0)


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.trace), "w"))


def test_a_flipped_bit_in_the_end_of_the_archive_is_damage_too(tmp_path: Path) -> None:
    """Python's own look at the archive raises an error where the number of its disks is wrong."""
    AtomicCheckpointIO().save_checkpoint(checkpoint(), tmp_path / "last.ckpt")
    content = bytearray((tmp_path / "last.ckpt").read_bytes())
    content[content.rindex(b"PK\x06\x07") + 4] ^= 1
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last\.ckpt cannot be read as a checkpoint: zipfiles that span"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_code_in_a_checkpoint_is_refused_and_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({**checkpoint(), "evil": Evil(trace)}, tmp_path / "zip.ckpt")
    (tmp_path / "pickle.ckpt").write_bytes(pickle.dumps(Evil(trace)))
    for name, message in {"zip": "was refused and nothing in it was run", "pickle": "not a whole checkpoint"}.items():
        with pytest.raises(CheckpointError, match=rf"{name}.ckpt:? {message}"):
            read_checkpoint(tmp_path / f"{name}.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "zip.ckpt", weights_only=False)
    assert not trace.exists()


def test_a_file_that_is_no_training_checkpoint_is_reported(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.ckpt")
    with pytest.raises(CheckpointError, match="no checkpoint to resume from, it lacks state_dict, optimizer_states"):
        read_checkpoint(tmp_path / "weights.ckpt")
