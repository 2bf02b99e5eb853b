"""The documentation: every public name has its place in the reference, examples run, commands exist."""

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
from hydra import compose, initialize_config_module

import gicinpaint
from gicinpaint.config.validation import check_configuration
from gicinpaint.training.train import READS

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
EXAMPLES = [
    pytest.param(example, id=f"{path.stem}-{number}")
    for path in PAGES
    if path.stem != "inpainting"  # has a test of its own
    for number, example in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL))
]


def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("documentation_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_on_the_reference_page() -> None:
    page = hooks().reference()
    for name in dir(gicinpaint):
        found = getattr(gicinpaint, name)
        if isinstance(found, ModuleType):
            assert f"\n## gicinpaint.{name}\n" in page
            for inner in getattr(found, "__all__", ()):
                assert re.search(rf"^(::: gicinpaint\.[\w.]*\.|### ){inner}\b", page, re.MULTILINE), f"{name}.{inner}"
        elif name == "__version__":
            assert "\n### `__version__`\n" in page
        else:
            assert f"::: {found.__module__}.{name}\n" in page


def test_a_notebooks_page_has_its_text_its_code_and_its_stored_outputs() -> None:
    outputs = [
        {"output_type": "stream", "text": ["two\n", "lines\n"]},
        {"output_type": "execute_result", "data": {"text/plain": "'words'"}},
        {"output_type": "display_data", "data": {"image/png": "AAEC\n", "text/plain": "<Figure>"}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "\n", "Text."]},
        {"cell_type": "code", "source": ["print(1)"], "outputs": outputs},
    ]
    text, pictures = hooks().notebook_page({"cells": cells}, "name")
    expected = (
        "# Title\n\nText.\n\n```python\nprint(1)\n```\n\n```text\ntwo\nlines\n```\n\n```text\n'words'\n```\n\n"
        "![what the code above shows](name_1.png)\n"
    )
    assert (text, pictures) == (expected, {"name_1.png": b"\x00\x01\x02"})


def test_every_notebook_has_its_place_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"notebooks/{path.stem.split('_', 1)[1]}.md\n" in navigation


@pytest.mark.parametrize("example", EXAMPLES)
def test_python_examples_run(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GICINPAINT_WEIGHTS", raising=False)
    exec(compile(example, "docs", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_groups_and_jobs_that_a_page_names_exist(page: Path) -> None:
    from gicinpaint.cli import COMMANDS, JOBS

    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([\w-]+)", text):
        assert f"\n{target}:" in makefile, target
    for job in re.findall(r"^gicinpaint (\w+)", text, re.MULTILINE):
        assert job in (*JOBS, *COMMANDS), job
    trainer = (ROOT / "conf" / "trainer" / "default.yaml").read_text(encoding="utf-8")
    for plus, key in re.findall(r"(\+?)\btrainer\.(\w+)=", text):
        assert (f"\n{key}:" in trainer) is not bool(plus), f"{plus}trainer.{key}"
    groups = "|".join(path.name for path in (ROOT / "conf").iterdir() if path.is_dir())
    for group, option in re.findall(rf"(?<![.\w/+])({groups})=([a-z]\w*)", text):
        shipped = (ROOT / "weights" / option / "README.md").is_file() or option in ("outputs", "mine")
        assert shipped or (ROOT / "conf" / group / f"{option}.yaml").is_file(), f"{group}={option}"


def commands(page: str) -> list[str]:
    """Return the training commands of a page, each in one line."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(r"^gicinpaint train (.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("command", [*commands("recipes.md"), *commands("gpu.md"), *commands("quickstart.md")])
def test_training_commands_compose_and_every_key_is_read(command: str) -> None:
    words = [word for word in shlex.split(command, comments=True) if word not in ("...", "...,")]
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        check_configuration(compose("train", overrides=[*words, "output=outputs"]), READS)


def test_the_table_of_what_is_held_back_has_the_pinned_versions() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
    text = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w-]+) \| (\d[\w.]*) \| (\d[\w.]*) \|", text, re.MULTILINE)
    assert len(rows) > 3
    for package, pinned, newest in rows:
        assert pins[package] == pinned, f"docs/versions.md: {package} is pinned at {pins[package]}"
        assert newest != pinned, f"docs/versions.md: {package} is held back no more; remove its row"
