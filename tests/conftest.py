from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import golden
from gicinpaint.weights import read_checkpoint


def pytest_configure() -> None:
    """Let commands that tests start hear Ctrl+C: a shell's background jobs, and their children, ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the golden checkpoint; tests that damage it work on a copy."""
    return golden.unpack_checkpoint(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="session")
def variables(released: Path) -> dict[str, np.ndarray]:
    """Return the golden checkpoint's variables as they are read."""
    return read_checkpoint(released)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Undo what a job that ran in this process did to logging; Hydra adds handlers and disables loggers."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for logger in logging.Logger.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collect what a finished xdist worker read."""
    golden.READ.update(getattr(node, "workeroutput", {}).get("golden", []))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run of the whole suite in which no test opened one of the golden files."""
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["golden"] = sorted(golden.READ)
        return
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.keyword
    if whole and not config.option.collectonly and session.exitstatus == pytest.ExitCode.OK:
        known = {path.name for path in golden.paths("*.npz")}
        if golden.SHARED_V2.is_dir():
            known |= {f"v2_{path.name}" for path in golden.paths_v2("*.npz")}
        unread = sorted(known - golden.READ)
        if unread:
            print(f"\nno test opened the golden files {', '.join(unread)}")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
