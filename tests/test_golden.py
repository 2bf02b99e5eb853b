"""The copies of the authors' numbers, and that a test reads each of them."""

import re
from fnmatch import fnmatch
from pathlib import Path

import golden

READ = {
    pattern
    for path in Path(__file__).parent.glob("test_*.py")
    if path.name != Path(__file__).name
    for pattern in re.findall(r'golden\.(?:paths|load)\("([\w.*]+)"\)', path.read_text(encoding="utf-8"))
}


def test_every_golden_file_is_read_by_a_test() -> None:
    names = [path.name for path in golden.paths("*.npz")]
    assert len(names) >= 32
    unread = [name for name in names if not any(fnmatch(name, pattern) for pattern in READ)]
    assert not unread
    assert not [pattern for pattern in READ if not any(fnmatch(name, pattern) for name in names)]


def test_the_copies_are_those_of_the_full_set_and_small() -> None:
    copies = list(golden.DATA.iterdir())
    assert sum(path.stat().st_size for path in copies) <= 12_000_000
    full = {path.name: path for path in golden.SHARED.glob("*.npz")}  # none in a bare clone
    assert not [path.name for path in copies if path.name in full and path.read_bytes() != full[path.name].read_bytes()]
