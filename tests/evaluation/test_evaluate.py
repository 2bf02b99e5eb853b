"""The evaluate job in real processes, small: its files, repeats, several processes, interruptions, mistakes."""

import csv
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gicinpaint.cli import main
from gicinpaint.masks import paper_center
from gicinpaint.models.generator import Generator
from models import save_inception
from wandb_files import read_offline_run

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # the published network has this format
ROOT = Path(__file__).parents[2]
SIZE = 32


SMALL = ("dataset=folder", f"dataset.image_size={SIZE}", "accelerator=cpu")
BOX = "eval_mask.box=[16,16]"


def evaluate(*overrides: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "evaluate.py"), *SMALL, BOX, *overrides]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def save_checkpoint(path: Path) -> Path:
    """Write what the train job writes, with random weights."""
    torch.manual_seed(0)
    generator = Generator(width=4)
    state = {f"generator.{key}": value for key, value in generator.state_dict().items()}
    settings = {"_target_": "gicinpaint.models.generator.Generator", "width": 4, "padding": "zeros"}
    settings |= {"attention": {"_target_": "gicinpaint.attention.ContextualAttention"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state, "config": {"generator": settings}}, path)
    return path


def save_alexnet(path: Path) -> None:
    """Write random weights of AlexNet's sizes, which the published heads fit."""
    random = torch.Generator().manual_seed(0)
    sizes = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
    state = {}
    for number, (after, before, size) in sizes.items():
        state[f"features.{number}.weight"] = (
            torch.randn(after, before, size, size, generator=random) / size / before**0.5
        )
        state[f"features.{number}.bias"] = torch.zeros(after)
    torch.save(state, path)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs and a checkpoint."""
    folder = tmp_path_factory.mktemp("an evaluation")
    random = np.random.default_rng(0)
    (folder / "val").mkdir()
    for number in range(7):
        levels = random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / "val" / f"{number}.png")
    save_checkpoint(folder / "net.ckpt")
    save_alexnet(folder / "alexnet.pth")
    save_inception(folder)
    return folder


METHODS = ("dataset.validation.path=val", "+checkpoints.net=net.ckpt")
METHODS += ("metrics.lpips=alexnet.pth", "metrics.fid=inception.pt")


@pytest.fixture(scope="module")
def finished(work: Path) -> subprocess.CompletedProcess[str]:
    return evaluate(*METHODS, "output=first", "published=true", "pictures=2", folder=work)


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return {row.pop("method"): row for row in csv.DictReader(file)}


def test_the_terminal_shows_the_table_and_where_everything_is(
    finished: subprocess.CompletedProcess[str],
) -> None:
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    lines = finished.stdout.splitlines()
    names = (
        "mean colour",
        "telea",
        "navier stokes",
        "membrane",
        "biharmonic",
        "patchmatch",
        "net",
        "full model (published)",
    )
    for name in names:
        assert any(line.startswith(f"{name} ") for line in lines), name
    assert any("protocol not published" in line for line in lines)
    assert lines[-1] == "everything is in first"


def test_an_offline_run_of_wandb_holds_each_row_with_its_pictures_and_the_hole_over_them(
    work: Path, finished: subprocess.CompletedProcess[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not (work / "first" / "wandb").exists()  # without being asked
    for name in [name for name in os.environ if "WANDB" in name]:  # the service of this process lies elsewhere
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(work / "staging"))
    methods = ("dataset.validation.path=val", "method=none", "+checkpoints.net=net.ckpt", "+checkpoints.same=net.ckpt")
    result = evaluate(*methods, "output=sent", "pictures=2", "wandb=mine", folder=work)
    assert result.returncode == 0, result.stderr
    (folder,) = (work / "sent" / "wandb").glob("offline-run-*")
    assert f"wandb sync {folder.relative_to(work)}" in result.stdout
    run = read_offline_run(folder)
    assert (run.run.project, run.run.job_type) == ("mine", "evaluate")
    files = {content.path: Path(content.local_path) for one in run.artifacts for content in one.manifest.contents}
    table = json.loads(files["evaluation/images.table.json"].read_text())
    with (work / "sent" / "images.csv").open(newline="") as file:
        measured = {(row["name"], row["method"]): row for row in csv.DictReader(file)}
    hole = np.zeros((SIZE, SIZE), np.uint8)
    hole[8:24, 8:24] = 1
    seen = []
    for cells in table["data"]:
        row = dict(zip(table["columns"], cells, strict=True))
        seen.append((row["image"], row["method"]))
        assert row["hole/psnr"] == pytest.approx(float(measured[seen[-1]]["hole/psnr"]))
        number = Path(row["image"]).stem
        kept = {"ground truth": f"val/{number}.png", "completed": f"sent/completed/{row['method']}/{number:0>6}.png"}
        for column, path in kept.items():
            overlay = row[column]["masks"]["hole"]
            assert np.array_equal(
                np.asarray(Image.open(files[row[column]["path"]])), np.asarray(Image.open(work / path))
            )
            assert np.array_equal(np.asarray(Image.open(files[overlay["path"]])), hole)
    assert len(set(seen)) == len(seen) == 4
    table = json.loads(files["evaluation/methods.table.json"].read_text())
    means = {cells[0]: dict(zip(table["columns"], cells, strict=True)) for cells in table["data"]}
    assert means["net"]["hole/l1"] == pytest.approx(float(rows(work / "sent")["net"]["hole/l1"]))


def test_the_numbers_are_those_of_a_slow_computation(work: Path, finished: subprocess.CompletedProcess[str]) -> None:
    """The mean colour, from the files alone: a hole of 16x16 in the middle of 32x32."""
    hole = np.zeros((SIZE, SIZE), bool)
    hole[8:24, 8:24] = True
    l1, psnr = [], []
    for number in range(7):
        image = np.asarray(Image.open(work / "val" / f"{number}.png")).astype(np.float64) / 255
        difference = image[hole] - image[~hole].mean(0)
        l1.append(100 * np.abs(difference).mean())
        psnr.append(-10 * math.log10((difference**2).mean()))
    found = rows(work / "first")["mean_colour"]
    assert float(found["hole/l1"]) == pytest.approx(np.mean(l1), rel=1e-6)
    assert float(found["hole/psnr"]) == pytest.approx(np.mean(psnr), rel=1e-6)
    assert found["images"] == "7"


def test_the_record_holds_everything_needed_to_repeat_it(
    work: Path, finished: subprocess.CompletedProcess[str]
) -> None:
    record = json.loads((work / "first" / "results.json").read_text())
    levels = b"".join(np.asarray(Image.open(work / "val" / f"{n}.png")).transpose(2, 0, 1).tobytes() for n in range(7))
    assert record["images"]["sha256"] == hashlib.sha256(levels).hexdigest()
    assert record["masks"] == paper_center((16, 16)).manifest(7, SIZE, SIZE)
    assert record["methods"]["net"]["sha256"]
    assert record["seed"] == 0
    assert record["config"]["eval_mask"]["box"] == [16, 16]
    assert record["versions"]["torch"] == torch.__version__
    assert record["device"]["type"] == "cpu"
    assert "dataset.validation.path=val" in record["command"]
    assert {"commit", "modified"} <= record["git"].keys()
    assert set(record["results"]) == {
        "mean_colour",
        "telea",
        "navier_stokes",
        "membrane",
        "biharmonic",
        "patchmatch",
        "net",
    }
    assert all(r["seconds_per_image"] > 0 and r["peak_memory_mib"] >= 0 for r in record["results"].values())


def test_markdown_and_picture_are_there(work: Path, finished: subprocess.CompletedProcess[str]) -> None:
    markdown = (work / "first" / "results.md").read_text()
    assert "| net | " in markdown
    assert "masks paper_center (SHA-256 " in markdown
    with Image.open(work / "first" / "results.png") as picture:
        assert picture.width == 9 * 128 + 8 * 4  # input, seven methods, ground truth, and gaps; enlarged for the titles
        right = np.asarray(picture.convert("RGB"))[-128::4, -128::4]
    np.testing.assert_array_equal(right, np.asarray(Image.open(work / "val" / "5.png")))  # (2 * 1 + 1) * 7 // 4 = 5


def test_a_second_run_writes_the_same_csv_to_the_byte(work: Path, finished: subprocess.CompletedProcess[str]) -> None:
    again = evaluate(*METHODS, "output=second", "published=true", "pictures=2", folder=work)
    assert again.returncode == 0, again.stderr
    for name in ("results.csv", "images.csv"):
        assert (work / "second" / name).read_bytes() == (work / "first" / name).read_bytes()


def test_two_processes_give_the_numbers_of_one(work: Path, finished: subprocess.CompletedProcess[str]) -> None:
    result = evaluate(*METHODS, "output=two", "devices=2", "batch_size=2", folder=work)
    assert result.returncode == 0, result.stderr
    one, two = rows(work / "first"), rows(work / "two")
    for method, values in two.items():
        for column, value in values.items():
            assert float(value) == pytest.approx(float(one[method][column]), abs=1e-6), (method, column)
    assert {"lpips", "fid"} <= two["net"].keys()
    alone, shared = (list(csv.reader((work / name / "images.csv").open(newline=""))) for name in ("first", "two"))
    assert [row[:4] for row in alone] == [row[:4] for row in shared]  # method, number, name, groups
    for left, right in zip(alone[1:], shared[1:], strict=True):
        assert [float(x) for x in right[4:]] == pytest.approx([float(x) for x in left[4:]], abs=1e-6), left[:3]


def test_finished_methods_are_not_measured_again(work: Path, finished: subprocess.CompletedProcess[str]) -> None:
    path = shutil.copytree(work / "first", work / "again") / "methods" / "telea.json"
    kept = json.loads(path.read_text())
    kept["values"]["hole/l1"] = 77.0  # shows whether it was read or measured
    path.write_text(json.dumps(kept))
    result = evaluate(*METHODS, "output=again", "published=true", "pictures=2", folder=work)
    assert result.returncode == 0, result.stderr
    assert rows(work / "again")["telea"]["hole/l1"] == "77.0"
    assert "telea" not in result.stderr  # no progress bar of it


MISTAKES = [
    (["dataset.validation.path=nowhere"], 1, "nowhere"),
    (["dataset.validation.path=empty"], 1, "found none"),
    (["+checkpoints.net=absent.ckpt"], 1, "net: absent.ckpt must be a model's file or folder"),
    (["+checkpoints.net=val/0.png"], 1, "net: val/0.png"),
    (["eval_mask=files", "eval_mask.path=masks"], 1, "must have the images' size, 32x32, got 12x16"),
    (["eval_mask.box=[64,64]"], 1, "eval_mask: box 64x64 must fit the image 32x32"),
    (["count=0"], 1, "count must lie in 1..7"),
    (["count=8"], 1, "count must lie in 1..7"),
    (["method=none"], 1, "there is no method to evaluate"),
    (["~method"], 1, "there is no method to evaluate"),
    (["metrics.lpips=absent.pth"], 1, "absent.pth must hold weights of AlexNet or VGG16"),
    (["metrics.fid=net.ckpt"], 1, "net.ckpt must hold a TorchScript network"),
    (
        ["dataset.image_size=8", "eval_mask.box=[4,4]"],
        1,
        "dataset.image_size: SSIM needs images of at least 11x11, got 8x8",
    ),
    (["output=net.ckpt"], 1, "output: cannot make the folder net.ckpt: File exists; name another"),
    (["+checkpoints.net=alexnet.pth"], 1, "net: alexnet.pth must be a checkpoint"),
    (["runs=empty"], 1, "runs: looked for training runs in empty: found 0"),
    (["runs=nowhere"], 1, "runs: looked for training runs in nowhere, which does not exist"),
    (
        ["runs=val/0.png"],
        1,
        "runs must be a multirun's folder, got the file val/0.png; a checkpoint is +checkpoints.NAME=FILE",
    ),
    (["accelerator=abacus"], 1, "accelerator:"),
    (["batch_size=0"], 2, "batch_size: expected 1 or more, got 0"),
    (["method=clasical"], 2, "did you mean method=classical"),
    (["+method.telea.radios=3"], 2, "takes no such value; did you mean method.telea.radius"),
]


@pytest.mark.parametrize(("overrides", "code", "expected"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_a_mistake_is_one_line_and_a_non_zero_exit(
    overrides: list[str],
    code: int,
    expected: str,
    work: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (work / "empty").mkdir(exist_ok=True)
    (work / "masks").mkdir(exist_ok=True)
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(work / "masks" / "mask.png")
    monkeypatch.chdir(work)
    box = [] if "eval_mask=files" in overrides else [BOX]
    assert main(["evaluate", *SMALL, *box, "dataset.validation.path=val", f"output={tmp_path}", *overrides]) == code
    complaint = capsys.readouterr().err
    assert expected in complaint
    assert len(complaint.strip().splitlines()) == 1, complaint
    assert not (tmp_path / "results.csv").exists()


def test_the_page_names_groups_and_settings(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "evaluate.py"), "--help"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0
    for text in ("paper_center", "classical", "+checkpoints.<name>=FILE", "published=", "--cfg job"):
        assert text in result.stdout
    assert "_target_" not in result.stdout
