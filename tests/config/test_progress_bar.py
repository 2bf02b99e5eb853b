from __future__ import annotations

import io

import pytest

from gicinpaint.config.progress_bar import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("leave", [True, False])
def test_a_file_gets_few_whole_lines_and_a_terminal_a_bar(leave: bool) -> None:
    file, terminal = io.StringIO(), Terminal()
    for target in (file, terminal):
        with Bar(total=500, desc="filling", file=target, leave=leave) as bar:
            for _ in range(500):
                bar.update()
    lines = [line for line in file.getvalue().replace("\r", "").splitlines() if line]
    assert lines[0].startswith("filling:   0%")
    assert len(lines) <= 3  # one each 20 seconds, however many updates
    assert all("0/500" in line for line in lines)  # none is half a line or over another
    assert "500/500" in (lines[-1] if leave else "500/500")
    assert terminal.getvalue().count("\r") >= 2


def test_nothing_to_do_shows_no_bar() -> None:
    for file in (io.StringIO(), Terminal()):
        with Bar(total=0, desc="filling", file=file), Bar(total=400, initial=400, desc="pack train", file=file):
            pass
        assert file.getvalue() == ""
