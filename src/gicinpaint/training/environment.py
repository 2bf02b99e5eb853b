"""Reproducibility: what a result depends on besides its configuration: commit, versions of packages, machine."""

import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "gicinpaint",
    "torch",
    "lightning",
    "torchmetrics",
    "numpy",
    "pillow",
    "scikit-image",
    "scipy",
    "opencv-python-headless",
    "PyPatchMatch",
)


def git_commit(folder: Path = Path(__file__).parents[1]) -> dict[str, Any]:
    """Return the commit of the package's repository and whether its tracked files differ from it; None if unknown."""
    try:
        root = Path(_git("rev-parse", "--show-toplevel", folder=folder))
        if not folder.is_relative_to(root / "src"):
            return {"commit": None, "modified": None}  # installed inside somebody else's repository
        changes = _git("status", "--porcelain", "--untracked-files=no", folder=folder)
        return {"commit": _git("rev-parse", "HEAD", folder=folder), "modified": bool(changes)}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "modified": None}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a number."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def processor_name() -> str:
    """Return what the processor calls itself."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else ()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def resident_memory(process: int | str = "self", field: str = "VmRSS") -> int:
    """Return the bytes that a process has in memory now (VmRSS) or had at most (VmHWM).

    Where the system does not tell, the peak of this process.
    """
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    import resource  # absent on Windows, which has no other way here

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _git(*arguments: str, folder: Path) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
