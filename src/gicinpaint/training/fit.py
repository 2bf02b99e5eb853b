"""Training until it ends, and what its end means: done, interrupted, or a failure that the user can mend."""

import re
import signal
import traceback
from pathlib import Path

from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from lightning.pytorch.utilities.exceptions import SIGTERMException

from gicinpaint.config.validation import JobError
from gicinpaint.data import DatasetError, InpaintingDataModule
from gicinpaint.training.callbacks.signals import InterruptionError
from gicinpaint.training.module import InpaintingModule

_PEER_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "recvBytes", "sendBytes")
_WORKER_LOST = ("DataLoader worker",)


def fit(trainer: Trainer, module: InpaintingModule, data: InpaintingDataModule, checkpoint: Path | None = None) -> None:
    """Train and validate; say in one line what the user can mend.

    Args:
        trainer: Trains.
        module: What is trained.
        data: What it is trained on.
        checkpoint: Where to continue from.

    Raises:
        JobError: If the run cannot go on for a reason outside the program.
        SystemExit: With 128 plus the signal's number, if a signal asked the run to end; its state is saved.
    """
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        if not any(
            name.startswith("validation/") for name in trainer.callback_metrics
        ):  # it had reached its end before
            trainer.validate(module, datamodule=data, verbose=False)
    except InterruptionError as stop:
        if trainer.is_global_zero:
            print(f"{stop} after {module.generator_updates:,} updates; continue with resume=auto", flush=True)
        raise SystemExit(_exit_code(trainer, stop.exit_code)) from None
    except SIGTERMException:  # before the first batch or after the last
        raise SystemExit(_exit_code(trainer, 128 + signal.SIGTERM)) from None
    except (ValueError, TypeError, MisconfigurationException) as error:
        if isinstance(error, DatasetError | MisconfigurationException) or raised_by_us(error):
            raise JobError(_last_words(error)) from error
        raise
    except RuntimeError as error:
        if any(sign in str(error) for sign in _WORKER_LOST):
            reason = " ".join(str(error).split())
            raise JobError(f"a process that reads images was lost ({reason}); continue with resume=auto") from error
        if trainer.world_size > 1 and any(sign in str(error) for sign in _PEER_LOST):
            raise JobError(
                f"process {trainer.global_rank} lost another process of this run, see its message; "
                "continue with resume=auto"
            ) from error
        raise


def raised_by_us(error: Exception) -> bool:
    """Tell whether this package raised an error: its checks speak to the user, any other error is a bug to trace."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    files += re.findall(r'File "(.+?)", line', str(error))  # a data worker's traceback travels in the message
    return Path(files[-1]).is_relative_to(Path(__file__).parents[1])


def _exit_code(trainer: Trainer, code: int) -> int:
    """Return 0 in a process that this run started itself: its parent, which reports the code, kills all on another."""
    started_here = isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher) and (
        not trainer.strategy.launcher.cluster_environment.creates_processes_externally
    )
    return 0 if started_here and trainer.local_rank > 0 else code


def _last_words(error: Exception) -> str:
    """Return an error's message, without the traceback that a data worker puts before it."""
    before, _, _ = str(error).partition("Original Traceback")
    return str(error) if before == str(error) else re.split(r"\n[\w.]+: ", str(error))[-1]
