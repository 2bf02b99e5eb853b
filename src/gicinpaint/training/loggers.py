"""Loggers: what they keep besides the trainer's numbers, after a resume too, and runs of Weights & Biases."""

import csv
import os
import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from lightning import LightningModule
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.model_summary.model_summary import ModelSummary
from PIL import Image

from gicinpaint.config.atomic_files import atomic_file, write_text

AXIS = "generator_updates"
BEST_IS = {f"validation/completed/hole/{name}": "min" for name in ("l1", "l2", "patch_distance")}
BEST_IS["validation/completed/hole/psnr"] = "max"
_ID_FILE = "wandb_run_id.txt"  # in a run's folder
_LONGEST_NAME = 64  # characters
_SUMMARY_DEPTH = 2  # down to the two stages and the two critics


def record_run(
    loggers: Sequence[Logger],
    module: LightningModule,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    resumed: bool = False,
) -> None:
    """Give every logger what a run is made of before it starts; W&B continues the run of resumed ones.

    CSV keeps it in `hparams.yaml`, TensorBoard under HPARAMS, W&B in the run's configuration.
    """
    summary = ModelSummary(module, max_depth=_SUMMARY_DEPTH)
    facts = {**config, **environment, "parameters": summary.total_parameters, "model_summary": str(summary)}
    for logger in loggers:
        if isinstance(logger, UpdatesWandbLogger):
            logger.keep_run(resumed)
        logger.log_hyperparams(facts)
        logger.save()


def show_picture(loggers: Sequence[Logger], name: str, picture: Image.Image, updates: int) -> None:
    """Give a picture, in a series of its name such as "pictures/completions", to TensorBoard and W&B."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(name, [picture], step=updates)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, np.asarray(picture), updates, dataformats="HWC")


def flush(loggers: Sequence[Logger]) -> dict[str, int]:
    """Write what was logged to disk; return how far files of CSV and TensorBoard reach, in lines and in bytes."""
    reached = {}
    for logger in loggers:
        logger.save()
        for path in _files(logger):
            reached[path.name] = path.read_bytes().count(b"\n") if path.suffix == ".csv" else path.stat().st_size
    return reached


def continue_files(loggers: Sequence[Logger], updates: int, reached: Mapping[str, int]) -> None:
    """Cut off what was logged after a checkpoint, which a resumed run logs again; the loggers are not used yet.

    Without what `flush` returned for the checkpoint, rows of metrics.csv after its generator updates are cut off.
    """
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            _continue_csv(logger, Path(str(logger.log_dir)) / "metrics.csv", updates, reached.get("metrics.csv"))
            continue
        for path in _files(logger):
            if path.name in reached:
                os.truncate(path, min(reached[path.name], path.stat().st_size))
            elif reached:
                path.unlink()


def _files(logger: Logger) -> list[Path]:
    patterns = {CSVLogger: "metrics.csv", TensorBoardLogger: "events.out.tfevents.*"}
    pattern = next((pattern for kind, pattern in patterns.items() if isinstance(logger, kind)), None)
    return sorted(Path(str(logger.log_dir)).glob(pattern)) if pattern else []


def _continue_csv(logger: CSVLogger, path: Path, updates: int, lines: int | None) -> None:
    kept = path.with_name("metrics.kept.csv")
    if kept.is_file() and not path.is_file():  # a kill came between deleting and renaming below
        kept.replace(path)
    if not path.is_file():
        return
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if lines is not None or float(row.get("step") or 0) <= updates]
    columns = list(reader.fieldnames or ())
    with atomic_file(kept) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows if lines is None else rows[: max(lines - 1, 0)])  # less the header
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory")
        experiment = logger.experiment  # deletes the old file
    kept.replace(path)
    experiment.metrics_keys = columns


def close_dashboards(loggers: Sequence[Logger], best: Path | None = None) -> None:
    """End the runs; one of W&B gets the best checkpoint as an artifact, if there is one."""
    for logger in loggers:
        if isinstance(logger, UpdatesWandbLogger):
            if best is not None and best.is_file():
                logger.log_best(best)
            logger.finish()


class UpdatesWandbLogger(WandbLogger):
    """Log to Weights & Biases, every curve over `generator_updates`.

    An offline run needs no account and no network: it is written below `save_dir`, and `finish` prints the line that
    sends it. Unlike Lightning's logger it leaves the environment alone and never continues a run that the process made
    before, so that jobs of a multirun stay apart. A run that is killed and resumed stays one: its identifier lies in
    `save_dir` before the first step. The variables WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_NAME,
    WANDB_RUN_GROUP, WANDB_JOB_TYPE, WANDB_TAGS and WANDB_RUN_ID count more than the arguments.

    Args:
        save_dir: Folder in which `wandb/` is made.
        project: Project that the run belongs to.
        name: Name of the run. Default: its variant, what else the command line changed and its seed, or a random name.
        group: Group of the run. Default: the multirun that it belongs to, or none.
        offline: Whether to write files only.
        id: Identifier of the run; that of an earlier run continues it. Default: a new one.
        seed: The run's seed, for its name.
        registry: Collection of the registry to which the best checkpoint is linked, such as
            `wandb-registry-model/gicinpaint`. An offline run cannot do that; `finish` prints the line for afterwards.
        **settings: What else `wandb.init` takes, such as `entity`, or `tags`: by default what was chosen of data, mask,
            model and loss.
    """

    def __init__(
        self,
        save_dir: str,
        project: str = "gicinpaint",
        name: str | None = None,
        group: str | None = None,
        offline: bool = True,
        id: str | None = None,
        seed: int | None = None,
        registry: str | None = None,
        **settings: Any,
    ) -> None:
        from wandb import Settings  # imported where used: it takes a second

        mode = os.environ.get("WANDB_MODE") or ("offline" if offline else "online")
        chosen, changes = _job()
        name = name or (_short_name(chosen, changes, seed) if chosen else None)
        super().__init__(save_dir=save_dir, project=project, name=name, id=id)
        self.offline, self.registry = mode == "offline", registry if mode != "disabled" else None
        self._links: list[str] = []  # of an offline run, to be made later
        self._run: Any = None
        tags = {str(chosen[key]) for key in ("dataset", "mask", "model", "loss") if chosen.get(key)}
        given: dict[str, Any] = {
            "project": project,
            "name": name,
            "run_group": group or multirun(),
            "run_id": id,
            "job_type": "train",
        }
        given |= {"tags": sorted(tags) if chosen else None, **settings}
        given = {key: value for key, value in given.items() if not os.environ.get(f"WANDB_{key.upper()}")}
        arguments = {key.removeprefix("run_"): value for key, value in given.items()}
        how = {"dir": save_dir, "mode": mode, "settings": Settings(silent=mode != "online"), "resume": "allow"}
        self._settings = {**arguments, **how}

    @rank_zero_only
    def keep_run(self, resumed: bool) -> None:
        """Take the identifier of a resumed run from `save_dir`, or write a new one there for whoever continues."""
        path = Path(str(self.save_dir)) / _ID_FILE
        if "id" in self._settings and self._settings["id"] is None:
            known = path.read_text(encoding="utf-8").strip() if resumed and path.is_file() else ""
            self._settings["id"] = known or uuid4().hex[:8]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, f"{self._settings.get('id') or os.environ['WANDB_RUN_ID']}\n")

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, begun on first use."""
        if self._run is None:
            import wandb

            if self._settings.get("id", "") is None:
                self.keep_run(resumed=False)
            if self.offline:  # for the process too, or the library's own telemetry looks for the service
                wandb.setup(settings=wandb.Settings(mode="offline"))
            self._run = wandb.init(reinit="create_new", **self._settings)
            self._run.define_metric(AXIS)
            self._run.define_metric("*", step_metric=AXIS, step_sync=True)
            for column, best in BEST_IS.items():
                self._run.define_metric(column, step_metric=AXIS, step_sync=True, summary=f"{best},last")
        return self._run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log a row; `step` counts generator updates."""
        self.experiment.log(dict(metrics) if step is None else {**metrics, AXIS: int(step)})

    @rank_zero_only
    def log_best(self, checkpoint: Path) -> None:
        """Log the best checkpoint as an artifact; it stays where it is and is not copied."""
        from wandb import Artifact, Error

        artifact = Artifact(f"best-{self.experiment.id}", type="model")
        artifact.add_file(str(checkpoint), policy="immutable")
        self.experiment.log_artifact(artifact, aliases=["best"])
        if self.registry and self.offline:
            place = "/".join(filter(None, (self.experiment.entity, self.experiment.project)))
            line = f"import wandb; wandb.Api().artifact('{place}/{artifact.name}:best').link('{self.registry}')"
            self._links = [f"python -c {shlex.quote(line)}"]
        elif self.registry:
            try:
                self.experiment.link_artifact(artifact, self.registry, aliases=["best"])
            except Error as error:  # the training has ended well
                print(f"W&B          the best checkpoint is not linked to {self.registry}: {error}", flush=True)

    @rank_zero_only
    def finish(self) -> None:
        """End the run, if it was begun; nothing can be logged after that."""
        if self._run is not None:
            self._run.finish()
            if self.offline:
                sync = f"wandb sync {shlex.quote(str(Path(self._run.dir).parent))}"
                print("\n".join(f"W&B          {line}" for line in (sync, *self._links)), flush=True)


def multirun() -> str | None:
    """Return the name of the multirun that this job belongs to, its folder's last two parts; None outside of one."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return "/".join(Path(HydraConfig.get().sweep.dir).parts[-2:])


def label_of_run() -> str:
    """Return what tells this job's lines from those of jobs beside it; empty where jobs run one after the other."""
    from hydra.core.hydra_config import HydraConfig

    if multirun() is None or "BasicLauncher" in HydraConfig.get().launcher["_target_"]:
        return ""
    return f"[{HydraConfig.get().job.num} {HydraConfig.get().job.override_dirname}] "


def _job() -> tuple[Mapping[str, Any], Sequence[str]]:
    """Return what was chosen of each group, and all overrides; nothing outside of a job."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return {}, []
    return HydraConfig.get().runtime.choices, HydraConfig.get().overrides.task


def _short_name(chosen: Mapping[str, Any], overrides: Sequence[str], seed: int | None) -> str:
    """Return a run's name: its variant or experiment or model, what else was changed, and its seed."""
    kind = next((str(chosen[key]) for key in ("variant", "experiment", "model") if chosen.get(key)), "run")
    left_out = {*chosen, "seed", "output", "resume", "data_dir", "threads"}
    changes = [change.partition("=") for change in overrides]
    more = [f"{key.rpartition('.')[2]}={value}" for key, _, value in changes if key.lstrip("+~") not in left_out]
    end = [] if seed is None else [f"s{seed}"]
    room = _LONGEST_NAME - len(",".join([kind, *end])) - 1
    return ",".join([kind, *filter(None, [",".join(more)[: max(0, room)].rstrip(",")]), *end])
