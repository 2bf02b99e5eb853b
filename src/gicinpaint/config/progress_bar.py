"""Progress bars that are plain lines where the output is no terminal."""

import sys
from collections.abc import Callable
from typing import Any, TextIO

from tqdm import tqdm

_SECONDS = 20  # between two plain lines


class Bar(tqdm):
    """A progress bar as `tqdm.tqdm`, none if nothing is left; in a file or a pipe, a line every 20 seconds."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        settings["file"] = file = settings.get("file") or sys.stderr
        if not file.isatty():
            settings["mininterval"] = _SECONDS
        settings["disable"] = settings.get("disable") or settings.get("total") == settings.get("initial", 0)
        super().__init__(*arguments, **{"dynamic_ncols": True, **settings})

    @staticmethod
    def status_printer(file: TextIO) -> Callable[[str], None]:
        """Return what prints a state."""
        if file.isatty():
            return tqdm.status_printer(file)

        def show(text: str) -> None:
            if text.strip():
                file.write(f"{text.strip()}\n")
                file.flush()

        return show
