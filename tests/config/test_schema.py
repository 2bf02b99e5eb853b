"""The schemas take every shipped yaml and find what is mistyped; an independent validator reads them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from omegaconf import OmegaConf

from gicinpaint.cli import main
from gicinpaint.config.schema import schema_name, schemas

CONF = Path(__file__).parents[2] / "conf"
SHIPPED = sorted(str(path.relative_to(CONF)) for path in CONF.rglob("*.yaml") if path.parts[len(CONF.parts)] != "hydra")


@pytest.fixture(scope="module")
def made() -> dict[str, Draft202012Validator]:
    return {name: Draft202012Validator(schema) for name, schema in schemas().items()}


def read(path: str) -> Any:
    """Return what a file holds; OmegaConf reads numbers as editors do, with YAML 1.2: 1e-4."""
    return OmegaConf.to_container(OmegaConf.load(CONF / path), resolve=False)


def errors(made: dict[str, Draft202012Validator], path: str, content: Any) -> list[str]:
    return [error.message for error in made[schema_name(path)].iter_errors(content)]


def test_every_shipped_yaml_fits(made: dict[str, Draft202012Validator]) -> None:
    assert len(SHIPPED) > 80
    for validator in made.values():
        Draft202012Validator.check_schema(validator.schema)
    for path in SHIPPED:
        assert errors(made, path, read(path)) == [], path


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        ("optimizer/adam.yaml", "learning_rate", 1e-3),
        ("optimizer/adam.yaml", "lr", "fast"),
        ("optimizer/adam.yaml", "betas", [0.5]),
        ("trainer/cpu.yaml", "max_step", 3),
        ("mask/mostly_rectangles.yaml", "wieghts", [0.7, 0.3]),
        ("model/contextual.yaml", "generator.widht", 16),
        ("model/contextual.yaml", "critic_step", 5),
        ("model/gated.yaml", "generator._target_", "gicinpaint.models.gated.GatedGenerater"),
        ("model/tiny.yaml", "generator.widht", 8),
        ("loss/wgan_gp.yaml", "reconstruction.gama", 0.9),
        ("dataset/sample.yaml", "train.repeat", "often"),
        ("dataset/_base/module.yaml", "on_error", "ignore"),
        ("callbacks/default.yaml", "checkpoints.evry", 5),
        ("callbacks/default.yaml", "checkpoint", {"every": 5}),
        ("experiment/quickstart.yaml", "update", 3),
        ("experiment/quickstart.yaml", "updates", "many"),
        ("experiment/quickstart.yaml", "dataset.batch_sise", 8),
        ("experiment/quickstart.yaml", "callbacks.checkpoints.evry", 8),
        ("inpaint.yaml", "mask", "a.png"),
        ("benchmark/attention.yaml", "benchmark.chanels", 8),
    ],
)
def test_what_is_mistyped_is_found(made: dict[str, Draft202012Validator], path: str, key: str, value: object) -> None:
    content = read(path)
    node, *keys = content, *key.split(".")
    for word in keys[:-1]:
        node = node[word]
    node[keys[-1]] = value
    assert errors(made, path, content)


def test_classes_from_outside_and_present_classes_by_another_path_are_left_alone(
    made: dict[str, Draft202012Validator],
) -> None:
    mine = {"_target_": "my_package.MyMask", "anything": 1}
    assert errors(made, "mask/rectangle.yaml", mine) == []
    assert errors(made, "callbacks/default.yaml", {"mine": mine, "stop": None}) == []
    other = {"_target_": "gicinpaint.masks.rectangle.RectangleMask", "box": "${mask.box}"}
    assert errors(made, "mask/rectangle.yaml", other) == []


def test_the_command_writes_them_and_says_which_files_each_is_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["schema"]) == 0
    settings = json.loads(capsys.readouterr().out)["yaml.schemas"]
    assert sorted(path for served in settings.values() for path in served) == [f"conf/{path}" for path in SHIPPED]
    assert {path.name for path in tmp_path.glob("schema/*.json")} >= {Path(name).name for name in settings}
    written = json.loads((tmp_path / "schema" / "optimizer.json").read_text(encoding="utf-8"))
    described = written["$defs"]["RectangleMask"]["properties"]["box"]["description"]
    assert "a whole number or a list" in described  # its annotation
    assert "pixels" in described  # its docstring


def test_a_job_whose_extra_is_not_installed_keeps_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gicinpaint.demo.server", None)  # importing it fails
    demo = Draft202012Validator(schemas()["demo"])
    content = read("demo.yaml")
    assert list(demo.iter_errors(content)) == []
    assert list(demo.iter_errors({**content, "prot": 7860}))
