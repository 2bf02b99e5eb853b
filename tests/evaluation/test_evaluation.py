"""The parts of an evaluation: images, masks, one method's exact sums, tables. Small and in this process."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gicinpaint.config.validation import JobError
from gicinpaint.data import CenterCropResize, ImageError, Packing, TarShards, prepare
from gicinpaint.evaluation import EvaluationImages, MaskFiles, Measurement, MethodResult, Table
from gicinpaint.evaluation import measuring as measuring_module
from gicinpaint.evaluation.images import spread
from gicinpaint.evaluation.methods import Checkpoint, try_method
from gicinpaint.masks import paper_center
from gicinpaint.metrics import evaluation_metrics
from gicinpaint.models.compositing import fill_with_mean as mean_colour
from gicinpaint.weights.hub import local_models, shipped_models
from measurements import SIZE, images, measurement
from models import save_inception


def slow_hole_l1(work: Measurement) -> float:
    """The mean colour's error, from the files and the masks, with NumPy."""
    errors = []
    for index in range(len(work.images)):
        image = (work.images[index].double().numpy() + 1) / 2
        hole = work.masks([index], SIZE, SIZE)[0][0, 0].numpy() == 1
        mean = image[:, ~hole].mean(1, keepdims=True)
        errors.append(100 * np.abs(image[:, hole] - mean).mean())
    return float(np.mean(errors))


def test_numbers_are_spread_evenly() -> None:
    assert spread(3, 9) == [1, 4, 7]
    assert spread(5, 5) == [0, 1, 2, 3, 4]
    assert spread(1, 100) == [50]


def test_images_are_counted_cropped_and_hashed_by_what_methods_see(tmp_path: Path) -> None:
    chosen = images(tmp_path / "a", 3)
    assert [Path(chosen.name(i).strip("'")).name for i in range(3)] == [f"photograph {n}.png" for n in (1, 3, 5)]
    digest = hashlib.sha256()
    for number in (1, 3, 5):
        with Image.open(tmp_path / "a" / f"photograph {number}.png") as opened:
            cropped = CenterCropResize()(opened.convert("RGB"), SIZE, SIZE, torch.Generator())
        digest.update(np.asarray(cropped).transpose(2, 0, 1).tobytes())
    assert chosen.manifest() == {"count": 3, "height": SIZE, "width": SIZE, "sha256": digest.hexdigest()}
    assert images(tmp_path / "b", 3).manifest() == chosen.manifest()  # the folder's name does not count
    assert images(tmp_path / "b").manifest() != chosen.manifest()


def test_names_have_no_quotes_in_folders_and_in_shards(tmp_path: Path) -> None:
    in_files = images(tmp_path / "it's ours")
    assert in_files.names()[1] == str(tmp_path / "it's ours" / "photograph 1.png")
    prepare({"val": in_files.source}, tmp_path / "packed", Packing(), workers=0, progress=False)
    in_shards = EvaluationImages(TarShards(tmp_path / "packed" / "val"), CenterCropResize(), SIZE, SIZE, 2)
    assert all(name.endswith((".tar image 1", ".tar image 5")) for name in in_shards.names())


@pytest.mark.parametrize("count", [0, 8, -1])
def test_counts_that_cannot_be_are_reported(count: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"count must lie in 1\.\.7, the number of images found, got {count};"):
        images(tmp_path, count)


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    broken = images(tmp_path)
    (tmp_path / "photograph 3.png").write_text("text")
    with pytest.raises(ImageError, match=r"photograph 3\.png"):
        broken.manifest()


def test_peak_memory_is_what_a_method_takes_beyond_what_was_held(tmp_path: Path) -> None:
    def hungry(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return image + torch.ones(200, 2**18)[0, 0] - 1  # 200 MiB

    assert 195 < measurement(tmp_path).run("hungry", lambda: hungry, {}).peak_memory_mib < 230


def test_a_method_is_measured_over_all_images_and_its_pictures_are_kept(tmp_path: Path) -> None:
    work = measurement(tmp_path)
    result = work.run("mean", lambda: mean_colour, {"method": "mean"})
    assert result.values["hole/l1"] == pytest.approx(slow_hole_l1(work), rel=1e-6)
    assert result.images == 7
    assert result.seconds_per_image > 0
    assert result.peak_memory_mib >= 0
    kept = sorted(path.name for path in (tmp_path / "out" / "completed" / "mean").iterdir())
    assert kept == ["000001.png", "000004.png"]
    with Image.open(work.picture("mean", 4)) as picture:
        levels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
    mask = work.masks([4], SIZE, SIZE)[0]
    expected = (mean_colour(work.images[4][None], mask)[0] + 1) * 127.5
    torch.testing.assert_close(levels, expected, atol=0.51, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 50])
def test_every_batch_size_gives_the_same_numbers(batch_size: int, tmp_path: Path) -> None:
    reference = measurement(tmp_path / "a").run("mean", lambda: mean_colour, {})
    result = measurement(tmp_path / "b", batch_size=batch_size).run("mean", lambda: mean_colour, {})
    assert result.values == pytest.approx(reference.values, rel=1e-6)


def test_an_interrupted_method_continues_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring_module, "_SECONDS_BETWEEN_SAVES", 0.0)
    reference = measurement(tmp_path / "a").run("mean", lambda: mean_colour, {"method": "mean"})
    seen: list[int] = []

    def counted(stop_after: int | None) -> Any:
        def method(image: Tensor, mask: Tensor) -> Tensor:
            if stop_after is not None and len(seen) >= stop_after:
                raise KeyboardInterrupt
            seen.extend([1] * len(image))
            return mean_colour(image, mask)

        return lambda: method

    work = measurement(tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        work.run("mean", counted(3), {"method": "mean"})
    assert len(seen) == 3
    assert [path.suffix for path in (tmp_path / "b" / "out" / "methods").iterdir()] == [".partial"]
    result = work.run("mean", counted(None), {"method": "mean"})
    assert len(seen) == 7  # the first three were not measured again
    assert result.values == reference.values  # to the bit: the same sums in the same order
    assert [path.suffix for path in (tmp_path / "b" / "out" / "methods").iterdir()] == [".json"]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_an_interrupted_fid_continues_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring_module, "_SECONDS_BETWEEN_SAVES", 0.0)
    metrics = evaluation_metrics(fid=save_inception(tmp_path))
    work, calls = measurement(tmp_path / "a", metrics=metrics), []

    def stops_at_the_third(image: Tensor, mask: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return mean_colour(image, mask)

    with pytest.raises(KeyboardInterrupt):
        work.run("mean", lambda: stops_at_the_third, {})
    result = work.run("mean", lambda: mean_colour, {})
    assert result.values == measurement(tmp_path / "b", metrics=metrics).run("mean", lambda: mean_colour, {}).values
    assert result.values["fid"] > 0


def test_a_finished_method_is_not_run_again_unless_something_changed(tmp_path: Path) -> None:
    work = measurement(tmp_path)
    first = work.run("mean", lambda: mean_colour, {"method": "mean", "masks": 1})

    def must_not_be_built() -> Any:
        raise AssertionError("the result was there")

    assert work.run("mean", must_not_be_built, {"method": "mean", "masks": 1}) == first
    with pytest.raises(AssertionError, match="the result was there"):
        work.run("mean", must_not_be_built, {"method": "mean", "masks": 2})
    work.picture("mean", 4).unlink()
    with pytest.raises(AssertionError, match="the result was there"):
        work.run("mean", must_not_be_built, {"method": "mean", "masks": 1})


def test_a_result_file_that_is_not_whole_is_measured_again(tmp_path: Path) -> None:
    work = measurement(tmp_path)
    first = work.run("mean", lambda: mean_colour, {})
    path = tmp_path / "out" / "methods" / "mean.json"
    path.write_text(path.read_text()[:40])
    assert work.run("mean", lambda: mean_colour, {}).values == first.values


def test_a_perfect_method_is_infinite_in_the_table_and_text_in_json(tmp_path: Path) -> None:
    work = measurement(tmp_path, masks=paper_center((16, 16)))

    def perfect(image: Tensor, mask: Tensor) -> Tensor:
        return image

    result = work.run("perfect", lambda: perfect, {})
    assert result.values["hole/psnr"] == math.inf
    assert result.values["hole/tv"] == result.values["target/hole/tv"] > 0
    assert json.loads((tmp_path / "out" / "methods" / "perfect.json").read_text())["values"]["hole/psnr"] == math.inf
    assert ",inf," in Table({"perfect": result}).csv()


def test_mask_files_belong_to_images_by_number_and_are_taken_as_they_are(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    levels = [255 * random.integers(0, 2, (12, 16), dtype=np.uint8) for _ in range(3)]
    for number, level in enumerate(levels):
        Image.fromarray(level).save(tmp_path / f"{number}.png")
    mask, box = MaskFiles(tmp_path)([4, 0], 12, 16)
    np.testing.assert_array_equal(mask[:, 0].numpy(), np.stack([levels[1], levels[0]]) / 255)
    assert (box.height, box.width) == (12, 16)
    inverted, _ = MaskFiles(tmp_path, hole=0)([4, 0], 12, 16)
    assert torch.equal(inverted, 1 - mask)
    digest = hashlib.sha256(b"".join((levels[number % 3] // 255).tobytes() for number in range(5)))
    assert MaskFiles(tmp_path).manifest(5, 12, 16)["sha256"] == digest.hexdigest()


def test_a_mask_file_painted_on_a_transparent_layer_is_the_hole(tmp_path: Path) -> None:
    layer = np.full((6, 9, 2), 255, np.uint8)  # white, and unseen where it is transparent
    layer[..., 1] = 0
    layer[1:4, 2:8, 1] = 255
    Image.fromarray(layer, mode="LA").save(tmp_path / "a.png")
    assert np.array_equal(MaskFiles(tmp_path)([0], 6, 9)[0][0, 0], layer[..., 1] > 0)


def test_mask_files_that_cannot_be_meant_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"looked for mask files .* found none; set eval_mask\.path"):
        MaskFiles(tmp_path)
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="hole must be 255 or 0, got 1;"):
        MaskFiles(tmp_path, hole=1)
    with pytest.raises(ValueError, match=r"a\.png must have the images' size, 32x32, got 12x16; resize it"):
        MaskFiles(tmp_path)([0], 32, 32)
    Image.fromarray(np.full((32, 32), 7, np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png must hold only 0 and 255, got other values"):
        MaskFiles(tmp_path)([0], 32, 32)
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(ValueError, match=r"cannot read image .*a\.png.*; repair or remove it"):
        MaskFiles(tmp_path)([0], 32, 32)


def test_methods_that_cannot_work_are_reported_before_the_start() -> None:
    device = torch.device("cpu")

    def lacks(image: Tensor, mask: Tensor) -> Tensor:
        raise ImportError("needs a package")

    with pytest.raises(JobError, match="mine: needs a package"):
        try_method("mine", lacks, device)
    with pytest.raises(JobError, match=r"mine: expected a method that returns images .* got \(1, 1, 64, 64\)"):
        try_method("mine", lambda image, mask: mask, device)
    try_method("mine", mean_colour, device)


def test_the_table_is_written_alike_for_terminal_markdown_and_csv() -> None:
    values = {"hole/l1": 12.345, "hole/psnr": 15.0, "image/ssim": 0.87654, "target/hole/tv": 9.876}
    values |= {"hole/tv_ratio": 0.34567, "hole/patch_distance": 0.012345}
    table = Table({"mean_colour": MethodResult(values, 5, 0.0123, 7.8)}, with_published=True)
    lines = table.markdown().splitlines()
    assert lines[0] == "| method | L1 % | PSNR dB | TV ratio | patch distance | image SSIM | s/image | memory MiB |"
    assert lines[2] == "| mean colour | 12.35 | 15.00 | 0.35 | 0.0123 | 0.8765 | 0.012 | 8 |"
    assert "| full model (published) | 8.60 | 18.91 |  |  |  |  |  |" in lines
    assert "protocol not published" in table.markdown()
    assert "The ground truth's own TV in the holes is 9.88 %" in table.text()
    assert "published" not in Table(table.results).markdown()
    header, first, *_ = table.csv().splitlines()
    assert header == "method,images,hole/l1,hole/psnr,image/ssim,target/hole/tv,hole/tv_ratio,hole/patch_distance"
    assert first == "mean_colour,5,12.345,15.0,0.87654,9.876,0.34567,0.012345"
    assert table.costs_csv().splitlines()[1] == "mean_colour,0.012300,7.8"


def test_a_model_is_the_same_by_its_name_and_by_its_folder() -> None:
    name = shipped_models()[0]
    assert Checkpoint(name).sha256() == Checkpoint(local_models()[name]).sha256() != hashlib.sha256().hexdigest()
