"""The README's examples run."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_python_examples_run(example: str) -> None:
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    completion = names["completion"]
    assert completion.refined.shape == (1, 3, 64, 64)  # type: ignore[attr-defined]
    assert completion.offset.shape == (1, 2, 8, 8)  # type: ignore[attr-defined]


def test_files_and_commands_that_it_names_exist() -> None:
    root = Path(__file__).parents[1]
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert f"\n{target}:" in makefile
    for group, option in re.findall(r"(?<![.\w])(dataset|model|experiment|attention)=([a-z]\w*)", README):
        assert (root / "conf" / group / f"{option}.yaml").is_file(), f"{group}={option}"
