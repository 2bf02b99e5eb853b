"""Every option of every group composes into its job and can be built; options are found, not listed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from gicinpaint.config.validation import JobError, build, check_configuration
from gicinpaint.data import DatasetError
from gicinpaint.training.precision import settle_precision
from gicinpaint.training.train import READS, build_each, build_module, build_trainer, choose_strategy
from holes import save_mask

CONF = Path(__file__).parents[2] / "conf"
GROUPS = ("attention", "callbacks", "dataset", "experiment", "logger", "loss", "mask", "metric", "model", "optimizer")
OPTIONS = sorted(
    (path.parent.name, path.stem)
    for path in CONF.glob("*/*.yaml")
    if path.parent.name not in ("augment", "hydra", "sweep", "benchmark", "eval_mask", "method")
)
ONE_CPU = ("trainer.accelerator=cpu", "trainer.devices=1", "trainer.num_nodes=1")  # what any machine has


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        yield


def composed(*overrides: str, output: Path) -> DictConfig:
    small = ["model.generator.width=4"]
    return compose("train", overrides=[*overrides, *small, f"output={output}", f"data_dir={output / 'absent'}"])


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_number_is_one_for_any_reader_of_yaml(path: Path) -> None:
    """PyYAML takes 1e-4, without a point, for a text; Hydra's loader does not."""
    numbers = [value for value in texts(yaml.safe_load(path.read_text(encoding="utf-8"))) if is_number(value)]
    assert numbers == []


def texts(node: object) -> Iterator[str]:
    if isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from texts(value)
    elif isinstance(node, str):
        yield node


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_options_are_found() -> None:
    assert {group for group, _ in OPTIONS} >= set(GROUPS)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{group}={option}" for group, option in OPTIONS])
def test_option_composes_and_builds(group: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    needed = []
    if option == "triton":
        pytest.importorskip("triton")
    if (group, option) == ("mask", "folder"):  # the one option that cannot know its files
        save_mask(tmp_path / "mask.png")
        needed = [f"mask.path={tmp_path}"]
    config = composed(f"{group}={option}", *needed, output=tmp_path)
    settle_precision(config)
    check_configuration(config, READS)
    if group == "dataset" and option != "sample":
        with pytest.raises((JobError, DatasetError), match="absent"):
            build(config.dataset)
        return
    built = {
        "dataset": lambda: build(config.dataset),
        "mask": lambda: build(config.mask)(2, 256, 256, generator=torch.Generator().manual_seed(0)),
        "callbacks": lambda: build_each(config.callbacks),
        "logger": lambda: build_each(config.logger),
        "trainer": lambda: build_trainer(composed(f"trainer={option}", *ONE_CPU, output=tmp_path)),
    }.get(group, lambda: build_module(config))()
    assert built is not None


def test_models_differ_as_they_say(tmp_path: Path) -> None:
    models = {name: build_module(composed(f"model={name}", output=tmp_path)) for name in ("coarse_only", "baseline")}
    assert not hasattr(models["coarse_only"].generator, "refinement_network")
    assert not models["coarse_only"].critics
    assert models["baseline"].generator.refinement_network.attention is None
    without = build_module(composed("variant=baseline", output=tmp_path))
    assert without.generator.refinement_network.attention is None


def test_several_devices_choose_ddp_that_leaves_the_generator_unused() -> None:
    ddp = "ddp_find_unused_parameters_true"  # what a critic update needs; plain ddp stops
    assert choose_strategy("auto", 4, 1) == ddp
    assert choose_strategy("auto", "0,1", 1) == ddp
    assert choose_strategy("auto", 1, 2) == ddp
    assert choose_strategy("auto", 1, 1) == "auto"
    assert choose_strategy("fsdp", 4, 1) == "fsdp"


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named_with_the_setting_to_change(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"trainer.accelerator: torch finds no GPU; use trainer.accelerator=cpu"):
        build_trainer(composed("trainer.accelerator=gpu", output=tmp_path))
