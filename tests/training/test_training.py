"""The train job in real processes, small: what it prints, what it leaves behind, and several processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from runs import ROOT, SMALL


def train(*overrides: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train.py"), *overrides, *SMALL]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("a run")
    return folder, train("output=out", folder=folder)


def test_a_run_ends_with_table_picture_and_checkpoint(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, result = finished
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    header = next(line for line in lines if "L1 %" in line)
    assert " ".join(header.split()) == "in the hole L1 % L2 % PSNR dB TV % TV ratio patch distance"
    rows = {line[:14].strip(): [float(x) for x in line[14:].split()] for line in lines if line.count(".") == 6}
    assert set(rows) == {"mean colour", "coarse", "completed"}
    for l1, l2, psnr, *_ in rows.values():
        assert 0 < l2 < l1 < 100
        assert psnr >= -10 * np.log10(l2 / 100) - 0.02  # the mean of logarithms is no less than that of the mean
    picture = Image.open(folder / next(line.split()[-1] for line in lines if line.startswith("picture")))
    # input, coarse, completed, offsets, ground truth, each enlarged from 32 to 128 pixels, and gaps
    assert picture.width == 5 * 128 + 4 * 4
    assert "Traceback" not in result.stderr


def test_the_checkpoint_is_plain_data_that_counts_generator_updates(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    checkpoint = torch.load(finished[0] / "out" / "checkpoints" / "last.ckpt", weights_only=True)
    # one warm-up batch updates the generator; then every second batch does, counted from the first
    assert checkpoint["counters"] == {"batches_seen": 4, "generator_updates": 3}
    assert checkpoint["config"]["generator"]["width"] == 4
    assert not list((finished[0] / "out" / "checkpoints").glob(".*"))  # nothing half-written stays


def test_two_runs_of_one_seed_end_with_the_same_weights(
    finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    assert train("output=out", folder=tmp_path).returncode == 0
    again = weights(tmp_path / "out")
    for name, value in weights(finished[0] / "out").items():
        assert torch.equal(value, again[name]), name


def test_multirun_trains_every_backend_to_the_same_losses(tmp_path: Path) -> None:
    backends = sorted(path.stem for path in (ROOT / "conf" / "attention").glob("*.yaml") if path.stem != "triton")
    result = train(
        "-m",
        f"attention={','.join(backends)}",
        "output=${hydra:runtime.output_dir}",
        "trainer.log_every_n_steps=1",
        "trainer.precision=64-true",  # in single precision the steps enlarge the rounding, to 2e-3 after five
        folder=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    tables = [np.genfromtxt(p, delimiter=",", names=True) for p in sorted(tmp_path.rglob("metrics.csv"))]
    assert len(tables) == len(backends)
    columns = [name for name in tables[0].dtype.names if name.startswith("train")]
    assert columns
    for table in tables[1:]:
        for name in columns:
            np.testing.assert_allclose(table[name], tables[0][name], rtol=1e-6, atol=1e-9, err_msg=name)


def test_a_batch_that_the_devices_cannot_share_is_refused_before_they_start(tmp_path: Path) -> None:
    result = train("trainer.devices=3", "trainer.accelerator=cpu", folder=tmp_path)
    assert result.returncode == 1
    line = "dataset: batch_size is the global batch and must be a positive multiple of the 3 processes, got 4; use 3"
    assert result.stderr.splitlines()[-1] == f"gicinpaint: {line}"
    assert "Initializing distributed" not in result.stderr
    assert "Traceback" not in result.stderr
