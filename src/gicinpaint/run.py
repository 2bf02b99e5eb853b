"""The train job: build every part from its configuration, in the order in which a mistake is cheapest to find."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from lightning import Callback, Trainer, seed_everything
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from gicinpaint.callbacks import SaveByUpdates, SavePictures
from gicinpaint.configuration import JobError, build, check_configuration
from gicinpaint.data import DatasetError, InpaintingDataModule
from gicinpaint.module import InpaintingModule

READS = {"seed": int, "output": str, "data_dir": str, "updates": int, "threads": int | None}


def train(config: DictConfig) -> None:
    """Train what a configuration describes.

    Args:
        config: `conf/train.yaml`, composed.

    Raises:
        ConfigurationError: If a value is missing, wrong or unused; nothing is built then.
        JobError: If a part cannot be built or the data cannot be used.
    """
    check_configuration(config, READS)
    _quieten()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    seed_everything(config.seed, workers=True, verbose=False)
    data = build(config.dataset)  # first: absent data stops the job before any network is built
    module = build_module(config)
    trainer = build_trainer(config)
    _say(trainer, opening(config, module, data))
    fit(trainer, module, data)
    _say(trainer, report(trainer))


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
    callbacks: list[Callback] = build_each(config.get("callbacks"))
    loggers: list[Logger] = build_each(config.get("logger"))
    strategy = choose_strategy(config.trainer.strategy, config.trainer.devices, config.trainer.num_nodes)
    trainer: Trainer = build(config.trainer, callbacks=callbacks, logger=loggers or False, strategy=strategy)
    return trainer


def build_each(nodes: Mapping[str, Any] | None) -> list[Any]:
    """Build every part of a group; one that is null is switched off."""
    return [build(node) for node in (nodes or {}).values() if node is not None]


def choose_strategy(strategy: str, devices: object, num_nodes: int) -> str:
    """Return the strategy for a number of devices.

    Args:
        strategy: A strategy's name, which is kept, or "auto".
        devices: A count, a list of indices, or text such as "auto", "2" or "0,1".
        num_nodes: Number of machines.

    Source:
        A critic update leaves the generator unused, where plain DDP stops; with unused parameters allowed the weights
        equal those of one process.
    """
    alone = num_nodes == 1 and (devices in (1, "1") or (not isinstance(devices, int | str) and len(list(devices)) == 1))  # type: ignore[call-overload]
    return "ddp_find_unused_parameters_true" if strategy == "auto" and not alone else strategy


def fit(trainer: Trainer, module: InpaintingModule, data: InpaintingDataModule) -> None:
    """Train, and say in one line what the user can mend."""
    try:
        trainer.fit(module, datamodule=data)
        if not trainer.interrupted:
            trainer.validate(module, datamodule=data, verbose=False)
    except (DatasetError, MisconfigurationException) as error:
        raise JobError(str(error)) from error


def opening(config: DictConfig, module: InpaintingModule, data: InpaintingDataModule) -> str:
    """Return what is about to happen, in two lines."""
    parameters = sum(parameter.numel() for parameter in module.generator.parameters())
    return (
        f"{len(data.train):,} training and {len(data.validation):,} validation images, {data.batch_size} per batch; "
        f"a generator of {parameters:,} parameters, {config.updates:,} updates\n"
        f"everything goes to {config.output}"
    )


def report(trainer: Trainer) -> str:
    """Return the last validation as a table, and where pictures and checkpoints lie."""
    found = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("validation/")}
    lines = [f"{'in the hole':14}{'L1 %':>8}{'L2 %':>8}{'PSNR dB':>9}{'TV %':>8}"] if found else []
    for row in ("mean_colour", "coarse", "completed"):
        keys = [f"validation/{row}/hole/{column}" for column in ("l1", "l2", "psnr", "tv")]
        if all(key in found for key in keys):
            l1, l2, psnr, tv = (found[key] for key in keys)
            lines.append(f"{row.replace('_', ' '):14}{l1:8.2f}{l2:8.2f}{psnr:9.2f}{tv:8.2f}")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, SavePictures) and callback.last_path:
            lines.append(f"picture      {callback.last_path}")
        if isinstance(callback, SaveByUpdates):
            lines.append(f"checkpoint   {callback.last_path}")
    return "\n".join(lines)


def _quieten() -> None:
    """Keep the trainer's greetings, and a warning that it causes itself, off the screen."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
    warnings.filterwarnings("ignore", message=".*does not have many workers")


def _say(trainer: Trainer, text: str) -> None:
    if trainer.is_global_zero:
        print(text, flush=True)
