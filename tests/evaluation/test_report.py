"""The report that ends a multirun: tiny forms of the paper's four questions, and what the report is made of."""

import base64
import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from PIL import Image
from test_evaluation_runs import save_run

from gicinpaint.cli import main
from gicinpaint.config.command_line import register_resolvers
from gicinpaint.config.validation import JobError
from gicinpaint.evaluation import report as reports
from gicinpaint.evaluation.compare import find_runs, interval
from gicinpaint.evaluation.measuring import MethodResult
from gicinpaint.evaluation.questions import report_convergence
from gicinpaint.evaluation.report import Report
from gicinpaint.evaluation.tables import update_page
from gicinpaint.training.train import train

L1 = "validation/completed/hole/l1"
TINY = [
    "dataset.image_size=32",
    "dataset.batch_size=4",
    "dataset.workers=0",
    "dataset.validation.repeat=1",
    "mask.box=[16,16]",
    "mask.inset=[2,2]",
    "model.generator.width=4",
    "updates=2",
    "trainer.val_check_interval=1",
    "callbacks.progress=null",
    "hydra.callbacks.report.call.pictures=1",
]
COPYING = "hydra.callbacks.report.call.sections.copying"


def embedded(page: str) -> list[Image.Image]:
    """Return the pictures of a page, which must refer to nothing outside."""
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "://" not in page
    return [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]


QUESTIONS: dict[str, tuple[list[str], list[str], int]] = {  # more overrides; what the page must say; pictures
    "rq1": (
        ["seed=0", f"{COPYING}.count=6", f"{COPYING}.size=64", f"{COPYING}.distances=[8,16]", f"{COPYING}.hole=16"],
        ["Does attention copy from afar?", "attention on true copies", "copied from, median px", "over 16"],
        4,  # curves, PSNR over distance, arrows, side by side
    ),
    "rq2": (
        ["seed=0,1", "variant=coarse_only,patch_critic", "++model.critic_steps=1", "++model.warmup_steps=0"],
        ["Do two stages", "patch_critic", "±"],
        2,
    ),
    "rq3": (
        ["seed=0", "variant=full,hinge", "model.warmup_steps=0", "model.critic_steps=1"],
        ["What do the discounted loss", "updates to the L1", "spread of the global critic", "skipped: critics"],
        2,
    ),
    "rq4": (["seed=0", "data_dir=nothing_here"], ["Does it hold across domains?", "<td>sample</td>"], 2),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_ends_in_its_report(question: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    more, said, pictures = QUESTIONS[question]
    assert main(["train", f"sweep={question}", *TINY, *more, "hydra.sweep.dir=swept"]) == 0
    page = (tmp_path / "swept" / "report.html").read_text()
    assert [text for text in said if text not in page] == []
    for column in ("TV ratio", "patch distance", "checkpoint SHA-256", "minutes of the last start"):
        assert f"<th>{column}</th>" in page
    assert len(embedded(page)) == pictures
    assert str(tmp_path) not in page
    assert "swept" not in page  # the folder, whose name tells nothing
    markdown = (tmp_path / "swept" / "report.md").read_text()
    files = re.findall(r"\]\((.*?)\)", markdown)
    assert len(files) == pictures
    assert all((tmp_path / "swept" / file).is_file() for file in files)


def test_a_multirun_of_the_command_line_ends_in_the_same_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    models = ["-m", "model=coarse_only,contextual", "loss=l1", "trainer=cpu"]
    assert main(["train", *models, *TINY, "hydra.sweep.dir=swept"]) == 0
    page = (tmp_path / "swept" / "report.html").read_text()
    assert "<th>model</th>" in page  # the override that differs
    assert "updates=2" in page  # one that all share
    assert len(embedded(page)) == 2
    assert "report       swept/report.html" in capsys.readouterr().out


def test_a_report_that_fails_fails_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(folder: str, **_: Any) -> None:
        raise JobError("the disk is full")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reports, "write_report", refuse)
    with pytest.raises(SystemExit, match="1"):
        main(["train", "-m", "seed=0", "loss=l1", "trainer=cpu", *TINY, "hydra.sweep.dir=swept"])
    assert "gicinpaint: after the multirun: the disk is full" in capsys.readouterr().err


def test_a_multirun_in_which_nothing_was_saved_has_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", "seed=-1,-2", "loss=l1", "trainer=cpu", *TINY, "hydra.sweep.dir=swept"]) == 1
    assert "no report: none of the runs has saved a checkpoint" in capsys.readouterr().out
    assert not (tmp_path / "swept" / "report.html").exists()


def test_an_interval_is_students() -> None:
    assert interval([1.0, 2.0, 3.0], 3) == "2.000 ± 2.484"  # 4.3027 / sqrt(3), from a table of t
    assert interval([1.5], 1) == "1.5"


def test_convergence_counts_updates_spread_and_skipped_steps(tmp_path: Path) -> None:
    for number, curve in enumerate(({10: (9.0, 0.0), 20: (6.0, 0.0)}, {10: (7.0, 0.0), 20: (7.5, 0.0)})):
        save_run(tmp_path / str(number), [f"loss={number}"], 0, curve)
    (tmp_path / "1" / "output.log").write_text("skipped a step of the critics at batch 3: x not finite\nother line\n")
    report = Report("", tmp_path / "pictures")
    report_convergence(find_runs(tmp_path), report)
    page = report.markdown()
    assert "is 7.00 % or less" in page  # the best of the run that stays worse
    assert "| 0 | 20 |  |  | 0 | 0 |" in page
    assert "| 1 | 10 |  |  | 0 | 1 |" in page


def test_datasets_that_are_there_are_swept(tmp_path: Path) -> None:
    register_resolvers()
    (tmp_path / "dtd").mkdir()
    (tmp_path / "celeba_hq").mkdir()
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        config = compose("train", overrides=["sweep=rq4", f"data_dir={tmp_path}"], return_hydra_config=True)
    assert config.hydra.sweeper.params.dataset == "celeba_hq,dtd"


def test_training_returns_the_best_monitored_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        config = compose("train", overrides=["loss=l1", "trainer=cpu", *TINY[:-1], "updates=4", "output=run"])
    OmegaConf.set_struct(config, False)
    value = train(config)
    with (tmp_path / "run" / "csv" / "metrics.csv").open(newline="") as file:
        logged = [float(row[L1]) for row in csv.DictReader(file) if row[L1]]
    assert len(logged) == 4
    assert value == pytest.approx(min(logged), rel=1e-6)


def test_optuna_searches_for_the_smallest_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    monkeypatch.chdir(tmp_path)
    search = ["-m", "hydra/sweeper=search", "hydra.sweeper.n_trials=2", "optimizer.lr=interval(1e-4,1e-3)"]
    assert main(["train", *search, "loss=l1", "trainer=cpu", *TINY, "hydra.sweep.dir=swept"]) == 0
    found = OmegaConf.load(tmp_path / "swept" / "optimization_results.yaml")
    logged = []
    for number in (0, 1):
        with (tmp_path / "swept" / str(number) / "csv" / "metrics.csv").open(newline="") as file:
            logged += [float(row[L1]) for row in csv.DictReader(file) if row[L1]]
    assert found.best_value == pytest.approx(min(logged), rel=1e-6)


def test_the_page_of_results_replaces_rows_of_equal_names(tmp_path: Path) -> None:
    page = tmp_path / "results.md"

    def add(model: str, l1: float, dataset: str = "faces", **more: str) -> None:
        values = {"hole/l1": l1, "hole/tv_ratio": 0.5, "hole/patch_distance": 0.01}
        identities = {
            "images": {"sha256": "1" * 64},
            "masks": {"preset": "paper_center", "height": 64, "width": 64, "sha256": "2" * 64},
            "methods": {model: {"sha256": "3" * 64}, "telea": {"_target_": "telea"}},
        }
        results = {name: MethodResult(values, 9, 0.1, 1.0) for name in (model, "telea")}
        update_page(page, dataset, results, {**identities, **more})

    add("ours", 9.0)
    add("theirs", 8.0)
    add("ours", 7.0)
    add("ours", 6.0, dataset="scenes")
    lines = [line.split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")]
    rows = {(line[0].strip("| "), line[1]): line for line in lines[2:]}
    trained = [key for key in rows if key[1] != "Places2"]
    assert trained == [("ours", "faces"), ("theirs", "faces"), ("ours", "scenes")]
    column = lines[0].index("L1 %")
    add("a|b", 5.0)
    before = page.read_text()
    add("a|b", 5.0)
    assert page.read_text() == before  # read as it was written, its bar not taken for a column's end
    assert [rows[key][column] for key in trained] == ["7.00", "8.00", "6.00"]
    assert rows["full model (published)", "Places2"][column] == "8.6"  # table 1 of the paper
    assert "telea" not in page.read_text()
    (tmp_path / "other.md").write_text("| a | b |\n| --- | --- |\n")
    page = tmp_path / "other.md"
    with pytest.raises(JobError, match="expected a page that evaluate wrote"):
        add("ours", 1.0)
