"""A workspace and a report of Weights & Biases with the panels of docs/dashboards.md, made by code."""

import netrc
import os
from contextlib import suppress
from importlib import import_module
from typing import Any
from urllib.parse import urlparse

from gicinpaint.config.validation import JobError
from gicinpaint.training.loggers import AXIS

_SCORES = ("train/critic/global_scores", "train/critic/local_scores")
SECTIONS: dict[str, dict[str, list[str]]] = {  # section: panel: curves, or pictures
    "validation": {
        "L1 in the hole, %": [f"validation/{row}/hole/l1" for row in ("completed", "coarse", "mean_colour")],
        "PSNR in the hole, dB": [f"validation/{row}/hole/psnr" for row in ("completed", "coarse", "mean_colour")],
    },
    "pictures": {"completions": ["pictures/completions"], "attention": ["pictures/attention"]},
    "critics": {
        "Wasserstein estimate": [f"{scores}/wasserstein" for scores in _SCORES],
        "gradient norm in the hole": [f"{scores}/gradient_norm" for scores in _SCORES],
        "mean scores": [f"{scores}/{images}" for scores in _SCORES for images in ("real", "completed")],
    },
    "generator": {
        "terms of the loss": [
            f"train/generator/{term}" for term in ("reconstruction", "known", "global_adversarial", "local_adversarial")
        ],
    },
    "gradients": {
        "gradient norm, logarithmic": ["train/generator/gradient_norm", "train/critic/gradient_norm"],
    },
    "speed": {
        name.replace("_", " "): [f"speed/{name}"] for name in ("images_per_second", "waiting_share", "hours_left")
    },
    "learning rate": {"learning rate": ["learning_rate/generator", "learning_rate/critic"]},
}


def build_dashboard(entity: str, project: str) -> tuple[Any, Any]:
    """Return a workspace and a report with the panels of `SECTIONS`, over generator updates; nothing is uploaded.

    Raises:
        JobError: If the package wandb-workspaces is absent.
    """
    try:
        reports, workspaces = (import_module(f"wandb_workspaces.{part}") for part in ("reports.v2", "workspaces"))
    except ImportError as error:
        raise JobError("the dashboard needs wandb-workspaces; pip install 'gicinpaint[dashboard]'") from error

    def panel(title: str, names: list[str]) -> Any:
        if names[0].startswith("pictures/"):
            return reports.MediaBrowser(title=title, media_keys=names, num_columns=1)
        return reports.LinePlot(title=title, x=AXIS, y=names, log_y="logarithmic" in title)

    panels = {section: [panel(*one) for one in named.items()] for section, named in SECTIONS.items()}
    workspace = workspaces.Workspace(
        entity=entity,
        project=project,
        name="gicinpaint",
        sections=[workspaces.Section(name=name, panels=own, is_open=True) for name, own in panels.items()],
        settings=workspaces.WorkspaceSettings(x_axis=AXIS),
    )
    report = reports.Report(entity=entity, project=project, title="gicinpaint", width="fluid")
    for name, own in panels.items():
        report.blocks += [reports.H2(text=name), reports.PanelGrid(panels=own)]  # of the project's runs
    return workspace, report


def upload_dashboard(entity: str = "", project: str = "gicinpaint") -> None:
    """Upload a workspace and a report to a project of W&B and print where they are.

    The entity, a user or a team, is by default that of WANDB_ENTITY or of the login.

    Raises:
        JobError: If wandb-workspaces or the login is absent, or W&B refuses or cannot be reached.
    """
    build_dashboard("entity", project)  # without the package, it is the first thing to say
    if not _has_login():
        raise JobError("the dashboard is uploaded to W&B, which needs a login; run wandb login, or set WANDB_API_KEY")
    import wandb

    try:
        entity = entity or os.environ.get("WANDB_ENTITY") or wandb.Api().default_entity or ""
        for made in build_dashboard(entity, project):
            made.save()
            print(made.url)
    except (wandb.Error, OSError, ValueError) as error:
        raise JobError(f"the dashboard could not be uploaded: {' '.join(str(error).split())[:200]}") from error


def _has_login() -> bool:
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    with suppress(OSError, netrc.NetrcParseError):
        return bool(os.environ.get("WANDB_API_KEY") or netrc.netrc(os.environ.get("NETRC")).authenticators(host))
    return False
