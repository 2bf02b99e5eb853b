"""Names that moved, and private names of other libraries: each with the version it was tested with."""

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


def register_moved_modules() -> None:
    """Let `import gicinpaint.official` go on working."""
    sys.modules.setdefault("gicinpaint.official", _MovedModule("gicinpaint.official", "gicinpaint.weights"))
