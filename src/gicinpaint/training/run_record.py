"""Run record, for reproducibility: settings, code, versions, data and output that a run leaves beside its results."""

import hashlib
import json
import logging
import platform
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from gicinpaint.config.atomic_files import atomic_file, lock_file, write_text
from gicinpaint.config.validation import JobError
from gicinpaint.data.sources import ImageSource

OUTPUT_LOG, STARTS = "output.log", "starts.jsonl"
_PACKAGES = ["gicinpaint", "torch", "lightning", "torchmetrics", "numpy", "pillow", "scikit-image", "scipy"]
_PACKAGES += ["opencv-python-headless", "PyPatchMatch"]


def write_record(
    folder: Path, config: DictConfig, overrides: Sequence[str], sources: Mapping[str, ImageSource], **facts: Any
) -> None:
    """Write `config.yaml`, `overrides.yaml`, `git.diff` and a line of `starts.jsonl`, with digests of the data."""
    write_text(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    write_text(folder / "overrides.yaml", OmegaConf.to_yaml(list(overrides)))
    with atomic_file(folder / "git.diff") as partial:
        partial.write_bytes(uncommitted_changes().encode("utf-8", "surrogateescape"))
    start = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "data": {use: {"images": len(source), "sha256": hash_names(source)} for use, source in sources.items()},
        "devices": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] or ["cpu"],
        **facts,
    }
    with (folder / STARTS).open("a") as file:
        file.write(json.dumps(start) + "\n")


def given_overrides() -> list[str]:
    """Return what was given on the command line; nothing outside of a job."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def chosen_option(group: str) -> str | None:
    """Return which option of a group the job runs with; None outside of a job."""
    return HydraConfig.get().runtime.choices.get(group) if HydraConfig.initialized() else None


def hash_names(source: ImageSource) -> str:
    """Return the SHA-256 of the names of all images, each followed by a line feed; their contents are not read."""
    found = hashlib.sha256()
    for index in range(len(source)):
        found.update(f"{source.name(index)}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def git_commit(folder: Path = Path(__file__).parents[1]) -> dict[str, Any]:
    """Return the commit of the package's repository and whether its tracked files differ from it; None if unknown."""
    root, commit = (_git("rev-parse", what, folder=folder) for what in ("--show-toplevel", "HEAD"))
    if not root or not commit or not folder.is_relative_to(Path(root.rstrip("\n"), "src")):
        return {"commit": None, "modified": None}  # perhaps installed inside somebody else's repository
    changes = _git("status", "--porcelain", "--untracked-files=no", folder=folder)
    return {"commit": commit.strip(), "modified": None if changes is None else bool(changes)}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a number."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def processor_name() -> str:
    """Return what the processor calls itself."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else ()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def resident_memory(process: int | str = "self", field: str = "VmRSS") -> int:
    """Return the bytes that a process has in memory now or, with VmHWM, had at most; elsewhere this process's peak."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def uncommitted_changes(folder: Path = Path(__file__).parents[1]) -> str:
    """Return how tracked files differ from the last commit, bytes that are no UTF-8 as surrogates; empty without."""
    return _git("diff", "HEAD", "--", str(folder), str(folder.parents[1] / "conf"), folder=folder) or ""


def _git(*arguments: str, folder: Path) -> str | None:
    """Return what git prints, or None if it fails: without git, outside of a repository."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        found = subprocess.run(command, capture_output=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return found.decode("utf-8", "surrogateescape")


@contextmanager
def recorded_output(folder: Path, label: str = "") -> Iterator[None]:
    """Copy what is printed and logged, and the error that ends it, to `output.log`; progress bars are left out.

    A label, for runs side by side, stands before each line on the screen; bars become lines then. Another process that
    does the same in this folder is a JobError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = sys.stdout, sys.stderr
    with (folder / OUTPUT_LOG).open("a", buffering=1, encoding="utf-8", errors="backslashreplace") as file:
        with suppress(OSError):  # a network disk without locks
            try:
                lock_file(file, inherited=False)  # for this process alone, not for those that it starts
            except (BlockingIOError, PermissionError) as error:
                reason = "another run is writing there; wait for its end or set output=<folder>"
                raise JobError(f"{folder}: {reason}") from error
        sys.stdout, sys.stderr = _Copy(before[0], file, label), _Copy(before[1], file, label)
        handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.StreamHandler)]
        redirected = [handler for handler in handlers if handler.stream in before]
        for handler in redirected:
            handler.setStream(sys.stdout if handler.stream is before[0] else sys.stderr)
        try:
            yield
        except (KeyboardInterrupt, SystemExit) as end:
            print("interrupted" if isinstance(end, KeyboardInterrupt) else f"ended with code {end.code}", file=file)
            raise
        except BaseException:
            traceback.print_exc(file=file)
            raise
        finally:
            for handler in redirected:
                handler.setStream(before[0] if handler.stream is sys.stdout else before[1])
            sys.stdout, sys.stderr = before


class _Copy:
    """A stream that also writes to a file; it is the stream in everything else."""

    def __init__(self, stream: TextIO, file: TextIO, label: str = "") -> None:
        self._stream = stream
        self._file = file
        self._label = label
        self._begun = ""  # of a line that is to have a label

    def write(self, text: str) -> int:
        if "\r" not in text:
            self._file.write(text)
        if not self._label:
            return self._stream.write(text)
        *lines, self._begun = (self._begun + text).split("\n")  # whole lines, or those of two runs would mix
        self._stream.write("".join(f"{self._label}{line}\n" for line in lines if line.strip()))
        return len(text)

    def isatty(self) -> bool:
        return not self._label and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
