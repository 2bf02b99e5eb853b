"""What happens around a multirun: a call at its end, and the datasets that it can train on."""

import sys
import traceback
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from gicinpaint.config.validation import JobError, build


class AfterMultirun(Callback):
    """Call something with the multirun's folder when all runs have ended.

    Args:
        call: Plain data with the `_target_` that is called; nothing of it is imported before.
    """

    def __init__(self, call: DictConfig) -> None:
        self.call = call

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Make the call; Hydra itself would turn an error into a warning.

        Raises:
            SystemExit: With 1, if the call fails; why is printed.
        """
        try:
            build(self.call, _partial_=True)(config.hydra.sweep.dir)
        except JobError as error:
            print(f"gicinpaint: after the multirun: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        except Exception:
            traceback.print_exc()
            raise SystemExit(1) from None


def datasets_there(*names: str, _root_: DictConfig) -> str:
    """Return the datasets whose folder lies in `data_dir`, as a list of a multirun; the sample set where none does.

    Args:
        names: Options of the group `dataset` that have a folder of that name.
    """
    return ",".join(name for name in names if (Path(_root_.data_dir) / name).is_dir()) or "sample"
