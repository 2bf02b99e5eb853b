"""The README's examples run."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")

SOURCES = "https://github.com/gicinpaint/gicinpaint/blob/main/"
RAW = "https://raw.githubusercontent.com/gicinpaint/gicinpaint/main/"


FILLING, PARTS, RECIPE = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("example", [FILLING, PARTS])
def test_python_examples_run(example: str) -> None:
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)
    if example == PARTS:
        assert names["completion"].refined.shape == (1, 3, 64, 64)
        assert names["completion"].offset.shape == (1, 2, 8, 8)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")
def test_the_recipe_without_hydra_trains_tests_and_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len([line for line in RECIPE.splitlines() if line]) <= 15
    noise = np.random.default_rng(0)
    for name in ("train", "test"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            image = noise.integers(0, 256, (70, 80, 3), np.uint8)
            Image.fromarray(image).save(tmp_path / "photos" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(RECIPE.replace("Trainer(", "Trainer(accelerator='cpu', ", 1), "README.md", "exec"), names)
    assert "test/completed/hole/psnr" in (tmp_path / "runs/lightning_logs/version_0/metrics.csv").read_text()
    assert names["again"].batches_seen == names["module"].batches_seen == 1
    weights = names["module"].generator.state_dict()
    for loaded in (names["again"].generator, names["inpainter"].generator):
        assert all(torch.equal(value.cpu(), weights[name]) for name, value in loaded.state_dict().items())


def test_commands_options_and_files_that_it_names_exist() -> None:
    root = Path(__file__).parents[1]
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"\bmake (test[\w-]*|train|lint)", README)
    assert {"train", "test"} <= set(targets)
    for target in targets:
        assert f"\n{target}:" in makefile
    groups = "|".join(
        sorted({str(path.parent.relative_to(root / "conf")) for path in (root / "conf").rglob("*/*.yaml")})
    )
    chosen = re.findall(rf"(?<![.\w/])({groups})=([a-z]\w*(?:,\w+)*)", README)
    assert {group for group, _ in chosen} >= {"dataset", "experiment", "hydra/launcher", "logger", "model", "sweep"}
    for group, options in chosen:
        for option in options.split(","):
            shipped = group == "model" and (root / "weights" / option / "README.md").is_file()  # of inpaint and demo
            assert shipped or (root / "conf" / group / f"{option}.yaml").is_file(), f"{group}={option}"


def test_pictures_and_links_are_absolute_so_that_they_work_on_pypi_too() -> None:
    root = Path(__file__).parents[1]
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", README)
    assert len(links) > 15
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in README.splitlines() if line.startswith("#")}
    for picture, link in links:
        if link.startswith("#"):
            assert link[1:] in headings, link
            continue
        base = (RAW if picture else SOURCES) if "gicinpaint/gicinpaint/" in link else "https://"
        assert link.startswith(base), f"{link}: README needs addresses that begin with {base}"
        if base != "https://":
            assert (root / link.removeprefix(base)).exists(), link
