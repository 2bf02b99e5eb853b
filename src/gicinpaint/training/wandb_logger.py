"""Runs of Weights & Biases with generator updates as their axis."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

AXIS = "generator_updates"
_LONGEST_NAME = 128  # characters that the service takes


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

        super().__init__(
            save_dir=save_dir,
            project=project,
            name=name or _changes(),
            group=group or multirun(),
            id=id,
            mode="offline" if offline else "online",
            settings=Settings(silent=offline),
            **settings,
        )
        self._wandb_init.pop("anonymous", None)  # None, at which `wandb.init` warns
        self.offline = offline

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, begun on first use."""
        if self._experiment is None:
            import wandb

            if self.offline:  # for the process too, or the library's own telemetry looks for the service
                wandb.setup(settings=wandb.Settings(mode="offline"))
            self._experiment = wandb.init(reinit="create_new", **self._wandb_init)
            self._experiment.define_metric(AXIS)
            self._experiment.define_metric("*", step_metric=AXIS, step_sync=True)
        return self._experiment

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
        if self._experiment is not None:
            self._experiment.finish()


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
