"""The paper's experiments: a dry run of each on generated data in the layout of the dataset's archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from PIL import Image

from gicinpaint.training.train import train

CONF = Path(__file__).parents[2] / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("paper_*.yaml"))
SMALL = (
    "dataset.image_size=32",
    "dataset.batch_size=2",
    "dataset.workers=0",
    "mask.box=[16,16]",
    "mask.inset=[2,2]",
    "updates=2",
    "trainer=cpu",
    "trainer.accelerator=cpu",
    "trainer.val_check_interval=4",
    "trainer.log_every_n_steps=1",
    "trainer.enable_progress_bar=false",
    "callbacks.progress=null",
)
NARROW = {
    "paper": ["model.generator.width=2", *(f"model.critics.{one}.width=2" for one in ("global", "local"))],
    "paper_v2": ["model.generator.width=4", "model.critics.patch.width=2"],
}
STEPS = {"paper": 5, "paper_v2": 2}  # batches per generator update


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        yield


def composed(experiment: str, *overrides: str, output: Path) -> DictConfig:
    paths = [f"output={output / 'out'}", f"data_dir={output}"]
    return compose("train", overrides=[f"experiment={experiment}", *paths, *overrides])


def _photographs(folder: Path, *names: str, size: tuple[int, int] = (48, 40)) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        levels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / name, format="JPEG")


def _list(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def _places2(folder: Path) -> None:
    _photographs(folder / "data_large", *(f"a/abbey/{n:08}.jpg" for n in range(4)))
    _photographs(folder / "val_large", "Places365_val_00000001.jpg", "Places365_val_00000002.jpg")


def _imagenet(folder: Path) -> None:
    _photographs(folder / "train", *(f"n01440764/n01440764_{n}.JPEG" for n in range(4)))
    _photographs(folder / "val", "ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG")


def _celeba(folder: Path) -> None:
    _photographs(folder / "img_align_celeba", *(f"{n:06}.jpg" for n in range(6)), size=(178, 218))
    _list(folder / "list_eval_partition.txt", *(f"{n:06}.jpg {int(n > 3)}" for n in range(6)))


def _celeba_hq(folder: Path) -> None:
    _photographs(folder / "CelebA-HQ-img", *(f"{n}.jpg" for n in range(6)), size=(64, 64))
    _list(folder / "train.flist", *(f"{n}.jpg" for n in range(4)))
    _list(folder / "val.flist", "4.jpg", "5.jpg")


def _dtd(folder: Path) -> None:
    _photographs(folder / "images", *(f"banded/banded_{n:04}.jpg" for n in range(34)))


MAKERS = {"places2": _places2, "imagenet": _imagenet, "celeba": _celeba, "celeba_hq": _celeba_hq, "dtd": _dtd}


def paper_and_dataset(experiment: str) -> tuple[str, str]:
    paper = "paper_v2" if experiment.startswith("paper_v2_") else "paper"
    return paper, experiment.removeprefix(f"{paper}_")


def test_there_is_an_experiment_for_each_dataset_of_the_papers() -> None:
    assert {f"paper_{name}" for name in MAKERS} | {"paper_v2_places2", "paper_v2_celeba_hq"} == set(EXPERIMENTS)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_dry_run_ends_with_a_checkpoint(experiment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paper, name = paper_and_dataset(experiment)
    MAKERS[name](tmp_path / name)
    counts = ["dataset.train.expected=4", "dataset.validation.expected=" + ("30" if name == "dtd" else "2")]
    train(composed(experiment, *counts, *SMALL, *NARROW[paper], output=tmp_path))
    counters = torch.load(tmp_path / "out" / "checkpoints" / "last.ckpt", weights_only=True)["counters"]
    assert counters == {"batches_seen": 2 * STEPS[paper], "generator_updates": 2}
    assert f"4 training and {30 if name == 'dtd' else 2} validation images" in capsys.readouterr().out


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if paper_and_dataset(name)[0] == "paper"])
def test_settings_are_the_released_ones(experiment: str, tmp_path: Path) -> None:
    """The authors' inpaint.yml: names there on the left."""
    config = composed(experiment, output=tmp_path)
    released = {
        "BATCH_SIZE": (config.dataset.batch_size, 16),
        "IMG_SHAPES": (config.dataset.image_size, 256),
        "HEIGHT, WIDTH": (config.mask.box, [128, 128]),
        "MAX_DELTA_HEIGHT, _WIDTH, half of it on each side": (config.mask.inset, [16, 16]),
        "VERTICAL_MARGIN, HORIZONTAL_MARGIN": (config.mask.margin, [0, 0]),
        "GAN": (config.loss.adversary._target_, "gicinpaint.losses.Wasserstein"),
        "COARSE_L1_ALPHA": (config.loss.coarse_weight, 1.2),
        "L1_LOSS_ALPHA": (config.loss.reconstruction_weight, 1.2),
        "AE_LOSS_ALPHA": (config.loss.known_weight, 1.2),
        "GAN_LOSS_ALPHA": (config.loss.adversarial_weight, 0.001),
        "GLOBAL_WGAN_LOSS_ALPHA": (config.loss.global_weight, 1.0),
        "WGAN_GP_LAMBDA": (config.loss.penalty_weight, 10),
        "SPATIAL_DISCOUNTING_GAMMA": (config.loss.reconstruction.gamma, 0.9),
        "MAX_ITERS": (config.updates, 1000000),
        "critic updates, in train.py": (config.model.critic_steps, 5),
        "Adam, in train.py": ((config.optimizer.lr, list(config.optimizer.betas)), (1e-4, [0.5, 0.9])),
    }
    for name, (ours, theirs) in released.items():
        assert ours == theirs, name


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if paper_and_dataset(name)[0] == "paper_v2"])
def test_settings_are_the_second_papers_released_ones(experiment: str, tmp_path: Path) -> None:
    """The second paper's inpaint.yml and train.py, as its golden files describe them."""
    config = composed(experiment, output=tmp_path)
    released = {
        "batch_size": (config.dataset.batch_size, 16),
        "img_shapes": (config.dataset.image_size, 256),
        "height, width": (config.mask.box, [128, 128]),
        "max_delta_height, _width": (config.mask.inset, [32, 32]),
        "gan, halved": (
            (config.loss.adversary._target_, config.loss.adversary.scale),
            ("gicinpaint.losses.Hinge", 0.5),
        ),
        "gan_loss_alpha": (config.loss.adversarial_weight, 1),
        "l1_loss_alpha, of the whole image": ((config.loss.reconstruction_weight, config.loss.known_weight), (1, 0)),
        "generator's and critic's widths": ((config.model.generator.width, config.model.critics.patch.width), (48, 64)),
        "other critics": ((config.model.critics["global"], config.model.critics.local), (None, None)),
        "critic updates": (config.model.critic_steps, 1),
        "a batch of its own for each": (config.model.separate_batches, True),
        "Adam": ((config.optimizer.lr, list(config.optimizer.betas)), (1e-4, [0.5, 0.999])),
        "val_psteps, a snapshot": (config.callbacks.checkpoints.every, 4000),
    }
    for name, (ours, theirs) in released.items():
        assert ours == theirs, name


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_head_says_what_it_takes_and_what_to_expect(experiment: str) -> None:
    head = (CONF / "experiment" / f"{experiment}.yaml").read_text().split("defaults:")[0]
    for word in ("command", "data", "cost", "expected"):
        assert f"\n#   {word} " in head
    assert f"experiment={experiment}" in head
