"""What loggers keep of a real run; W&B without account and network."""

from __future__ import annotations

import csv
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb import Error

from gicinpaint.evaluation.compare import PANELS, Run
from gicinpaint.training.loggers import BEST_IS, UpdatesWandbLogger, close_dashboards
from runs import ROOT, SMALL
from wandb_files import OfflineRun, read_offline_run

CRITIC = {
    f"train/critic/{part}{name}"
    for part in ("global_", "local_")
    for name in (
        "critic",
        "penalty",
        "scores/real",
        "scores/completed",
        "scores/wasserstein",
        "scores/gradient_norm",
    )
} | {"train/critic/total", "train/critic/gradient_norm"}
GENERATOR = {
    f"train/generator/{name}"
    for name in (
        "total",
        "reconstruction",
        "known",
        "global_adversarial",
        "local_adversarial",
        "gradient_norm",
    )
}
TRAINING = {"speed/images_per_second", "speed/waiting_share", "speed/hours_left"} | {
    f"learning_rate/{network}" for network in ("generator", "critic")
}
VALIDATION = {
    f"validation/{row}/hole/{column}"
    for row in ("mean_colour", "coarse", "completed")
    for column in ("l1", "l2", "psnr", "tv", "tv_ratio", "patch_distance")
}
CURVES = CRITIC | GENERATOR | TRAINING | VALIDATION
PICTURES = {"pictures/completions", "pictures/attention"}
UPDATES = 3


@pytest.fixture(scope="module")
def proxy() -> Iterator[tuple[str, list[str]]]:
    """Give the address of a proxy that notes who calls and answers nothing."""
    calls: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def note() -> None:
            while True:
                try:
                    connection, caller = server.accept()
                except OSError:
                    return
                calls.append(str(caller))
                connection.close()

        threading.Thread(target=note, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", calls


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, proxy: tuple[str, list[str]]) -> Path:
    """Train with all loggers: no key, an empty home, and a proxy in the way of every connection."""
    folder = tmp_path_factory.mktemp("a run")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    environment |= {f"{kind}_PROXY": proxy[0] for kind in ("HTTP", "HTTPS", "ALL")} | {"NO_PROXY": ""}
    options = ["logger=several", "output=out", "trainer.log_every_n_steps=1"]
    result = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *options, *SMALL],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "wandb" not in result.stderr
    return folder / "out"


@pytest.fixture(scope="module")
def offline(folder: Path) -> OfflineRun:
    (run,) = (folder / "wandb").glob("offline-run-*")
    return read_offline_run(run)


def test_an_offline_run_of_wandb_calls_nobody(folder: Path, proxy: tuple[str, list[str]]) -> None:
    assert folder.is_dir()
    assert proxy[1] == []


def test_the_proxy_would_have_noticed(proxy: tuple[str, list[str]]) -> None:
    before = len(proxy[1])
    host, port = proxy[0].removeprefix("http://").split(":")
    socket.create_connection((host, int(port))).close()
    for _ in range(100):
        if len(proxy[1]) > before:
            break
        threading.Event().wait(0.05)
    assert len(proxy[1]) == before + 1
    proxy[1].pop()


def test_an_offline_run_holds_every_curve(offline: OfflineRun) -> None:
    assert offline.keys >= CURVES


def test_every_row_of_an_offline_run_counts_generator_updates(offline: OfflineRun) -> None:
    own = dict.fromkeys(BEST_IS, "generator_updates")
    assert offline.axes == {"generator_updates": "", "*": "generator_updates", **own}
    counts = [row["generator_updates"] for row in offline.history]
    assert counts == sorted(counts)
    assert set(counts) == {1, 2, UPDATES}


def test_an_offline_run_holds_pictures_that_exist(offline: OfflineRun, folder: Path) -> None:
    for name in PICTURES:
        rows = [row for row in offline.history if f"{name}/filenames" in row]
        assert rows[-1]["generator_updates"] == UPDATES
        for row in rows:
            (path,) = row[f"{name}/filenames"]
            assert list((folder / "wandb").glob(f"offline-run-*/files/{path}"))


def test_an_offline_run_holds_what_it_was_made_of(offline: OfflineRun) -> None:
    assert offline.config["updates"] == UPDATES
    assert offline.config["model"]["generator"]["width"] == 4
    assert offline.config["mask"]["box"] == [16, 16]
    assert offline.config["versions"]["torch"]
    assert set(offline.config["git"]) == {"commit", "modified"}
    summary = offline.config["model_summary"]
    assert "generator.coarse_network" in summary
    assert "critics.local" in summary


def test_the_best_checkpoint_is_an_artifact_of_its_offline_run(offline: OfflineRun, folder: Path) -> None:
    (artifact,) = offline.artifacts
    assert artifact.type == "model"
    assert artifact.name == f"best-{offline.run.run_id}"
    assert "best" in artifact.aliases
    (content,) = artifact.manifest.contents
    assert content.size == (folder / "checkpoints" / "best.ckpt").stat().st_size


def test_a_run_of_its_own_has_a_short_name_with_tags_and_no_group(offline: OfflineRun) -> None:
    assert offline.run.display_name.startswith("quickstart,log_every_n_steps=1,")
    assert offline.run.display_name.endswith(",s0")
    assert len(offline.run.display_name) <= 64
    assert set(offline.run.tags) >= {"tiny", "sample", "rectangle"}
    assert offline.run.job_type == "train"
    assert offline.run.project == "gicinpaint"
    assert offline.run.run_group == ""


def test_csv_holds_every_curve_and_what_the_run_was_made_of(folder: Path) -> None:
    with (folder / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) >= CURVES
    for name in CURVES:
        assert any(row[name] for row in rows), name
    assert rows[-1]["step"] == str(UPDATES)
    facts = yaml.safe_load((folder / "csv" / "hparams.yaml").read_text())
    assert facts["model"]["generator"]["width"] == 4
    assert {"git", "versions", "parameters", "model_summary"} <= set(facts)


def test_curves_of_runs_show_what_a_run_logs(folder: Path) -> None:
    assert set(PANELS) <= CURVES
    run = Run(folder, "default", 0, folder / "checkpoints" / "last.ckpt", None)
    for column in PANELS:
        assert {1.0, 2.0, float(UPDATES)} & {updates for updates, _ in run.logged(column)}, column


def test_logged_numbers_fit_together(folder: Path) -> None:
    """The total is the sum of what the released weights join; the estimate is a difference; shares lie in 0..1."""
    with (folder / "csv" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/critic/total"]]
    assert rows
    for row in rows:
        value = {name: float(text) for name, text in row.items() if text}
        parts = sum(
            value[f"train/critic/{part}_critic"] + 10 * value[f"train/critic/{part}_penalty"]
            for part in ("global", "local")
        )
        assert value["train/critic/total"] == pytest.approx(parts, rel=1e-4)
        for part in ("global", "local"):
            scores = f"train/critic/{part}_scores"
            estimate = value[f"{scores}/real"] - value[f"{scores}/completed"]
            assert value[f"{scores}/wasserstein"] == pytest.approx(estimate, abs=1e-5)
            assert value[f"train/critic/{part}_critic"] == pytest.approx(-estimate, abs=1e-5)
            # the mean of squares is no less than the square of the mean
            assert value[f"train/critic/{part}_penalty"] >= (value[f"{scores}/gradient_norm"] - 1) ** 2 - 1e-5
        assert 0 <= value["speed/waiting_share"] <= 1
        assert value["speed/images_per_second"] > 0
        assert value["learning_rate/critic"] == pytest.approx(2e-3)


def test_tensorboard_holds_curves_and_pictures(folder: Path) -> None:
    files = sorted((folder / "tensorboard").glob("events*"))
    curves, pictures = set(), set()
    for file in files:
        found = EventAccumulator(str(file))
        found.Reload()
        curves |= set(found.Tags()["scalars"])
        pictures |= set(found.Tags()["images"])
    assert curves >= CURVES
    assert pictures == PICTURES


def test_the_page_about_dashboards_explains_every_curve() -> None:
    page = (ROOT / "docs" / "dashboards.md").read_text(encoding="utf-8")
    for name in CURVES | PICTURES:
        group, _, last = name.rpartition("/")
        assert f"`{last}`" in page or f"/{last}`" in page, name
        assert group.split("/")[0] + "/" in page, name


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_a_run_that_goes_on_keeps_its_identifier_and_another_in_its_folder_does_not(
    no_variables: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def identifier(resumed: bool) -> str:
        logger = UpdatesWandbLogger(str(tmp_path))
        logger.keep_run(resumed)
        written = (tmp_path / "wandb_run_id.txt").read_text().strip()  # before the run begins
        assert not (tmp_path / "wandb").exists()
        return written

    first = identifier(resumed=False)
    assert identifier(resumed=True) == first
    assert identifier(resumed=False) != first
    logger = UpdatesWandbLogger(str(tmp_path))
    logger.keep_run(resumed=True)
    assert logger.experiment.id == (tmp_path / "wandb_run_id.txt").read_text().strip()
    logger.finish()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert f"wandb sync {folder}\n" in capfd.readouterr().out


def test_variables_count_more_than_settings(no_variables: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"MODE": "disabled", "PROJECT": "mine", "RUN_ID": "abc", "TAGS": "a,b"}.items():
        no_variables.setenv(f"WANDB_{name}", value)
    logger = UpdatesWandbLogger(str(tmp_path), offline=False, project="theirs", tags=["c"], name="called")
    assert logger._settings["mode"] == "disabled"
    assert logger._settings.keys() & {"project", "id", "tags"} == set()
    assert logger._settings["name"] == "called"
    logger.keep_run(resumed=True)
    assert (tmp_path / "wandb_run_id.txt").read_text() == "abc\n"


def test_a_run_of_wandb_that_is_switched_off_takes_every_call_and_writes_nothing(
    no_variables: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    no_variables.setenv("WANDB_MODE", "disabled")
    logger = UpdatesWandbLogger(str(tmp_path), project="switched off", tags=["ünï/cödé"])
    logger.keep_run(resumed=False)
    logger.log_hyperparams({"lr": 0.5})
    logger.log_metrics({"train/loss": 2.0}, step=3)
    close_dashboards([logger], tmp_path / "absent.ckpt")
    assert list(tmp_path.rglob("*run-*")) == []
    assert "wandb sync" not in capfd.readouterr().out


def test_the_best_checkpoint_is_linked_in_the_registry_or_the_line_for_it_is_printed(
    no_variables: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    no_variables.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    (tmp_path / "best.ckpt").write_bytes(b"weights")
    linked: list[tuple[str, str]] = []

    class Online:
        id = "abc"

        def log_artifact(self, artifact: Any, aliases: list[str]) -> None: ...

        def link_artifact(self, artifact: Any, target: str, aliases: list[str]) -> None:
            linked.append((artifact.name, target))
            if len(linked) > 1:
                raise Error("no such registry")

    logger = UpdatesWandbLogger(str(tmp_path), offline=False, registry="wandb-registry-model/x")
    logger._run = Online()
    logger.log_best(tmp_path / "best.ckpt")
    assert linked == [("best-abc", "wandb-registry-model/x")]
    logger.log_best(tmp_path / "best.ckpt")
    assert "is not linked to wandb-registry-model/x: no such registry\n" in capfd.readouterr().out

    offline = UpdatesWandbLogger(str(tmp_path), project="mine", registry="wandb-registry-model/x")
    close_dashboards([offline], tmp_path / "best.ckpt")
    sync, link = capfd.readouterr().out.splitlines()
    assert sync.startswith("W&B          wandb sync ")
    program = shlex.split(link)[3]
    assert program.endswith(f"mine/best-{offline._run.id}:best').link('wandb-registry-model/x')")
    compile(program, "link", "exec")


def test_the_summary_of_a_run_holds_the_best_beside_the_last(offline: OfflineRun) -> None:
    for column, best in BEST_IS.items():
        assert offline.summaries[column] == {best, "last"}
