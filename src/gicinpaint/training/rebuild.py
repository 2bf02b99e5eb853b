"""A module as plain data in its checkpoint, and back."""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from lightning import LightningModule
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from gicinpaint.compat import continue_counting
from gicinpaint.config.aliases import modernize
from gicinpaint.weights.pretrained import read_plain

_OWN = tuple(f"gicinpaint.{room}" for room in ("attention", "losses", "metrics", "models", "training.module"))
_CALL_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_"}


class _UnknownError(Exception):
    """A part whose constructor's arguments cannot be read off it."""


def describe_parts(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a constructor's variables but self as plain data for Hydra; what cannot be described is left out.

    A part of this package is described by its attributes, which have the names of its constructor's arguments.
    """
    described: dict[str, Any] = {}
    for name, part in parts.items():
        with suppress(_UnknownError):
            described |= {} if name in ("self", "__class__") else {name: _describe(part)}
    return described


class StoredModule(LightningModule):
    """A module whose checkpoints say how it was built and how far its training is; see `InpaintingModule`."""

    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, Any] = {}
        self.run_settings: dict[str, Any] = {}
        self.batches_seen = 0
        self.generator_updates = 0
        self.last_logged: dict[str, Tensor] = {}  # of a network that rests, too: rows of the loggers repeat it
        self._resumed = False
        self._steps_before = 0  # the trainer's, before a resume
        self._counts_epochs = False  # whether the trainer does

    def setup(self, stage: str) -> None:
        """Note whether the trainer counts epochs."""
        self._counts_epochs = self.trainer.max_epochs != -1
        # Lightning warns because the data module leaves this hook to the module
        warnings.filterwarnings("ignore", message="You have overridden `on_before_batch_transfer`")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the counters and the plain data from which this module was built."""
        checkpoint["counters"] = {"batches_seen": self.batches_seen, "generator_updates": self.generator_updates}
        checkpoint |= {"config": self.config, "run_settings": self.run_settings, "last_logged": dict(self.last_logged)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue counting where the checkpoint stopped."""
        self.batches_seen = checkpoint["counters"]["batches_seen"]
        self.generator_updates = checkpoint["counters"]["generator_updates"]
        self._steps_before = self.generator_updates
        self.last_logged, self._resumed = checkpoint.get("last_logged", {}), True
        checkpoint.get("callbacks", {}).pop("Timer", None)  # trainer.max_time is the time of each start
        if not self._counts_epochs:
            checkpoint.pop("loops", None)  # the trainer's bookkeeping repeats steps at an epoch's edge: it starts anew

    def on_train_start(self) -> None:
        """Let the trainer count validations, log lines and steps on from where a resumed run stopped."""
        continue_counting(self.trainer, self.batches_seen, self._steps_before)

    def log_and_keep(self, values: dict[str, Tensor]) -> None:
        """Log values that the rows of the loggers repeat until there are new ones."""
        self.log_dict(values)
        self.last_logged |= values

    def log_again(self) -> None:
        """After a resume, log what the last batches before it logged: a network that rests has no new values."""
        if self._resumed:
            self.log_dict(self.last_logged)
        self._resumed = False

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, map_location: Any = None, *, strict: bool = True, **parts: Any
    ) -> Self:
        """Return the module that a trainer saved, with its weights.

        Args:
            checkpoint_path: A checkpoint; it is opened as plain data, and its settings can name classes of this
                package's networks and losses, and of torch.optim, only.
            map_location: Device of the module. Default: the CPU.
            strict: Whether all weights must fit.
            parts: Arguments of the class that replace what the settings say; needed for parts of another package.

        Raises:
            ValueError: If the file is damaged, carries code, is no checkpoint of such a module, names a class that is
                not allowed, or does not say how a part was built.
        """
        path = Path(checkpoint_path)
        checkpoint = read_plain(path)
        config = checkpoint.get("config") if isinstance(checkpoint, dict) else None
        if not isinstance(config, dict) or not {"state_dict", "counters"} <= checkpoint.keys():
            raise ValueError(f"{path} must be a checkpoint of an {cls.__name__}, with state_dict, counters and config")
        settings = {name: node for name, node in modernize(config).items() if name not in {*_CALL_KEYS, *parts}}
        needed = [name for name in ("generator", "critics", "loss") if name not in settings and name not in parts]
        if needed:
            arguments = ", ".join(f"{name}=..." for name in needed)
            raise ValueError(
                f"{path} does not say how {' and '.join(needed)} came about; pass what was trained: "
                f"load_from_checkpoint(path, {arguments})"
            )
        _check_targets(settings, path)
        try:
            module = cls(**instantiate(settings, _convert_="all"), **parts)
        except (InstantiationException, OmegaConfBaseException, TypeError) as error:
            raise ValueError(f"{path}: its settings describe no {cls.__name__}: {error}; train it again") from error
        module.load_state_dict(checkpoint["state_dict"], strict=strict)
        for name, count in checkpoint["counters"].items():
            setattr(module, name, count)
        return module.to(map_location or "cpu")


def _describe(part: Any) -> Any:
    if part is None or isinstance(part, bool | int | float | str):
        return part
    if isinstance(part, partial) and isinstance(part.func, type) and not part.args:
        return {
            "_target_": f"{part.func.__module__}.{part.func.__qualname__}",
            "_partial_": True,
            **_describe(part.keywords),
        }
    if isinstance(part, Mapping):
        return {str(name): _describe(value) for name, value in part.items()}
    if type(part) in (list, tuple):
        return [_describe(value) for value in part]
    if not isinstance(part, type) and type(part).__module__.startswith(_OWN):
        arguments = getattr(part, "arguments", None) or {
            name: getattr(part, name, _UnknownError) for name in inspect.signature(type(part)).parameters
        }
        return {"_target_": f"{type(part).__module__}.{type(part).__qualname__}", **_describe(arguments)}
    raise _UnknownError


def _check_targets(node: Any, path: Path) -> None:
    if isinstance(node, str) and "${" in node:
        raise ValueError(f"{path}: its settings hold an interpolation, {node}, which was not followed")
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if target is not None and not _allowed(str(target)):
            raise ValueError(
                f"{path}: its settings name {target}, which is no part of this package and was not run; build that "
                "part yourself and pass it: load_from_checkpoint(path, generator=...)"
            )
        for key, value in node.items():
            if key == "_args_":
                raise ValueError(f"{path}: its settings call with arguments without a name; train it again")
            _check_targets(value, path)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for value in node:
            _check_targets(value, path)


def _allowed(target: str) -> bool:
    if not target.startswith((*_OWN, "torch.optim.")):
        return False
    try:
        found = get_object(target)
    except Exception:  # whatever a missing name raises
        return False
    home = getattr(found, "__module__", "")
    of_metrics = home.startswith("gicinpaint.metrics")  # whose sets are made by functions
    return home.startswith((*_OWN, "torch.optim.")) and (isinstance(found, type) or of_metrics)
