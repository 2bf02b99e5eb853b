"""Text files that are whole or absent, whatever interrupts the writing."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a text file beside its place and move it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
