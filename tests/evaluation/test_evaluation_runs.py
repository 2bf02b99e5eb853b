"""A multirun as one comparison, from the files that the train job leaves."""

import csv
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from gicinpaint.cli import main
from gicinpaint.config.validation import JobError
from gicinpaint.evaluation.compare import PANELS, band, by_setting, draw_curves, figure_class, find_runs
from gicinpaint.models.generator import CoarseGenerator

SIZE = 32
L1, PSNR = "validation/completed/hole/l1", "validation/completed/hole/psnr"


def save_run(folder: Path, overrides: list[str], seed: int, logged: dict[int, tuple[float, float]] | None) -> Path:
    """Write what a training run leaves behind; the weights depend on the seed."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump({"seed": seed, "dataset": {"image_size": 16}}))
    torch.manual_seed(seed)
    state = {f"generator.{key}": value for key, value in CoarseGenerator(width=4).state_dict().items()}
    settings = {"_target_": "gicinpaint.models.generator.CoarseGenerator", "width": 4, "padding": "zeros"}
    (folder / "checkpoints").mkdir()
    torch.save({"state_dict": state, "config": {"generator": settings}}, folder / "checkpoints" / "last.ckpt")
    if logged is not None:
        (folder / "csv").mkdir()
        with (folder / "csv" / "metrics.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", "step", "train/generator/total", L1, PSNR])
            for step, (l1, psnr) in logged.items():
                writer.writerow([0, step - 5, 2.5, "", ""])  # as training rows are: without validation values
                writer.writerow([0, step, "", l1, psnr])
    return folder


@pytest.fixture
def multirun(tmp_path: Path) -> Path:
    """Two settings, the first with two seeds; run 10 comes after run 2."""
    folder = tmp_path / "multirun"
    save_run(folder / "0", ["model=a", "seed=0", "updates=30"], 0, {10: (9.0, 15.0), 20: (8.0, 16.0)})
    save_run(folder / "2", ["model=a", "seed=1", "updates=30"], 1, {10: (11.0, 14.0), 20: (6.0, 17.0)})
    save_run(folder / "10", ["model=b", "seed=0", "updates=30"], 2, {10: (7.0, 18.0)})
    (folder / "3" / ".hydra").mkdir(parents=True)
    (folder / "3" / ".hydra" / "overrides.yaml").write_text("[model=c]")  # stopped before it saved anything
    return folder


def test_runs_are_named_by_what_differs_and_ordered_by_number(multirun: Path) -> None:
    runs = find_runs(multirun)
    assert [run.folder.name for run in runs] == ["0", "2", "10"]
    assert [(run.setting, run.seed) for run in runs] == [("a", 0), ("a", 1), ("b", 2)]  # seeds as configured
    assert [run.name for run in runs] == ["a seed 0", "a seed 1", "b seed 2"]
    assert runs[0].image_size == (16, 16)
    assert {setting: len(members) for setting, members in by_setting(runs).items()} == {"a": 2, "b": 1}


def test_several_differences_are_named_with_their_keys(multirun: Path) -> None:
    save_run(multirun / "11", ["model=b", "+loss.x=3", "seed=0", "updates=30"], 0, None)
    assert [run.setting for run in find_runs(multirun)] == ["model=a", "model=a", "model=b", "model=b loss.x=3"]


def test_settings_with_long_descriptions_are_named_by_their_first_folder(tmp_path: Path) -> None:
    for name, size, seed in (("wide", 64, 0), ("wide again", 64, 1), ("narrow", 32, 0)):
        changes = [
            f"{key}={size}" for key in ("dataset.image_size", "model.generator.width", "trainer.val_check_interval")
        ]
        save_run(tmp_path / name, [*changes, f"seed={seed}"], seed, None)
    names = [run.name for run in find_runs(tmp_path)]
    assert names == ["narrow seed 0", "wide seed 0", "wide seed 1"]


def test_runs_of_one_setting_have_a_name(tmp_path: Path) -> None:
    save_run(tmp_path / "0", ["seed=4"], 4, None)
    assert [run.name for run in find_runs(tmp_path)] == ["default seed 4"]


def test_runs_of_one_setting_and_seed_keep_names_of_their_own(tmp_path: Path) -> None:
    for time in ("monday", "tuesday"):
        save_run(tmp_path / time / "0", ["seed=4"], 4, None)
    assert [run.name for run in find_runs(tmp_path)] == ["default seed 4 monday_0", "default seed 4 tuesday_0"]


def test_logged_values_are_read_by_generator_updates(multirun: Path) -> None:
    run = find_runs(multirun)[0]
    assert run.logged(L1) == [(10.0, 9.0), (20.0, 8.0)]
    assert run.logged("train/generator/total") == [(5.0, 2.5), (15.0, 2.5)]
    assert run.logged("absent") == []


def test_bands_reach_from_the_smallest_to_the_largest_seed() -> None:
    found = band([[(10.0, 9.0), (20.0, 8.0)], [(10.0, 11.0), (20.0, 5.0), (20.0, 7.0)], []])
    assert found == [(10.0, 10.0, 9.0, 11.0), (20.0, 7.0, 6.0, 8.0)]


def test_curves_show_the_means_of_each_setting(multirun: Path) -> None:
    figure = draw_curves(find_runs(multirun))
    panels = {ax.get_title(): ax for ax in figure.axes}
    assert set(panels) == {PANELS[L1], PANELS[PSNR], PANELS["train/generator/total"]}
    lines = {line.get_label(): line.get_xydata().tolist() for line in panels[PANELS[L1]].lines}
    assert lines == {"a (2)": [[10.0, 10.0], [20.0, 7.0]], "b (1)": [[10.0, 7.0]]}
    edges = panels[PANELS[L1]].collections[0].get_paths()[0].vertices
    assert {(10.0, 9.0), (10.0, 11.0), (20.0, 6.0), (20.0, 8.0)} <= {tuple(point) for point in edges.tolist()}


@pytest.mark.parametrize("count", [3, 14])
def test_a_setting_has_one_colour_in_all_panels_and_in_the_legend_and_no_other_setting_has_it(
    count: int, tmp_path: Path
) -> None:
    """The colours are read from the drawn pixels too; setting 0 logs no PSNR, the last one nothing but PSNR."""
    for number in range(count):
        save_run(tmp_path / str(number), ["seed=0", f"model=m{number:02}"], 0, None)
        wanted = {L1: number < count - 1, PSNR: number > 0}
        rows = [f"{updates},{','.join('5' if on else '' for on in wanted.values())}" for updates in (10, 20)]
        (tmp_path / str(number) / "csv").mkdir()
        (tmp_path / str(number) / "csv" / "metrics.csv").write_text("\n".join([f"step,{L1},{PSNR}", *rows]))
    figure = draw_curves(find_runs(tmp_path))
    rgb = pytest.importorskip("matplotlib.colors").to_rgb
    found: dict[str, set[tuple[float, ...]]] = {}
    for ax in figure.axes:
        assert len(ax.lines) == count - 1
        for line, area in zip(ax.lines, ax.collections, strict=True):
            found.setdefault(line.get_label(), set()).update((rgb(line.get_color()), rgb(area.get_facecolor()[0])))
    assert {len(colours) for colours in found.values()} == {1}
    assert len(set.union(*found.values())) == count
    (legend,) = figure.legends
    named = zip(legend.get_texts(), legend.get_lines(), strict=True)
    assert {text.get_text(): {rgb(line.get_color())} for text, line in named} == found
    figure.savefig(tmp_path / "curves.png")
    drawn = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")).reshape(-1, 3).astype(int)
    for (colour,) in found.values():
        assert (np.abs(drawn - np.multiply(colour, 255)).max(1) <= 2).sum() > 20


def test_runs_without_logs_have_no_curves(tmp_path: Path) -> None:
    save_run(tmp_path / "0", ["seed=0"], 0, None)
    assert draw_curves(find_runs(tmp_path)) is None


def test_missing_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # importing it fails
    with pytest.raises(JobError, match=r"need matplotlib; install the extra: pip install 'gicinpaint\[plots\]'"):
        figure_class()


def test_a_folder_without_runs_is_reported(multirun: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"found 1 with \.hydra/overrides\.yaml, none of them with checkpoints/last"):
        find_runs(multirun / "3")
    with pytest.raises(JobError, match="which does not exist"):
        find_runs(tmp_path / "nowhere")


def test_the_job_measures_all_runs_and_writes_one_comparison(
    multirun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "val").mkdir()
    for number in range(3):
        levels = random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(levels).save(tmp_path / "val" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    small = ["dataset=folder", "dataset.validation.path=val", f"dataset.image_size={SIZE}", "eval_mask.box=[16,16]"]
    arguments = ["evaluate", *small, "method=none", f"runs={multirun}", "output=out", "accelerator=cpu"]
    assert main(arguments) == 0
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        measured = {row["method"]: float(row["hole/l1"]) for row in csv.DictReader(file)}
    assert list(measured) == ["a seed 0", "a seed 1", "b seed 2"]
    with (tmp_path / "out" / "settings.csv").open(newline="") as file:
        rows = {row["setting"]: row for row in csv.DictReader(file)}
    seeds = [measured["a seed 0"], measured["a seed 1"]]
    assert rows["a"]["L1 %"] == f"{statistics.fmean(seeds):.2f} ± {statistics.stdev(seeds):.2f}"
    assert (rows["a"]["seeds"], rows["a"]["updates"]) == ("2", "20")
    assert rows["b"]["L1 %"] == f"{measured['b seed 2']:.2f}"
    with Image.open(tmp_path / "out" / "results.png") as picture:
        assert picture.width == 5 * 128 + 4 * 4  # input, three runs, ground truth, and gaps; enlarged for the titles
    assert (tmp_path / "out" / "curves.png").is_file()
    output = capsys.readouterr().out
    assert "trained on images of another size than 32x32: a seed 0, a seed 1, b seed 2" in output
    assert (tmp_path / "out" / "settings.md").read_text().startswith("| setting | seeds | updates | L1 % |")
