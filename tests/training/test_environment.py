from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest
import torch

from gicinpaint.training.run_record import git_commit, versions

ROOT = Path(__file__).parents[2]


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "src" / "package").mkdir(parents=True)
    (tmp_path / "src" / "package" / "file.py").write_text("1")
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_the_commit_is_that_of_the_repository(repository: Path) -> None:
    found = git_commit(repository / "src" / "package")
    assert found == {"commit": _git(repository, "rev-parse", "HEAD"), "modified": False}


def test_a_changed_file_shows_and_a_new_one_does_not(repository: Path) -> None:
    (repository / "src" / "package" / "new.py").write_text("2")
    assert git_commit(repository / "src" / "package")["modified"] is False
    (repository / "src" / "package" / "file.py").write_text("3")
    assert git_commit(repository / "src" / "package")["modified"] is True


def test_another_repositorys_commit_is_not_ours(repository: Path) -> None:
    (repository / "site-packages").mkdir()
    assert git_commit(repository / "site-packages") == {"commit": None, "modified": None}


def test_without_a_repository_the_commit_is_unknown(tmp_path: Path) -> None:
    assert git_commit(tmp_path) == {"commit": None, "modified": None}


def test_versions_are_those_that_run() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert torch.__version__.startswith(found["torch"])
    assert "PyPatchMatch" not in found or found["PyPatchMatch"]
