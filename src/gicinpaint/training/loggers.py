"""What loggers keep besides the trainer's numbers: settings, pictures, the best checkpoint."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.model_summary.model_summary import ModelSummary
from PIL import Image

from gicinpaint.training.wandb_logger import UpdatesWandbLogger

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
