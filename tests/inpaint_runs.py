"""Runs of the inpaint job, in processes of their own or in this one."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gicinpaint.cli import main

ROOT = Path(__file__).parents[1]
SIZE = (22, 30)  # of the small images that are filled
HOLE = np.zeros(SIZE, bool)
HOLE[5:13, 8:20] = True


def run(model: Path, *overrides: str, folder: Path, job: str = "inpaint") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / f"{job}.py"), f"checkpoint={model}", "trainer=cpu", *overrides]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


class Result(NamedTuple):
    """What a job in this process left behind; a process of its own takes seconds to begin."""

    returncode: int
    stdout: str
    stderr: str


def run_here(model: Path | None, *overrides: str, folder: Path) -> Result:
    """Run the job; without a model it must find one."""
    output, errors, here = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), warnings.catch_warnings():
            named = [] if model is None else [f"checkpoint={model}"]
            code = main(["inpaint", *named, "trainer=cpu", "workers=0", *overrides])
    finally:
        os.chdir(here)
    return Result(code, output.getvalue(), errors.getvalue())


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
