"""The data benchmark: its files, its figures and their goals."""

import csv
import mmap
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gicinpaint import cli
from gicinpaint.benchmark import DataBenchmark, Figure
from gicinpaint.benchmark.data import make_photographs
from gicinpaint.benchmark.run import figure_table
from gicinpaint.masks import RectangleMask
from gicinpaint.training.run_record import resident_memory

SMALL = ["images=8", "batch_size=4", "items=16", "image_size=128"]


def run(*arguments: str, folder: Path) -> int:
    threads = torch.get_num_threads()
    try:
        return cli.main(["benchmark", "benchmark=data", *arguments, "limits.rounds=1", f"hydra.run.dir={folder}"])
    finally:
        torch.set_num_threads(threads)


def test_every_figure_is_measured_and_written_and_no_file_stays(tmp_path: Path, capsys) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    settings = [f"benchmark.{setting}" for setting in [*SMALL, f"scratch={scratch}"]]
    assert run(*settings, folder=tmp_path / "run") == 0
    with (tmp_path / "run" / "benchmark.csv").open(newline="") as file:
        rows = {row["what"]: row for row in csv.DictReader(file)}
    output = capsys.readouterr().out
    assert all(what in output for what in rows)
    values = {what: float(row["value"]) for what, row in rows.items()}
    for name in ("folder", "shards"):
        assert values[f"{name}: read, crop, flip, to values"] > 0
        added, share = values[f"{name}: holes and batches, all processes"], values[f"{name}: the same, of 1/150 s"]
        assert share == pytest.approx(added * 150 / 10, rel=1e-3)  # ms of 6.67 ms, in %
        read = 1000 / values[f"{name}: read, crop, flip, to values"]
        whole = 1000 / values[f"{name}: a worker's batches with holes"]
        inside = values[f"{name}: to values, where it trains"]
        assert added == pytest.approx(whole + inside - read, rel=1e-2, abs=1e-4)
    assert values["a worker after 4 images"] > 50  # an interpreter with torch, MB
    assert list(scratch.iterdir()) == []


def test_resident_memory_is_that_of_the_process_asked_for() -> None:
    before = resident_memory()
    block = mmap.mmap(-1, 30_000_000)  # pages of its own, never memory that was freed before
    np.frombuffer(block, np.uint8)[:] = 1
    assert 29e6 < resident_memory() - before < 40e6
    del block
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=max, args=(1, 2))
    process.start()
    assert 0 < resident_memory(process.pid) < before
    process.join()


def test_photographs_have_the_size_and_the_bytes_that_they_stand_for(tmp_path: Path) -> None:
    make_photographs(tmp_path / "files", 4)
    files = sorted((tmp_path / "files").iterdir())
    assert [Image.open(file).size for file in files] == [(500, 375)] * 4
    assert 50_000 < np.mean([file.stat().st_size for file in files]) < 66_000  # 105 GB / 1.8 million
    assert files[0].read_bytes() != files[1].read_bytes()


def test_a_goal_is_reached_or_missed_on_its_side() -> None:
    assert Figure("speed", "rate", 150, "images/s", least=150).verdict == "reached"
    assert Figure("speed", "rate", 149, "images/s", least=150).verdict == "missed"
    assert Figure("memory", "growth", 1.1, "%", most=1).verdict == "missed"
    assert Figure("memory", "growth", -2, "%", most=1).verdict == "reached"
    assert Figure("speed", "size", 58, "KB").verdict == ""
    lines = figure_table(
        [Figure("a", "rate", 2500, "images/s", 150), Figure("b", "growth", 2, "%", most=1)]
    ).splitlines()
    assert lines[1].split() == ["rate", "2,500", "images/s", "at", "least", "150", "reached"]
    assert lines[2] == ""  # between parts
    assert lines[3].split() == ["growth", "2", "%", "at", "most", "1", "missed"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parts": ["sped"]}, "parts must be among speed, memory, got 'sped'"),
        ({"images": 8}, "images at least batch_size and items at least twice that, got images=8"),
        ({"items": 31}, "items at least twice that, got images=256, batch_size=16 and items=31; choose larger ones"),
        ({"image_size": 0}, "numbers must be at least 1"),
    ],
)
def test_a_wrong_number_is_one_line(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataBenchmark(RectangleMask(), **settings)


def test_a_wrong_part_on_the_command_line_is_one_line(tmp_path: Path, capsys) -> None:
    assert run("benchmark.parts=[sped]", folder=tmp_path) == 1
    error = capsys.readouterr().err
    assert "parts must be among speed, memory, got 'sped'" in error
    assert len(error.strip().splitlines()) == 1
