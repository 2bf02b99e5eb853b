"""The W&B workspace and report, built without a network and compared with the table of docs/dashboards.md."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from gicinpaint.config.jobs import COMMANDS
from gicinpaint.config.validation import JobError
from gicinpaint.training.dashboard import build_dashboard
from runs import ROOT

ROW = re.compile(
    r"^\| (?P<section>[^|`]+) \| (?P<panel>[^|`]+) \| (?P<curves>`[^|]+`) \| (?P<see>[^|]*) \|$", re.MULTILINE
)


def documented() -> dict[str, dict[str, list[str]]]:
    """Return section, panel and curves from the table of the documentation."""
    table: dict[str, dict[str, list[str]]] = {}
    for row in ROW.finditer((ROOT / "docs" / "dashboards.md").read_text()):
        table.setdefault(row["section"].strip(), {})[row["panel"].strip()] = re.findall(r"`([^`]+)`", row["curves"])
    return table


def shown(panels: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return title and curves of panels as they are sent."""
    configs = [panel["config"] for panel in panels]
    return {one.get("chartTitle") or one["title"]: one.get("metrics") or one["mediaKeys"] for one in configs}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "absent"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens


def test_the_workspace_and_the_report_have_the_panels_of_the_documentation(no_network: None) -> None:
    workspace, report = (made._to_model().model_dump(by_alias=True) for made in build_dashboard("me", "mine"))
    sections = workspace["spec"]["section"]["panelBankConfig"]["sections"]
    assert {one["name"]: shown(one["panels"]) for one in sections} == documented()
    assert len(documented()) == 7
    for panel in (panel for one in sections for panel in one["panels"] if "metrics" in panel["config"]):
        assert panel["config"]["xAxis"] == "generator_updates"
    blocks = [block for block in report["spec"]["blocks"] if block["type"] == "panel-grid"]
    grids = [block["metadata"]["panelBankSectionConfig"]["panels"] for block in blocks]
    assert [shown(panels) for panels in grids] == list(documented().values())


def test_without_a_login_there_is_one_clear_line(no_network: None) -> None:
    with pytest.raises(JobError, match="needs a login; run wandb login, or set WANDB_API_KEY"):
        COMMANDS["dashboard"](["project=mine"])


def test_without_the_package_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(JobError, match=r"needs wandb-workspaces; pip install 'gicinpaint\[dashboard\]'"):
        COMMANDS["dashboard"]([])


def test_without_a_server_there_is_one_clear_line(no_network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with pytest.raises(JobError, match="the dashboard could not be uploaded: "):
        COMMANDS["dashboard"](["entity=me"])
