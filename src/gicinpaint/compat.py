"""Names that moved, and private names of other libraries: each with the version it was tested with."""

import argparse
import re
import sys
import warnings
from importlib import import_module
from types import ModuleType
from typing import Any


class _MovedModule(ModuleType):
    """A module that lives elsewhere now; it says so on first use."""

    def __init__(self, old: str, new: str) -> None:
        super().__init__(old, f"Moved to {new}.")
        self._new = new

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        warnings.warn(f"{self.__name__} moved to {self._new}; import from there", FutureWarning, stacklevel=2)
        return getattr(import_module(self._new), name)


_MOVED = {
    "gicinpaint.evaluation.masks": "gicinpaint.evaluation",
    "gicinpaint.filling.hole": "gicinpaint.inference.canvas",
    "gicinpaint.inpainter": "gicinpaint.inference.inpainter",
    "gicinpaint.official": "gicinpaint.weights",
    "gicinpaint.record": "gicinpaint.training.run_record",
}


def register_moved_modules() -> None:
    """Let imports from the places of earlier versions go on working."""
    for old, new in _MOVED.items():
        sys.modules.setdefault(old, _MovedModule(old, new))


def hydra_argument_parser() -> argparse.ArgumentParser:
    """Return the parser with which hydra.main reads the command line; tested with hydra-core 1.3.7."""
    from hydra._internal.utils import get_args_parser

    return get_args_parser()


def failing_key(error: Exception) -> str:
    """Return which key hydra.utils.instantiate failed at, empty for the outermost node; tested with hydra-core 1.3.7.

    The error has no attribute for it, so its text is searched.
    """
    found = re.search(r"^full_key: (\S+)$", str(error), re.MULTILINE)
    return found[1] if found else ""
