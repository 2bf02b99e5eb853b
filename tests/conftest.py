from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import golden
from gicinpaint.weights import read_checkpoint


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the golden checkpoint; tests that damage it work on a copy."""
    return golden.unpack_checkpoint(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="session")
def variables(released: Path) -> dict[str, np.ndarray]:
    """Return the golden checkpoint's variables as they are read."""
    return read_checkpoint(released)
