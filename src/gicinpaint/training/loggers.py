"""Loggers: what they keep besides the trainer's numbers, and runs of Weights & Biases over generator updates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.model_summary.model_summary import ModelSummary
from PIL import Image

AXIS = "generator_updates"
_LONGEST_NAME = 128  # characters that the service takes
_SUMMARY_DEPTH = 2  # down to the two stages and the two critics


def record_run(
    loggers: Sequence[Logger],
    module: LightningModule,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
) -> None:
    """Give every logger what a run is made of, before it starts.

    CSV keeps it in `hparams.yaml`, TensorBoard under HPARAMS, W&B in the run's configuration.

    Args:
        loggers: The run's loggers.
        module: What is trained; its layers are listed with shapes left out and parameters counted.
        config: The resolved configuration.
        environment: What else the result depends on: the code's commit, versions.
    """
    summary = ModelSummary(module, max_depth=_SUMMARY_DEPTH)
    facts = {**config, **environment, "parameters": summary.total_parameters, "model_summary": str(summary)}
    for logger in loggers:
        logger.log_hyperparams(facts)
        logger.save()


def show_picture(loggers: Sequence[Logger], name: str, picture: Image.Image, updates: int) -> None:
    """Give a picture to every logger that shows pictures; CSV does not.

    Args:
        loggers: The run's loggers.
        name: What the picture shows, e.g. "pictures/completions"; pictures of one name follow each other.
        picture: The picture.
        updates: Generator updates so far.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(name, [picture], step=updates)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, np.asarray(picture), updates, dataformats="HWC")


def close_dashboards(loggers: Sequence[Logger], best: Path | None = None) -> None:
    """End the runs; one of W&B gets the best checkpoint as an artifact.

    Args:
        loggers: The run's loggers.
        best: The best checkpoint, if there is one.
    """
    for logger in loggers:
        if isinstance(logger, UpdatesWandbLogger):
            if best is not None and best.is_file():
                logger.log_file(best, kind="model", name="best", alias="best")
            logger.finish()


class UpdatesWandbLogger(WandbLogger):
    """Log to Weights & Biases, every curve over `generator_updates`.

    An offline run needs no account and no network: it is written below `save_dir`, from where
    `wandb sync <save_dir>/wandb/offline-run-*` sends it later. Unlike Lightning's logger it leaves the environment
    alone and never continues a run that the process made before, so that jobs of a multirun stay apart; `finish` ends
    a run.

    Args:
        save_dir: Folder in which `wandb/` is made.
        project: Project that the run belongs to.
        name: Name of the run. Default: what the command line changed, or a random name.
        group: Group of the run. Default: the multirun that it belongs to, or none.
        offline: Whether to write files only.
        id: Identifier of the run; that of an earlier run continues it.
        **settings: What else `wandb.init` takes, e.g. `entity` or `tags`.
    """

    def __init__(
        self,
        save_dir: str,
        project: str = "gicinpaint",
        name: str | None = None,
        group: str | None = None,
        offline: bool = True,
        id: str | None = None,
        **settings: Any,
    ) -> None:
        from wandb import Settings  # imported where used: it takes a second

        super().__init__(save_dir=save_dir, project=project, name=name or _changes(), id=id)
        self.offline = offline
        self._run: Any = None
        self._settings = {
            "dir": save_dir,
            "project": project,
            "name": name or _changes(),
            "group": group or multirun(),
            "id": id,
            "mode": "offline" if offline else "online",
            "settings": Settings(silent=offline),
            "resume": "allow",
            **settings,
        }

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, begun on first use."""
        if self._run is None:
            import wandb

            if self.offline:  # for the process too, or the library's own telemetry looks for the service
                wandb.setup(settings=wandb.Settings(mode="offline"))
            self._run = wandb.init(reinit="create_new", **self._settings)
            self._run.define_metric(AXIS)
            self._run.define_metric("*", step_metric=AXIS, step_sync=True)
        return self._run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log a row; `step` counts generator updates."""
        self.experiment.log(dict(metrics) if step is None else {**metrics, AXIS: int(step)})

    @rank_zero_only
    def log_file(self, path: Path, kind: str, name: str, alias: str) -> None:
        """Log a file as an artifact; it stays where it is and is not copied.

        Args:
            path: The file.
            kind: Kind of the artifact, e.g. "model".
            name: What the artifact is called; the run's identifier is added.
            alias: What this version is called.
        """
        from wandb import Artifact

        artifact = Artifact(f"{name}-{self.experiment.id}", type=kind)
        artifact.add_file(str(path), policy="immutable")
        self.experiment.log_artifact(artifact, aliases=[alias])

    @rank_zero_only
    def finish(self) -> None:
        """End the run, if it was begun; nothing can be logged after that."""
        if self._run is not None:
            self._run.finish()


def multirun() -> str | None:
    """Return the name of the multirun that this job belongs to, its folder's last two parts; None outside of one."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return "/".join(Path(HydraConfig.get().sweep.dir).parts[-2:])


def _changes() -> str | None:
    """Return what the job's command line changed, as the run's name."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return None
    return ",".join(HydraConfig.get().overrides.task)[:_LONGEST_NAME] or None  # what is swept comes first
