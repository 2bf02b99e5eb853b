"""What a run leaves beside its results, so that it can be understood and repeated: settings, code, data, output."""

import hashlib
import json
import logging
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import torch
from omegaconf import DictConfig, OmegaConf

from gicinpaint.data.sources import ImageSource

OUTPUT_LOG, STARTS = "output.log", "starts.jsonl"


def write_record(
    folder: Path, config: DictConfig, overrides: Sequence[str], sources: Mapping[str, ImageSource], **facts: Any
) -> None:
    """Write `config.yaml`, `overrides.yaml`, `git.diff` and a line in `starts.jsonl`, of which a resumed run has more.

    Args:
        folder: The run's folder.
        config: The composed configuration; it is written with all values filled in.
        overrides: What was given on the command line.
        sources: Where images come from, by use; the names of all images are hashed, in order.
        facts: What else the run depends on, as plain data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
    (folder / "overrides.yaml").write_text(OmegaConf.to_yaml(list(overrides)))
    (folder / "git.diff").write_text(uncommitted_changes())
    start = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "data": {use: {"images": len(source), "sha256": hash_names(source)} for use, source in sources.items()},
        "devices": _devices(),
        **facts,
    }
    with (folder / STARTS).open("a") as file:
        file.write(json.dumps(start) + "\n")


def hash_names(source: ImageSource) -> str:
    """Return the SHA-256 of the names of all images, each followed by a line feed; their contents are not read."""
    found = hashlib.sha256()
    for index in range(len(source)):
        found.update(f"{source.name(index)}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def uncommitted_changes(folder: Path = Path(__file__).parents[1]) -> str:
    """Return how the package's tracked files differ from its last commit; empty without a repository."""
    command = ["git", "-C", str(folder), "diff", "HEAD", "--", str(folder), str(folder.parents[1] / "conf")]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


@contextmanager
def recorded_output(folder: Path) -> Iterator[None]:
    """Copy what is printed and logged, and the error that ends it, to `output.log`; progress bars are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    before = sys.stdout, sys.stderr
    with (folder / OUTPUT_LOG).open("a", buffering=1, errors="backslashreplace") as file:
        sys.stdout, sys.stderr = _Copy(before[0], file), _Copy(before[1], file)
        handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.StreamHandler)]
        redirected = [handler for handler in handlers if handler.stream in before]
        for handler in redirected:
            handler.setStream(sys.stdout if handler.stream is before[0] else sys.stderr)
        try:
            yield
        except BaseException:
            traceback.print_exc(file=file)
            raise
        finally:
            for handler in redirected:
                handler.setStream(before[0] if handler.stream is sys.stdout else before[1])
            sys.stdout, sys.stderr = before


class _Copy:
    """A stream that also writes to a file; it is the stream in everything else."""

    def __init__(self, stream: TextIO, file: TextIO) -> None:
        self._stream = stream
        self._file = file

    def write(self, text: str) -> int:
        if "\r" not in text:
            self._file.write(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _devices() -> list[str]:
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] or ["cpu"]
