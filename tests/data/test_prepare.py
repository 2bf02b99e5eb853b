"""The prepare job as a user runs it: shards that train, a report of bad images, one line for each mistake."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from PIL import Image

from gicinpaint import masks
from gicinpaint.cli import main
from gicinpaint.config.validation import build, check_configuration
from gicinpaint.data import ImageFiles, TarShards
from gicinpaint.training.train import READS


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for part, count in (("train", 30), ("val", 8)):
        (tmp_path / "photographs" / part).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 256, (72, 64 + number, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photographs" / part / f"{number:03d}.png")
    return tmp_path / "photographs"


def run(photographs: Path, *overrides: str) -> int:
    return main(["prepare", "dataset=folder", f"data_dir={photographs}", "workers=0", *overrides])


def test_packed_images_are_those_of_the_folder(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(photographs, "output=shards", "packing.images_per_shard=7") == 0
    said = capsys.readouterr().out
    assert "30 train and 8 val images" in said
    size = sum(path.stat().st_size for path in Path("shards/train").glob("*.tar"))
    assert f"train 30 images in 5 shards, {size / 1e6:.1f} MB\n" in said
    for part in ("train", "val"):
        folder, shards = ImageFiles(photographs / part), TarShards(Path("shards") / part)
        files = {folder.encoded(index) for index in range(len(folder))}
        assert {shards.encoded(index) for index in range(len(shards))} == files


def test_packing_takes_size_seed_and_errors_from_the_command_line(photographs: Path) -> None:
    (photographs / "train" / "007.png").write_bytes(b"")
    overrides = ("packing.short_side=32", "seed=5", "dataset.on_error=skip")
    assert run(photographs, "output=shards", *overrides) == 1  # 1 of 30 is more than 1 %
    for number in range(100, 200):
        Image.new("RGB", (40, 32), (number, 0, 0)).save(photographs / "train" / f"{number}.png")
    assert run(photographs, "output=others", *overrides) == 0
    manifest = json.loads(Path("others/manifest.json").read_text())
    assert manifest["packing"]["seed"] == 5
    assert manifest["parts"]["train"]["images"] == 129
    assert "007.png" in manifest["parts"]["train"]["skipped"][0]
    shards = TarShards(Path("others/train"))
    assert {min(shards.read(index).size) for index in range(len(shards))} == {32}


def test_a_check_reports_bad_and_small_images_and_fails(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(photographs, "check=true", "report=first.txt", "dataset.image_size=64") == 0
    (photographs / "val" / "003.png").write_bytes(b"no picture")
    assert run(photographs, "check=true", "report=second.txt", "dataset.image_size=[72,66]") == 1
    assert "3 of 38 images cannot be used; 'second.txt' names them" in capsys.readouterr().err
    lines = Path("second.txt").read_text().splitlines()[1:]
    assert [line.split("\t")[:2] for line in lines] == [["train", "0"], ["train", "1"], ["val", "3"]]  # 64, 65 wide


@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        ((), 2, "output: a folder for the shards is missing; set it with output=<folder>"),
        (("output=photographs",), 1, "photographs' holds other files; choose an empty folder as output"),
        (("output=photographs/train/000.png",), 1, "photographs/train/000.png"),
        (("output=x", "packing.quality=0"), 1, "quality must lie in 1..100, got 0"),
        (("output=x", "packing.short_sides=512"), 2, "did you mean packing.short_side"),
        (("output=x", "workers=-1"), 2, "workers: expected 0 or more, got -1"),
        (("output=x", "dataset.train.path=nowhere"), 1, "nowhere', which does not exist"),
    ],
)
def test_a_mistake_is_one_line(
    photographs: Path, overrides: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(photographs, *overrides) == code
    assert message in capsys.readouterr().err


def test_a_bad_image_stops_packing_with_its_name(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photographs / "train" / "004.png").write_bytes(b"")
    assert run(photographs, "output=shards") == 1
    assert "004.png': the file is empty" in capsys.readouterr().err


@pytest.mark.parametrize("preset", ["paper_center", "paper_random", "free_form"])
def test_a_preset_gives_validation_the_holes_of_its_manifest(photographs: Path, preset: str) -> None:
    overrides = [f"eval_mask@dataset.validation_mask={preset}", "dataset=folder", f"data_dir={photographs}", "seed=4"]
    small = ["mask.box=16", "mask.inset=2", "dataset.validation_mask.box=16", "dataset.image_size=48"]
    with initialize_config_module("gicinpaint.conf", version_base="1.3"):
        config = compose("train", overrides=[*overrides, *small, f"output={photographs}", "dataset.workers=0"])
    check_configuration(config, READS)
    data = build(config.dataset)
    drawn = torch.cat([batch.mask for batch in data.val_dataloader()])
    expected, _ = getattr(masks, preset)(box=16, seed=4)(range(8), 48, 48)
    assert torch.equal(drawn, expected)


@pytest.mark.slow
def test_the_killed_command_ends_with_the_shards_of_an_undisturbed_one(photographs: Path) -> None:
    for number in range(1500):
        Image.new("RGB", (700, 600), (number % 256, number // 256, 9)).save(photographs / "train" / f"{number}.bmp")

    def command(output: str) -> list[str]:
        job = [sys.executable, "-m", "gicinpaint.cli", "prepare", "dataset=folder", f"data_dir={photographs}"]
        return [*job, f"output={output}", "workers=2", "packing.images_per_shard=20", "packing.short_side=256"]

    def contents(folder: str) -> dict[str, bytes]:
        files = (path for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock")
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    subprocess.run(command("undisturbed"), check=True, capture_output=True)
    chance, killed, grown = random.Random(1), 0, []
    for _ in range(10):
        process = subprocess.Popen(command("disturbed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(3, 7))  # the first seconds go to imports
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        grown.append(len(list(Path("disturbed").rglob("*.tar"))))
    assert killed >= 5
    assert grown == sorted(grown)
    subprocess.run(command("disturbed"), check=True, capture_output=True)
    assert contents("disturbed") == contents("undisturbed")
