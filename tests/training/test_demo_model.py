"""The recipe of the demo model: a dry run of its steps on generated photographs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from PIL import Image

from gicinpaint.data import RandomScaleCrop, RepeatedCrop
from gicinpaint.training.train import train
from gicinpaint.weights.pretrained import load_generator

ROOT = Path(__file__).parents[2]
SMALL = ["model.generator.width=2", "dataset.batch_size=1", "dataset.workers=0", "updates=2"]
QUIET = ["trainer.val_check_interval=2", "trainer.enable_progress_bar=false", "callbacks.progress=null"]


def _first_stage(run: Path) -> torch.Tensor:
    network = load_generator(run / "checkpoints" / "last.ckpt").coarse_network
    assert network.residual
    return torch.cat([weight.flatten() for weight in network.parameters()])


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for number, part in enumerate(("train", "train", "val")):
        folder = tmp_path / "data" / "noise" / part
        folder.mkdir(parents=True, exist_ok=True)
        levels = np.random.default_rng(number).integers(0, 256, (300, 260, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{number}.png")
    return tmp_path / "data"


@pytest.mark.parametrize("experiment", ["demo_model_64", "demo_model_128", "demo_model"])
def test_a_step_trains_and_leaves_an_averaged_generator(experiment: str, photographs: Path, tmp_path: Path) -> None:
    paths = [f"output={tmp_path / 'out'}", f"data_dir={photographs}"]
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        train(compose("train", overrides=[f"experiment={experiment}", *paths, *SMALL, *QUIET]))
    last = tmp_path / "out" / "checkpoints" / "last.ckpt"
    average = torch.load(last, weights_only=True)["generator_average"]
    loaded = load_generator(last).state_dict()
    assert all(torch.equal(average[name], loaded[name]) for name in loaded)


@pytest.mark.parametrize(
    ("experiment", "probability"), [("demo_model_64", 0), ("demo_model_128", 0.5), ("demo_model", 0.6)]
)
def test_crops_repeat_views_that_were_cut_at_many_scales(experiment: str, probability: float) -> None:
    """Options of the dataset's own crop would stay beside those of a crop that is named in its place."""
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        crop = instantiate(compose("train", overrides=[f"experiment={experiment}"]).dataset.train_crop)
    assert isinstance(crop, RepeatedCrop)
    assert isinstance(crop.crop, RandomScaleCrop)
    assert (crop.probability, crop.crop.smallest) == (probability, 0.5)


@pytest.mark.slow
def test_the_script_runs_every_step_once(photographs: Path, tmp_path: Path) -> None:
    command = ["bash", str(ROOT / "examples" / "train_demo_model.sh"), str(photographs), str(tmp_path / "runs")]

    def start() -> subprocess.CompletedProcess[str]:
        environment = {"PYTHON": sys.executable, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        return subprocess.run([*command, *SMALL, *QUIET], env=environment, capture_output=True, text=True, check=True)

    first = start()
    assert first.stdout.count("output folder:") == 9
    assert first.stdout.count("the generator starts with") == 8  # every step but the first builds on another
    runs = {path.parent.name for path in (tmp_path / "runs").glob("*/done")}
    both = {f"{name}{step}" for name in ("contextual", "baseline") for step in ("_128", "")}
    assert runs == {"coarse_64", "coarse_128", "coarse_256", "residual_128", "residual_256", *both}
    first_stages = [_first_stage(tmp_path / "runs" / name) for name in ("residual_256", "contextual_128", "contextual")]
    assert all(torch.equal(one, first_stages[0]) for one in first_stages)  # frozen
    assert start().stdout == ""
