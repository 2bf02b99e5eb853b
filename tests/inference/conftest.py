"""What tests of the inpaint job start from: a small model, and a folder with a mask."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from gicinpaint import Generator
from gicinpaint.weights.pretrained import save_generator
from inpaint_runs import HOLE


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    save_generator(Generator(2), folder)
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with in/ and a mask for all."""
    (tmp_path / "in").mkdir()
    Image.fromarray(HOLE).save(tmp_path / "mask.png")
    return tmp_path
