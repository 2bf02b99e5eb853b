"""Runs that were killed or asked to end continue to the bit; the whole table of faults is in test_faults.py."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from faults import digest, fault, log_of, run
from gicinpaint.training.checkpoint import CheckpointError
from gicinpaint.training.loggers import continue_files, flush
from gicinpaint.training.resume import changes, check_fit, find_checkpoint, run_settings
from runs import fit, small_module

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*have no `val_dataloader`", "ignore:`isinstance"
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("resume") / "undisturbed"
    assert run(output) == 0, log_of(output)
    return output


def validations(output: Path) -> list[tuple[str, str]]:
    rows = csv.DictReader((output / "csv" / "metrics.csv").open(newline=""))
    return [(row["step"], row[column]) for row in rows if row[column := "validation/completed/hole/l1"]]


def test_a_run_killed_at_the_edge_of_an_epoch_continues_to_the_bit(undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    assert run(output, *fault(batch=6)) == -9  # the second epoch's last batch
    assert run(output, "resume=auto") == 0, log_of(output)
    assert digest(output) == digest(undisturbed)
    counters = torch.load(output / "checkpoints" / "last.ckpt", weights_only=True)["counters"]
    assert counters == {"batches_seen": 14, "generator_updates": 8}  # one of the warm-up, then every second batch's
    assert not list((output / "checkpoints").glob(".*"))


def test_a_run_is_not_written_over(undisturbed: Path) -> None:
    before = digest(undisturbed)
    assert run(undisturbed) == 1
    assert "holds a run; resume=auto continues it, or choose another folder, output=" in log_of(undisturbed)
    assert digest(undisturbed) == before


def test_a_run_asked_to_end_in_validation_saves_and_makes_up_for_it(undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "asked"
    assert run(output, *fault(batch=4, what="SIGTERM", when="on_validation_batch_start")) == 143
    assert "stopped by SIGTERM after 3 updates; continue with resume=auto" in log_of(output)
    assert run(output, "resume=auto") == 0, log_of(output)
    assert digest(output) == digest(undisturbed)
    assert digest(output, "best.ckpt") == digest(undisturbed, "best.ckpt")
    assert validations(output) == validations(undisturbed)


# Which checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("checkpoint") / "last.ckpt"
    fit(small_module(critic_steps=1)).save_checkpoint(path)
    return path.read_bytes()


def fill(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for age, (name, content) in enumerate(files.items()):  # from new to old
        (folder / f"{name}.ckpt").write_bytes(content)
        os.utime(folder / f"{name}.ckpt", (1e9 - age, 1e9 - age))
    return folder


def test_without_resume_or_checkpoints_a_run_starts_at_zero(checkpoint: bytes, tmp_path: Path) -> None:
    assert find_checkpoint("auto", tmp_path, []) is None
    fill(tmp_path / "checkpoints", last=checkpoint)
    assert find_checkpoint(None, tmp_path, []) is None


def test_the_newest_whole_checkpoint_is_taken_with_a_warning_for_each_newer_one(
    checkpoint: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fill(tmp_path / "checkpoints", best=checkpoint[:-100], last=b"nothing", previous=checkpoint)
    assert find_checkpoint("auto", tmp_path, []) == folder / "previous.ckpt"
    assert [record.message.partition(".ckpt")[0].rpartition("/")[2] for record in caplog.records] == ["last", "best"]
    assert find_checkpoint(str(tmp_path), Path("elsewhere"), []) == folder / "previous.ckpt"
    assert find_checkpoint(str(folder), Path("elsewhere"), []) == folder / "previous.ckpt"
    fill(folder, last=checkpoint)
    assert find_checkpoint("auto", tmp_path, []) == folder / "last.ckpt"


def test_a_run_never_starts_over_when_all_checkpoints_are_broken(checkpoint: bytes, tmp_path: Path) -> None:
    fill(tmp_path / "checkpoints", last=checkpoint[:500], previous=b"")
    with pytest.raises(CheckpointError, match=r"none of last.ckpt, previous.ckpt can be read; restore one"):
        find_checkpoint("auto", tmp_path, [])


def test_a_path_without_checkpoint_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected checkpoints \(\*.ckpt\) there, found none"):
        find_checkpoint(str(tmp_path), tmp_path, [])
    with pytest.raises(CheckpointError, match=r"absent.ckpt: expected a checkpoint, found no such file"):
        find_checkpoint(str(tmp_path / "absent.ckpt"), tmp_path, [])


def test_auto_finds_the_latest_run_of_the_same_command_beside_one_named_by_time(
    checkpoint: bytes, tmp_path: Path
) -> None:
    overrides = {
        "09-00-00": "[seed=1,model=tiny]",
        "10-00-00": "[model=tiny,seed=1,resume=auto]",
        "11-00-00": "[seed=2]",
    }
    for time, given in overrides.items():
        fill(tmp_path / "2026-01-02" / time / "checkpoints", last=checkpoint)
        (tmp_path / "2026-01-02" / time / ".hydra").mkdir()
        (tmp_path / "2026-01-02" / time / ".hydra" / "overrides.yaml").write_text(given)
    found = find_checkpoint("auto", tmp_path / "2026-01-03" / "08-00-00", ["resume=auto", "seed=1", "model=tiny"])
    assert found == tmp_path / "2026-01-02" / "10-00-00" / "checkpoints" / "last.ckpt"
    assert find_checkpoint("auto", tmp_path / "2026-01-03" / "08-00-00", ["resume=auto", "seed=3"]) is None
    assert find_checkpoint("auto", tmp_path / "mine", ["resume=auto", "seed=1", "model=tiny"]) is None


def test_auto_finds_the_same_job_of_an_earlier_multirun(checkpoint: bytes, tmp_path: Path) -> None:
    for day, given in (("02", "seed=1"), ("02", "seed=2"), ("03", "seed=2")):
        job = tmp_path / f"2026-01-{day}" / "10-00-00-2" / given[-1]
        fill(job / "checkpoints", last=checkpoint)
        (job / ".hydra").mkdir()
        (job / ".hydra" / "overrides.yaml").write_text(f"[{given},trainer.max_time=00:00:01:00]")
    now = tmp_path / "2026-01-04" / "08-00-00"
    overrides = ["resume=auto", "trainer.max_time=00:00:02:00"]  # how long a start may take is no setting of the run
    for seed, expected in (("1", "2026-01-02/10-00-00-2/1"), ("2", "2026-01-03/10-00-00-2/2")):
        found = find_checkpoint("auto", now / "0", [*overrides, f"seed={seed}"])
        assert found == tmp_path / expected / "checkpoints" / "last.ckpt"
    assert find_checkpoint("auto", now / "0", [*overrides, "seed=3"]) is None


def settings(*overrides: str) -> dict[str, object]:
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        return run_settings(compose("train", ["output=out", *overrides]))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("dataset.batch_size=4", "dataset.batch_size: 16 -> 4"),
        ("seed=7", "seed: 0 -> 7"),
        ("dataset.train.repeat=3", "dataset.train.repeat: 64 -> 3"),
        ("mask.box=[64,64]", "dataset.mask.box.0: 128 -> 64"),
        ("trainer.precision=64-true", "precision: 32-true -> 64-true"),
    ],
)
def test_settings_that_change_the_batches_are_told(override: str, told: str, tmp_path: Path) -> None:
    module = small_module(critic_steps=1)
    module.run_settings = settings()
    fit(module).save_checkpoint(tmp_path / "last.ckpt")
    assert told in changes(tmp_path / "last.ckpt", settings(override))


def test_settings_that_change_no_batch_are_not_told(tmp_path: Path) -> None:
    module = small_module(critic_steps=1)
    module.run_settings = settings()
    fit(module).save_checkpoint(tmp_path / "last.ckpt")
    free = ("dataset.workers=1", "dataset.prefetch=4", "threads=1", "updates=7", "dataset.validation_batch_size=3")
    assert changes(tmp_path / "last.ckpt", settings(*free)) == []
    assert changes(tmp_path / "last.ckpt", settings(*free, "dataset.flip=0")) == ["dataset.flip: 0.5 -> 0"]


def test_a_checkpoint_of_an_earlier_version_tells_no_settings(checkpoint: bytes, tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(checkpoint)
    assert changes(tmp_path / "last.ckpt", settings()) == []


def test_a_run_goes_on_with_other_batches_only_when_told_to(undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(undisturbed, output)
    assert run(output, "resume=auto", "seed=5", "dataset.batch_size=4") == 1
    assert "the run to continue had other settings: seed: 0 -> 5; dataset.batch_size: 8 -> 4; use those, or add " in (
        log_of(output)
    )
    assert digest(output) == digest(undisturbed)
    assert run(output, "resume=auto", "seed=5", "dataset.batch_size=4", "resume_with_changes=true") == 0
    assert "continued with changed settings: seed: 0 -> 5" in log_of(output)


def test_a_checkpoint_of_another_model_is_reported_with_the_settings_that_differ(tmp_path: Path) -> None:
    module = small_module(critic_steps=1)
    module.config = {"critic_steps": 1, "generator": {"width": 2}}
    fit(module).save_checkpoint(tmp_path / "last.ckpt")
    fitting = check_fit(tmp_path / "last.ckpt", module, module.config)
    assert fitting["counters"]["generator_updates"] == 1
    with pytest.raises(
        CheckpointError, match=r"another model: critics.global.* here; settings that differ: g.*th: 2 -> 4"
    ):
        check_fit(tmp_path / "last.ckpt", small_module(adversary=False), {"critic_steps": 1, "generator": {"width": 4}})


def test_metrics_up_to_the_resumed_update_are_kept_and_new_columns_fit_in(tmp_path: Path) -> None:
    first = CSVLogger(tmp_path, name=None, version="csv")
    for step in (1, 2, 3, 4):
        first.log_metrics({"a": step / 2}, step)
    first.save()
    second = CSVLogger(tmp_path, name=None, version="csv")
    continue_files([second], 2, {})
    second.log_metrics({"a": 9.0, "b": 5.0}, 3)
    second.save()
    rows = list(csv.DictReader((tmp_path / "csv" / "metrics.csv").open(newline="")))
    assert [(row["step"], row["a"], row["b"]) for row in rows] == [
        ("1", "0.5", ""),
        ("2", "1.0", ""),
        ("3", "9.0", "5.0"),
    ]


def test_a_kill_while_metrics_are_cut_loses_no_row(tmp_path: Path) -> None:
    class Killed(CSVLogger):
        @property
        def experiment(self) -> Any:  # what it deletes is gone when the kill comes
            raise KeyboardInterrupt(super().experiment)

    first = CSVLogger(tmp_path, name=None, version="csv")
    for step in (1, 2, 3):
        first.log_metrics({"loss": 1 / step}, step)
    first.save()
    with pytest.raises(KeyboardInterrupt):
        continue_files([Killed(tmp_path, name=None, version="csv")], 2, {})
    assert not (tmp_path / "csv" / "metrics.csv").exists()
    again = CSVLogger(tmp_path, name=None, version="csv")
    continue_files([again], 2, {})
    again.log_metrics({"loss": 0.25}, 3)
    again.save()
    rows = list(csv.DictReader((tmp_path / "csv" / "metrics.csv").open(newline="")))
    assert [(row["step"], row["loss"]) for row in rows] == [("1", "1.0"), ("2", "0.5"), ("3", "0.25")]
    assert [path.name for path in (tmp_path / "csv").glob("metrics*")] == ["metrics.csv"]


def test_rows_after_the_checkpoint_go_though_they_count_the_same_update(tmp_path: Path) -> None:
    first = CSVLogger(tmp_path, name=None, version="csv")
    first.log_metrics({"a": 1.0}, 1)
    reached = flush([first])  # batches that update the critics alone follow, and a column that is new
    first.log_metrics({"a": 1.0, "b": 2.0}, 1)
    first.save()
    second = CSVLogger(tmp_path, name=None, version="csv")
    continue_files([second], 1, reached)
    second.log_metrics({"a": 3.0}, 2)
    second.save()
    rows = list(csv.DictReader((tmp_path / "csv" / "metrics.csv").open(newline="")))
    assert [(row["step"], row["a"]) for row in rows] == [("1", "1.0"), ("2", "3.0")]


def test_points_after_the_checkpoint_go_from_tensorboard(tmp_path: Path) -> None:
    def logger() -> TensorBoardLogger:
        return TensorBoardLogger(tmp_path, name=None, version="tensorboard", default_hp_metric=False)

    first = logger()
    first.log_metrics({"a": 1.0}, 1)
    reached = flush([first])
    first.log_metrics({"a": 2.0}, 1)
    first.save()
    late = logger()  # a start that was killed before its first checkpoint
    late.log_metrics({"a": 2.0}, 1)
    late.save()
    second = logger()
    continue_files([second], 1, reached)
    second.log_metrics({"a": 3.0}, 2)
    second.save()
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("a")
    assert [(point.step, point.value) for point in found] == [(1, 1.0), (2, 3.0)]
