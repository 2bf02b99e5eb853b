"""Ablations by multirun: every variant can be built, sweeps name what exists, two runs work side by side."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_module
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from gicinpaint.cli import main
from gicinpaint.config.command_line import register_resolvers
from gicinpaint.config.validation import build, check_configuration
from gicinpaint.evaluation.compare import PANELS, draw_curves, find_runs
from gicinpaint.losses import Hinge, HoleReconstruction, LeastSquares, NonSaturating
from gicinpaint.models.generator import CoarseGenerator
from gicinpaint.training.module import InpaintingModule
from gicinpaint.training.train import READS, build_module
from runs import ROOT, SMALL
from wandb_files import read_offline_run

CONF = ROOT / "conf"
SWEEPS = sorted(path.stem for path in (CONF / "sweep").glob("*.yaml"))
VARIANTS = sorted(path.stem for path in (CONF / "variant").glob("*.yaml") if path.stem != "adversarial")  # a recipe


@pytest.fixture
def _hydra() -> Iterator[None]:
    register_resolvers()
    register_resolvers()
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        yield


def small(variant: str, output: Path) -> DictConfig:
    return compose("train", overrides=["experiment=ablation", f"variant={variant}", f"output={output}"])


def _is(module: InpaintingModule, variant: str) -> bool:
    """Tell from the built objects alone whether they are those of a variant."""
    generator, loss, critics = module.generator, module.loss, set(module.critics)
    refinement = getattr(generator, "refinement_network", None)
    attention = getattr(refinement, "attention", None)
    return {
        "baseline": refinement is not None and attention is None,
        "coarse_only": isinstance(generator, CoarseGenerator) and not critics,
        "no_propagation": attention is not None and not attention.propagate,
        "no_discount": getattr(loss.reconstruction, "gamma", None) == 1,
        "paper_discount": isinstance(loss.reconstruction, HoleReconstruction),
        "global_critic_only": critics == {"global"},
        "l1": attention is not None and not critics,
        "hinge": isinstance(loss.adversary, Hinge) and "patch" not in critics,
        "patch_critic": critics == {"patch"},
        "lsgan": isinstance(loss.adversary, LeastSquares),
        "dcgan": isinstance(loss.adversary, NonSaturating),
    }[variant]


TOLD = ["baseline", "coarse_only", "no_propagation", "no_discount", "paper_discount", "global_critic_only", "l1"]
TOLD += ["hinge", "lsgan", "dcgan", "patch_critic"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.usefixtures("_hydra")
def test_a_variant_of_the_small_setting_differs_in_what_it_says_and_in_nothing_else(
    variant: str, tmp_path: Path
) -> None:
    config = small(variant, tmp_path)
    check_configuration(config, READS)
    module = build_module(config)
    assert {other for other in TOLD if _is(module, other)} == {variant} & set(TOLD)
    assert module.generator.coarse_network.encoder.stem.out_channels == 8  # every variant has the experiment's width
    mask, _ = build(config.mask)(4, 64, 64, generator=torch.Generator().manual_seed(0))
    assert 0 < mask.mean() < 0.3


def test_no_variant_is_left_out_of_the_sweep() -> None:
    assert set(VARIANTS) == {*TOLD, "full", "free_form", "mixed_masks"}
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        config = compose("train", overrides=["sweep=ablation"], return_hydra_config=True)
    assert set(config.hydra.sweeper.params.variant.split(",")) == set(VARIANTS)


@pytest.mark.parametrize("sweep", SWEEPS)
@pytest.mark.usefixtures("_hydra")
def test_a_sweep_starts_a_multirun_over_options_that_exist(sweep: str) -> None:
    config = compose("train", overrides=[f"sweep={sweep}"], return_hydra_config=True)
    assert config.hydra.mode.name == "MULTIRUN"
    parameters = dict(config.hydra.sweeper.params)
    assert all(seed.isdigit() for seed in parameters.pop("seed").split(","))
    for group, options in parameters.items():
        for option in options.split(","):
            assert (CONF / group / f"{option}.yaml").is_file(), f"{group}={option}"


@pytest.mark.usefixtures("_hydra")
@pytest.mark.parametrize(("launcher", "plugin"), [("two_jobs", "joblib"), ("slurm", "submitit")])
def test_a_launcher_composes_into_what_its_plugin_takes(launcher: str, plugin: str) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{plugin}_launcher")
    config = compose("train", overrides=[f"hydra/launcher={launcher}"], return_hydra_config=True).hydra.launcher
    taken = get_class(config["_target_"])
    settings = OmegaConf.to_container(config, resolve=False)
    built = taken(**{name: value for name, value in settings.items() if name != "_target_"})
    assert type(built).__name__ == {"joblib": "JoblibLauncher", "submitit": "SlurmLauncher"}[plugin]
    assert config.n_jobs == 2 if plugin == "joblib" else config.gpus_per_node == 1


def multirun(*overrides: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"OMP_NUM_THREADS": "1", "HOME": str(folder)}
    command = [sys.executable, str(ROOT / "train.py"), "-m", "hydra.sweep.dir=sweeps/one", *overrides, *SMALL]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_two_runs_of_an_ablation_work_side_by_side_share_a_group_and_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    few = ["sweep=ablation", "variant=baseline,global_critic_only", "seed=0", "hydra/launcher=two_jobs"]
    result = multirun(*few, "logger=[csv,wandb]", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    folders = [tmp_path / "sweeps" / "one" / str(number) for number in range(2)]
    begun = [(folder / ".hydra" / "config.yaml").stat().st_mtime for folder in folders]
    ended = [(folder / "checkpoints" / "last.ckpt").stat().st_mtime for folder in folders]
    assert max(begun) < min(ended)
    runs = [read_offline_run(next((folder / "wandb").glob("offline-run-*"))) for folder in folders]
    assert {found.run.run_group for found in runs} == {"sweeps/one"}
    assert len({found.run.run_id for found in runs}) == 2
    for found, variant in zip(runs, ("baseline", "global_critic_only"), strict=True):
        assert found.run.display_name.startswith(f"{variant},")
        assert ("train/critic/local_critic" in found.keys) == (variant == "baseline")
    monkeypatch.chdir(tmp_path)
    small = ["dataset.image_size=32", "eval_mask.box=[16,16]", "dataset.validation.repeat=1", "pictures=1"]
    assert main(["evaluate", "method=none", "runs=sweeps/one", *small, "output=compared", "accelerator=cpu"]) == 0
    with (tmp_path / "compared" / "settings.csv").open(newline="") as file:
        rows = [(row["setting"], row["seeds"], row["updates"]) for row in csv.DictReader(file)]
    assert rows == [("baseline", "1", "3"), ("global_critic_only", "1", "3")]
    figure = draw_curves(find_runs(tmp_path / "sweeps"))
    assert {ax.get_title() for ax in figure.axes} == set(PANELS.values())


def test_a_run_that_fails_beside_another_fails_the_multirun(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    result = multirun("hydra/launcher=two_jobs", "seed=0,-1", folder=tmp_path)
    assert result.returncode == 1
    assert (tmp_path / "sweeps" / "one" / "0" / "checkpoints" / "last.ckpt").is_file()


def test_the_sweep_that_wandb_leads_names_what_training_takes_and_logs() -> None:
    sweep = yaml.safe_load((ROOT / "examples" / "wandb_sweep.yaml").read_text(encoding="utf-8"))
    chosen = [f"{key}={one.get('values', [one.get('min')])[0]}" for key, one in sweep["parameters"].items()]
    fixed = [word for word in sweep["command"] if "=" in word]
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        config = compose("train", overrides=[*fixed, *chosen, "output=out"])
    assert config.logger.wandb.offline is False
    assert sweep["metric"]["name"] == config.callbacks.checkpoints.monitor
    assert (ROOT / sweep["program"]).is_file()
