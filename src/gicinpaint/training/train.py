"""The train job: build every part, the cheapest mistakes first, train, and say what the end of a run means."""

import logging
import re
import signal
import subprocess
import traceback
import warnings
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer, seed_everything
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from gicinpaint.compat import lack_of_shared_memory, lost_peer, lost_worker
from gicinpaint.config.validation import ConfigurationError, JobError, build, check_configuration
from gicinpaint.data import DatasetError, InpaintingDataModule
from gicinpaint.training.callbacks import SaveByUpdates
from gicinpaint.training.callbacks.progress import best_value, opening, profile, report, time_over
from gicinpaint.training.callbacks.save_and_stop import InterruptionError
from gicinpaint.training.checkpoint import BEST
from gicinpaint.training.loggers import close_dashboards, continue_files, label_of_run, record_run
from gicinpaint.training.module import InpaintingModule
from gicinpaint.training.precision import hasten, settle_precision
from gicinpaint.training.resume import AUTO, changes, check_fit, find_checkpoint, run_settings
from gicinpaint.training.run_record import git_commit, given_overrides, recorded_output, versions, write_record
from gicinpaint.weights.fine_tuning import take_weights

READS = {
    "seed": int,
    "output": str,
    "data_dir": str,
    "updates": int,
    "threads": int | None,
    "resume": str | None,
    "resume_with_changes": bool,
    "initial_weights": str | list[str] | None,
    "channels_last": bool,
    "compile": bool,
}

_log = logging.getLogger(__name__)


def train(config: DictConfig) -> float | None:
    """Train what `conf/train.yaml` describes; return the best monitored value, for sweepers that search.

    Raises:
        ConfigurationError: If a value is missing, wrong or unused; nothing is built then.
        JobError: If a part cannot be built or the data cannot be used.
    """
    precision = settle_precision(config)
    check_configuration(config, READS)
    _quieten()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        seed_everything(config.seed, workers=True, verbose=False)
    except ValueError as error:
        raise JobError(f"seed: {error}") from error
    checkpoint = resume(config)
    first = getattr(rank_zero_only, "rank", 0) == 0
    if first and checkpoint is None and any(Path(config.output, "checkpoints").glob("*.ckpt")):
        raise JobError(f"{config.output} holds a run; resume=auto continues it, or choose another folder, output=...")
    with recorded_output(Path(config.output), label_of_run()) if first else nullcontext():
        return _train(config, checkpoint, precision)


def _train(config: DictConfig, checkpoint: Path | None, precision: str) -> float | None:
    data = build(config.dataset)  # first: absent data stops the job before any network is built
    module = build_module(config)
    module.run_settings = run_settings(config)
    state = None if checkpoint is None else check_fit(checkpoint, module, module.config)
    if checkpoint is not None and (changed := changes(checkpoint, module.run_settings)):
        if not config.resume_with_changes:
            raise JobError(
                f"{checkpoint}: the run to continue had other settings: {'; '.join(changed)}; use those, or add "
                "resume_with_changes=true: batches are then no longer those of one undisturbed run"
            )
        _log.warning("continued with changed settings: %s", "; ".join(changed))
    given = config.initial_weights
    taken = take_weights(module.generator, given) if given is not None and checkpoint is None else []
    compiling = hasten(module, channels_last=config.channels_last, compiled=config.compile)
    trainer = build_trainer(config)
    try:
        data.check_processes(trainer.world_size)  # before they start
    except ValueError as error:
        raise JobError(f"dataset: {error}") from error
    trainer.precision_plugin.convert_module(module)  # before a checkpoint is read: 64 bits do not pass through 32
    if checkpoint is not None and state is not None and trainer.is_global_zero:
        own = checkpoint.parents[1].resolve() == Path(config.output).resolve()
        continue_files(trainer.loggers, state["counters"]["generator_updates"], state.get("logged", {}) if own else {})
    _say(trainer, opening(config, module, data, trainer, checkpoint))
    for line in filter(None, (precision, compiling)):
        _say(trainer, line)
    if given is not None:
        aside = f"initial_weights={given} is left aside: a resumed run goes on with its own"
        _say(trainer, "\n".join(map(str, taken)) or aside)
    facts = {"git": git_commit(), "versions": versions()}
    if trainer.is_global_zero:
        sources = {"training": data.train.source, "validation": data.validation.source}
        more = {"processes": trainer.world_size, "seed": config.seed, "resumed": checkpoint and str(checkpoint)}
        more["initial_weights"] = [source._asdict() for source in taken]
        write_record(Path(config.output), config, given_overrides(), sources, **facts, **more)
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    record_run(trainer.loggers, module, resolved, facts, resumed=checkpoint is not None)
    try:
        fit(trainer, module, data, checkpoint)
        _say(trainer, report(trainer))
        if summary := profile(trainer):
            _say(trainer, summary)
        if ended := time_over(trainer, module, config.updates):
            _say(trainer, ended)
        return best_value(trainer)
    finally:
        best = [callback.folder / BEST for callback in trainer.callbacks if isinstance(callback, SaveByUpdates)]  # type: ignore[attr-defined]
        close_dashboards(trainer.loggers, best[0] if best else None)


def build_module(config: DictConfig) -> InpaintingModule:
    """Build networks, losses and optimizers; the checkpoint will carry the plain data they are built from."""
    module: InpaintingModule = build(config.model)
    module.config = OmegaConf.to_container(config.model, resolve=True)  # type: ignore[assignment]
    try:
        module.configure_optimizers()  # made again by the trainer; here the optimizers judge their settings
    except (ValueError, TypeError) as error:
        raise JobError(f"optimizer: {error}") from error
    return module


def build_trainer(config: DictConfig) -> Trainer:
    """Build the trainer with its callbacks and loggers."""
    gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if config.trainer.accelerator == "gpu" and not gpu:
        raise JobError("trainer.accelerator: torch finds no GPU; use trainer.accelerator=cpu, or a torch built for it")
    callbacks: list[Callback] = build_each(config.get("callbacks"))
    loggers: list[Logger] = build_each(config.get("logger"))
    strategy = choose_strategy(config.trainer.strategy, config.trainer.devices, config.trainer.num_nodes)
    shown = config.trainer.enable_progress_bar and any(isinstance(callback, ProgressBar) for callback in callbacks)
    if not shown:  # neither Lightning's own bar in place of ours, nor ours against the trainer's setting
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    run_time = {"callbacks": callbacks, "logger": loggers or False, "strategy": strategy, "enable_progress_bar": shown}
    trainer: Trainer = build(config.trainer, **run_time)
    return trainer


def build_each(nodes: Mapping[str, Any] | None) -> list[Any]:
    """Build every part of a group; one that is null is switched off."""
    return [build(node) for node in (nodes or {}).values() if node is not None]


def choose_strategy(strategy: str, devices: object, num_nodes: int) -> str:
    """Return the strategy that was named, or for "auto" one that suits a number of devices.

    A critic update leaves the generator unused, where plain DDP stops; with unused parameters allowed the weights equal
    those of one process.
    """
    alone = num_nodes == 1 and (devices in (1, "1") or (not isinstance(devices, int | str) and len(list(devices)) == 1))  # type: ignore[call-overload]
    return "ddp_find_unused_parameters_true" if strategy == "auto" and not alone else strategy


def resume(config: DictConfig) -> Path | None:
    """Return the checkpoint to continue from, if any; a run that is found by itself goes on in its own folder."""
    if config.resume is not None and not config.resume:
        raise ConfigurationError("resume: expected auto, a path or null, got nothing; write resume=auto")
    checkpoint = find_checkpoint(config.resume, Path(config.output), given_overrides())
    if checkpoint is not None and config.resume == AUTO:
        config.output = str(checkpoint.parent.parent)
    return checkpoint


def fit(trainer: Trainer, module: InpaintingModule, data: InpaintingDataModule, checkpoint: Path | None = None) -> None:
    """Train and validate, and say in one line, as a JobError, what the user can mend.

    After a signal the state is saved and the exit code is 128 plus the signal's number.
    """
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        if not any(name.startswith("validation/") for name in trainer.callback_metrics):  # it had ended before
            trainer.validate(module, datamodule=data, verbose=False)
    except InterruptionError as stop:
        if trainer.is_global_zero:
            print(f"{stop} after {module.generator_updates:,} updates; continue with resume=auto", flush=True)
        raise SystemExit(_exit_code(trainer, stop.exit_code)) from None
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # the trainer's own answer, before the first batch
            raise KeyboardInterrupt from None
        raise
    except SIGTERMException:  # before the first batch or after the last
        raise SystemExit(_exit_code(trainer, 128 + signal.SIGTERM)) from None
    except (ValueError, TypeError, MisconfigurationException) as error:
        if isinstance(error, DatasetError | MisconfigurationException) or raised_by_us(error):
            raise JobError(_last_words(error)) from error
        raise
    except (RuntimeError, OSError) as error:
        if lost_worker(error):
            if lack_of_shared_memory(error):
                raise JobError(
                    "the processes that read images have too little shared memory in /dev/shm; set dataset.workers=0, "
                    "or enlarge it (docker run --shm-size=2g), and continue with resume=auto"
                ) from error
            reason = " ".join(_last_words(error).split())
            raise JobError(f"a process that reads images was lost ({reason}); continue with resume=auto") from error
        if trainer.world_size > 1 and lost_peer(error):
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
    """Return 0 in a process that this run started itself: its parent, which reports the code, kills all on another.

    The parent waits for a second at most, so that none of its processes is left when it ends.
    """
    for process in getattr(trainer.strategy.launcher, "procs", ()):
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
    started_here = isinstance(getattr(trainer.strategy, "cluster_environment", None), LightningEnvironment)
    return 0 if started_here and trainer.local_rank > 0 else code


def _last_words(error: Exception) -> str:
    """Return an error's message, without the traceback that a data worker puts before it."""
    before, _, _ = str(error).partition("Original Traceback")
    return str(error) if before == str(error) else re.split(r"\n[\w.]+: ", str(error))[-1]


def _quieten() -> None:
    """Keep the trainer's greetings, and a warning that it causes itself, off the screen."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    warnings.filterwarnings("ignore", message=".*sync_dist=True")  # metrics are sums over processes already


def _say(trainer: Trainer, text: str) -> None:
    if trainer.is_global_zero:
        print(text, flush=True)
