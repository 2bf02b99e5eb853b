"""All evaluation masks and methods compose into the evaluate job; options are found, not listed."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from PIL import Image

from gicinpaint.config.validation import build, check_configuration
from gicinpaint.evaluation.evaluate import READS
from gicinpaint.evaluation.methods import try_method
from gicinpaint.metrics import evaluation_metrics

CONF = Path(__file__).parents[2] / "conf"
EVAL_MASKS, METHODS = (sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in ("eval_mask", "method"))


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        yield


@pytest.mark.parametrize("eval_mask", EVAL_MASKS)
def test_every_evaluation_set_is_the_same_masks_again(eval_mask: str, tmp_path: Path) -> None:
    needed = []
    if eval_mask == "files":  # the one that cannot know its files
        levels = np.zeros((256, 256), np.uint8)
        levels[30:60, 40:90] = 255
        Image.fromarray(levels).save(tmp_path / "mask.png")
        needed = [f"eval_mask.path={tmp_path}"]
    config = compose("evaluate", overrides=[f"eval_mask={eval_mask}", *needed, f"output={tmp_path}"])
    check_configuration(config, READS)
    masks = build(config.eval_mask)
    together, _ = masks([0, 1, 2], 256, 256)
    assert set(together.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(together, torch.cat([build(config.eval_mask)([i], 256, 256)[0] for i in range(3)]))
    assert masks.manifest(3)["count"] == 3


def test_evaluation_masks_follow_the_seed_of_the_job(tmp_path: Path) -> None:
    hashes = []
    for seed in (0, 1):
        config = compose("evaluate", overrides=["eval_mask=paper_random", f"seed={seed}", f"output={tmp_path}"])
        hashes.append(build(config.eval_mask).manifest(3)["sha256"])
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("methods", METHODS)
def test_every_method_completes_an_image(methods: str, tmp_path: Path) -> None:
    config = compose("evaluate", overrides=[f"method={methods}", f"output={tmp_path}"])
    check_configuration(config, READS)
    assert OmegaConf.is_dict(config.method)
    for name, node in config.method.items():
        try_method(str(name), build(node), torch.device("cpu"))
    if methods == "classical":
        assert list(config.method) == ["mean_colour", "telea", "navier_stokes", "membrane", "biharmonic", "patchmatch"]


def test_options_and_settings_that_the_page_names_exist() -> None:
    page = (CONF.parent / "docs" / "evaluation.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![.\w])(dataset|eval_mask|method)=([a-z]\w*)", page))
    assert {group for group, _ in named} == {"dataset", "method"}
    for group, option in named:
        assert (CONF / group / f"{option}.yaml").is_file(), f"{group}={option}"
    assert {match[1] for match in re.finditer(r"^\| `(\w+)` \|", page, re.MULTILINE)} >= set(EVAL_MASKS)
    columns = evaluation_metrics().keys()
    assert all(f"`{column}`" in page for column in columns)
