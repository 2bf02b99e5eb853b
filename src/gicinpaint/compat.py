"""Names that moved, and private names of other libraries: each with the version it was tested with."""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gicinpaint.config.aliases import TARGETS, new_target

if TYPE_CHECKING:
    from lightning import Trainer

_PEER_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "recvBytes", "sendBytes")


class _MovedModule(ModuleType):
    """A module that lives elsewhere now; it says so on first use."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module, _, present = new_target(f"{self.__name__}.{name}").rpartition(".")
        found = getattr(import_module(module), present)
        warnings.warn(f"{self.__name__} moved to {module}; import from there", FutureWarning, stacklevel=2)
        return found


def register_moved_modules() -> None:
    """Let imports from the places of earlier versions go on working."""
    for old, new in TARGETS.items():
        if old.rpartition(".")[2].islower():  # the others are classes
            sys.modules.setdefault(old, _MovedModule(old, f"Moved to {new}."))


def hydra_argument_parser() -> argparse.ArgumentParser:
    """Return the parser with which hydra.main reads the command line; tested with hydra-core 1.3.7."""
    from hydra._internal.utils import get_args_parser

    return get_args_parser()


def failing_key(error: Exception) -> str:
    """Return which key hydra.utils.instantiate failed at, "" for the outermost node; tested with hydra-core 1.3.7."""
    found = re.search(r"^full_key: (\S+)$", str(error), re.MULTILINE)
    return found[1] if found else ""


def continue_counting(trainer: Trainer, batches: int, steps: int) -> None:
    """Let a trainer that is about to train go on counting after a resume; tested with lightning 2.6.6.

    Args:
        trainer: The trainer.
        batches: Training batches so far, by which it validates and logs.
        steps: Generator updates so far, its `global_step`.
    """
    loop = trainer.fit_loop.epoch_loop
    loop.batch_progress.total.ready = loop.batch_progress.total.completed = batches
    loop._batches_that_stepped = batches
    progress = loop.manual_optimization.optim_step_progress.total
    progress.completed = max(progress.completed, steps)


def run_validation(trainer: Trainer) -> None:
    """Validate once from inside a training that is about to go on; tested with lightning 2.6.6."""
    trainer.validating = True
    trainer.fit_loop.epoch_loop.val_loop.run()
    trainer.training = True


def lack_of_shared_memory(error: Exception) -> bool:
    """Tell whether /dev/shm was too small for a data loader's processes; torch 2.13 has no class of error for it."""
    return any(sign in str(error) for sign in ("Bus error", "shared memory", "</torch_", "shm_open"))


def lost_worker(error: Exception) -> bool:
    """Tell whether a data loader lost one of its processes; the error has no class of its own in torch 2.13."""
    return "DataLoader worker" in str(error)


def lost_peer(error: Exception) -> bool:
    """Tell whether another process of a distributed run is gone; gloo's error has no class of its own in torch 2.13."""
    return any(sign in str(error) for sign in _PEER_LOST)
