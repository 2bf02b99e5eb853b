"""The README's examples run."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")

SOURCES = "https://github.com/gicinpaint/gicinpaint/blob/main/"
RAW = "https://raw.githubusercontent.com/gicinpaint/gicinpaint/main/"


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_python_examples_run(example: str) -> None:
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    if "completion" not in names:  # the example that fills
        return
    completion = names["completion"]
    assert completion.refined.shape == (1, 3, 64, 64)  # type: ignore[attr-defined]
    assert completion.offset.shape == (1, 2, 8, 8)  # type: ignore[attr-defined]


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
    for picture, link in links:
        base = (RAW if picture else SOURCES) if "gicinpaint/gicinpaint/" in link else "https://"
        assert link.startswith(base), f"{link}: README needs addresses that begin with {base}"
        if base != "https://":
            assert (root / link.removeprefix(base)).exists(), link
