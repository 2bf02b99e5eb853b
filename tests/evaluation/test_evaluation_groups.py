"""Tables for kinds of images, and numbers image by image: from slow averages over the files."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gicinpaint.cli import main
from gicinpaint.config.validation import JobError
from gicinpaint.evaluation import measuring as measuring_module
from gicinpaint.evaluation.measuring import MethodResult
from gicinpaint.evaluation.tables import group_images, write_groups, write_images
from gicinpaint.models.compositing import fill_with_mean as mean_colour
from measurements import measurement

SIZE = 32
NAMES = ["../data/faces/val/1.jpg", "../data/faces/val/2.jpg", "../data/scenes/val/1.jpg", "../data/textures/val/1.jpg"]


def test_groups_by_folder_are_those_where_paths_part() -> None:
    assert group_images(NAMES, "folders") == {"faces": [0, 1], "scenes": [2], "textures": [3]}
    assert group_images(["val/b/1.png", "val/a/x/1.png", "val/2.png"], "folders") == {".": [2], "a": [1], "b": [0]}


def test_groups_by_patterns_may_share_images_and_leave_some_out() -> None:
    wanted = {"faces": "*/faces/*", "all first": ["*/faces/val/1.jpg", "*/scenes/*"]}
    assert group_images(NAMES, wanted) == {"faces": [0, 1], "all first": [0, 2]}
    assert group_images(NAMES, {}) == {}


def test_groups_that_cannot_be_are_reported() -> None:
    with pytest.raises(
        JobError, match=r"groups=folders: expected images in several folders, got all 2 in .*faces/val;"
    ):
        group_images(NAMES[:2], "folders")
    with pytest.raises(JobError, match="got all 2 in one; name patterns"):
        group_images(["a.png", "b.png"], "folders")
    with pytest.raises(JobError, match=r"groups\.people: expected a pattern that fits images, got \*man\*, which fits"):
        group_images(NAMES, {"faces": "*/faces/*", "people": ["*man*"]})


def results() -> dict[str, MethodResult]:
    """Two methods, three images; the second image has no relative error, the third is perfect."""
    each = {"hole/l1": [10.0, 20.0, 0.0], "hole/psnr": [12.0, 14.0, math.inf], "relative/l1": [1.0, None, 3.0]}
    other = {column: [None if v is None else v + 1 for v in values] for column, values in each.items()}
    return {"mean_colour": MethodResult({}, 3, 0.1, 1.0, each), "telea": MethodResult({"fid": 5.0}, 3, 0.1, 1.0, other)}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_groups_row_is_the_average_over_its_images(tmp_path: Path) -> None:
    text = write_groups({"a": [0, 1], "b": [1, 2], "c": [1]}, results(), tmp_path)
    rows = {(row["group"], row["method"]): row for row in read(tmp_path / "groups.csv")}
    assert rows["a", "mean_colour"]["hole/l1"] == "15.0"
    assert rows["a", "mean_colour"]["relative/l1"] == "1.0"  # of the one image that has it
    assert rows["b", "telea"]["hole/l1"] == "11.0"
    assert rows["b", "telea"]["hole/psnr"] == "inf"
    assert rows["c", "telea"]["relative/l1"] == ""
    assert {row["images"] for row in rows.values()} == {"1", "2"}
    assert [*rows] == [(group, method) for group in "abc" for method in ("mean_colour", "telea")]
    markdown = (tmp_path / "groups.md").read_text()
    assert "| method | a | b | c |\n| --- | ---: | ---: | ---: |\n| mean colour | 15.00 | 10.00 | 20.00 |" in markdown
    assert "### b, images: 2\n\n| method | L1 % | PSNR dB | relative L1 % |" in markdown
    assert "| telea | 11.00 | inf | 4.00 |" in markdown
    assert "fid" not in markdown.lower()  # it is a number of the whole set
    assert any(line.split() == ["telea", "16.00", "14.00", "2.00"] for line in text)


def test_a_group_has_the_tv_ratio_and_the_patch_distance_of_its_images_alone(tmp_path: Path) -> None:
    groups = {"some": [0, 3, 5], "all": range(7)}
    result = measurement(tmp_path, groups=groups).run("mean", lambda: mean_colour, {})
    write_groups(groups, {"mean": result}, tmp_path)
    some, everything = read(tmp_path / "groups.csv")
    work = measurement(tmp_path)
    alone = work.metrics.clone()
    for index in groups["some"]:
        image, mask = work.images[index][None], work.masks([index], SIZE, SIZE)[0]
        alone.update(mean_colour(image, mask), image, mask)
    for column in ("hole/tv_ratio", "hole/patch_distance", "hole/patch_distance_15", "hole/l1"):
        assert float(some[column]) == pytest.approx(alone[column].compute().item(), rel=1e-5), column
        assert float(everything[column]) == pytest.approx(result.values[column], rel=1e-12), column
        assert 0 < float(some[column]) != float(everything[column])


def test_every_image_has_a_row_for_each_method(tmp_path: Path) -> None:
    write_images(["1.png", "2.png", "3, of 3.png"], {"a": [0, 1], "b": [1]}, results(), tmp_path)
    rows = read(tmp_path / "images.csv")
    assert [(row["method"], row["name"]) for row in rows[2:4]] == [("mean_colour", "3, of 3.png"), ("telea", "1.png")]
    assert [row["groups"] for row in rows[:3]] == ["a", "a b", ""]
    assert rows[1] == {
        "method": "mean_colour",
        "image": "1",
        "name": "2.png",
        "groups": "a b",
        "hole/l1": "20.0",
        "hole/psnr": "14.0",
        "relative/l1": "",
    }


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_the_numbers_of_the_images_average_to_the_table(batch_size: int, tmp_path: Path) -> None:
    result = measurement(tmp_path, batch_size=batch_size).run("mean", lambda: mean_colour, {})
    assert result.each.keys() == result.values.keys() - {"hole/patch_distance", "hole/patch_distance_15"}  # of sets
    targets = result.each["target/hole/tv"]
    for column, values in result.each.items():
        assert len(values) == 7
        weights = targets if column == "hole/tv_ratio" else None  # a ratio of averages
        assert np.average(values, weights=weights) == pytest.approx(result.values[column], rel=1e-12), column


def test_an_image_has_the_number_that_it_has_alone(tmp_path: Path) -> None:
    work = measurement(tmp_path)
    result = work.run("mean", lambda: mean_colour, {})
    for index in (0, 4, 6):
        image, mask = work.images[index][None], work.masks([index], SIZE, SIZE)[0]
        alone = work.metrics.clone()
        alone.update(mean_colour(image, mask), image, mask)
        for column, value in alone.compute().items():
            if "patch_distance" in column:
                assert column not in result.each
                continue
            assert result.each[column][index] == pytest.approx(value.item(), rel=1e-5), column


def test_a_black_image_without_a_relative_error_has_none(tmp_path: Path) -> None:
    work = measurement(tmp_path)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "photographs" / "photograph 2.png")
    result = work.run("mean", lambda: mean_colour, {})
    assert [value is None for value in result.each["relative/l1"]] == [False, False, True, False, False, False, False]
    assert None not in result.each["hole/l1"]


def test_an_interruption_loses_no_images_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring_module, "_SECONDS_BETWEEN_SAVES", 0.0)
    groups = {"some": [0, 3, 5]}
    work, calls = measurement(tmp_path / "a", groups=groups), []

    def stops_at_the_second(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return mean_colour(image, mask)

    with pytest.raises(KeyboardInterrupt):
        work.run("mean", lambda: stops_at_the_second, {})
    result = work.run("mean", lambda: mean_colour, {})
    other = measurement(tmp_path / "b", groups=groups).run("mean", lambda: mean_colour, {})
    assert (result.each, result.groups) == (other.each, other.groups)
    kept = json.loads((tmp_path / "a" / "out" / "methods" / "mean.json").read_text())
    assert kept["each"] == result.each


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the job on photographs in two folders, small; return its exit code."""
    random = np.random.default_rng(0)
    for folder, count in (("faces", 2), ("scenes", 3)):
        (tmp_path / "val" / folder).mkdir(parents=True)
        for number in range(count):
            levels = random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(levels).save(tmp_path / "val" / folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    small = ["dataset=folder", "dataset.validation.path=val", f"dataset.image_size={SIZE}", "eval_mask.box=[16,16]"]
    few = ["accelerator=cpu", "pictures=0", "method.biharmonic=null", "method.patchmatch=null", "output=out"]
    return lambda *overrides: main(["evaluate", *small, *few, *overrides])


def slow_l1(file: Path) -> float:
    hole = np.zeros((SIZE, SIZE), bool)
    hole[8:24, 8:24] = True
    image = np.asarray(Image.open(file)).astype(np.float64) / 255
    return 100 * np.abs(image[hole] - image[~hole].mean(0)).mean()


def test_the_job_writes_a_table_for_each_folder(job: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert job("groups=folders") == 0
    for group in ("faces", "scenes"):
        expected = np.mean([slow_l1(file) for file in (tmp_path / "val" / group).iterdir()])
        (row,) = (
            r for r in read(tmp_path / "out" / "groups.csv") if (r["group"], r["method"]) == (group, "mean_colour")
        )
        assert float(row["hole/l1"]) == pytest.approx(expected, rel=1e-6)
    rows = [row for row in read(tmp_path / "out" / "images.csv") if row["method"] == "mean_colour"]
    assert [row["groups"] for row in rows] == ["faces"] * 2 + ["scenes"] * 3
    for row in rows:
        assert float(row["hole/l1"]) == pytest.approx(slow_l1(tmp_path / row["name"]), rel=1e-6)
    output = capsys.readouterr().out
    assert "\nfaces, images: 2\nmethod " in output
    assert output.endswith("everything is in out\n")


@pytest.mark.parametrize(
    ("override", "code", "expected"),
    [
        ("groups=folder", 2, "groups: expected folders, or patterns by name, got 'folder'; write e.g. +groups.faces="),
        ("groups=true", 2, "groups: expected folders, or patterns by name, got True"),
        ("+groups.people=*man*", 1, "groups.people: expected a pattern that fits images, got *man*"),
        ("+groups.people=3", 2, "groups.people: expected a pattern or a list of patterns, got 3"),
        ("+groups.people=[]", 2, "groups.people: expected a pattern or a list of patterns, got []"),
        ("+checkpoints.net=3", 2, "checkpoints.net: expected a file or a folder, got 3"),
        (
            "checkpoints=net.ckpt",
            2,
            "checkpoints: expected files by name, got 'net.ckpt'; write +checkpoints.<name>=FILE",
        ),
    ],
)
def test_groups_that_cannot_be_meant_are_one_line(
    override: str, code: int, expected: str, job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job(override) == code
    complaint = capsys.readouterr().err.strip()
    assert expected in complaint
    assert len(complaint.splitlines()) == 1
