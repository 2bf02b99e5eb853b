"""The inpaint job on files: which ones, with which masks, what is left behind, and what happens to bad ones."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gicinpaint import Generator, Inpainter
from gicinpaint.weights.pretrained import configuration_node, save_generator
from inpaint_runs import ROOT, files, run, run_here
from pictures_of_every_kind import draw, pixels, same_kind

MODES = {"a.png": "RGB", "b.png": "L", "deep/c.tiff": "RGBA", "deep/d.webp": "RGB", "deep/e.png": "I;16"}


def write_pictures(folder: Path) -> None:
    """Pictures of several modes with a mask each."""
    for seed, (name, mode) in enumerate(MODES.items()):
        height, width = 24 + seed, 40 - 3 * seed
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        options = {"lossless": True} if name.endswith("webp") else {}
        draw(mode, height, width, seed).save(folder / "in" / name, **options)
        mask = np.zeros((height, width), np.uint8)
        mask[4:12, 6 : 14 + seed] = 255
        path = (folder / "masks" / name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)


@pytest.fixture(scope="module")
def filled(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("a folder")
    write_pictures(folder)
    (folder / "in" / "deep" / "no image.png").write_bytes(b"nothing of the kind")
    draw("RGB", 20, 20, 9).save(folder / "in" / "no mask.png")
    draw("RGB", 20, 20, 9).save(folder / "in" / "other size.png")
    Image.new("L", (19, 20)).save(folder / "masks" / "other size.png")
    return folder, run(model, "input=in", "masks=masks", "output=out", "side_by_side=true", folder=folder)


def test_a_folder_is_filled_as_the_inpainter_fills(
    filled: tuple[Path, subprocess.CompletedProcess[str]], model: Path
) -> None:
    folder, _ = filled
    inpainter = Inpainter.from_checkpoint(model, device="cpu")
    for name in MODES:
        image, result = Image.open(folder / "in" / name), Image.open((folder / "out" / name).with_suffix(".png"))
        mask = Image.open((folder / "masks" / name).with_suffix(".png"))
        assert same_kind(result.copy(), image.copy()), name
        np.testing.assert_array_equal(pixels(result), pixels(inpainter(image, mask)), err_msg=name)


def test_bad_files_are_named_at_the_end_and_the_rest_is_done(
    filled: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, result = filled
    assert result.returncode == 1
    assert "5 of 8 images filled" in result.stdout
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("gicinpaint: 3 of 8 images not filled: ")
    for text in (
        "its content is none of JPEG",
        "there is no mask called 'no mask'",
        "height and width 20x20, got 20x19; resize",
    ):
        assert text in last
    listed = (folder / "out" / "not_filled.txt").read_text().splitlines()
    assert {line.partition(":")[0] for line in listed} == {"deep/no image", "no mask", "other size"}
    assert len(listed) == 3
    assert "Traceback" not in result.stderr
    assert "100%" in result.stderr  # the progress bar
    expected = sorted(str(Path(name).with_suffix(".png")) for name in MODES)
    assert [name for name in files(folder / "out") if "side_by_side" not in name and name.endswith("png")] == expected


def test_the_side_by_side_view_shows_the_hole_white_and_the_result(
    filled: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = filled
    view = np.array(Image.open(folder / "out" / "a.side_by_side.png"))
    mask = np.array(Image.open(folder / "masks" / "a.png")) > 127
    assert view.shape == (24, 2 * 40 + 4, 3)
    assert (view[:, :40][mask] == 255).all()
    assert np.array_equal(view[:, :40][~mask], np.array(Image.open(folder / "in" / "a.png"))[~mask])
    assert np.array_equal(view[:, 44:], np.array(Image.open(folder / "out" / "a.png")))


def test_a_second_run_leaves_results_alone_and_overwrite_makes_them_again(model: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path)
    assert run_here(model, "input=in", "masks=masks", "output=out", folder=tmp_path).returncode == 0
    good = (tmp_path / "out" / "a.png").read_bytes()
    (tmp_path / "out" / "a.png").write_bytes(b"mine")
    (tmp_path / "out" / "b.png").unlink()
    again = run_here(model, "input=in", "masks=masks", "output=out", folder=tmp_path)
    assert again.returncode == 0
    assert "1 of 5 images filled; 4 were there already" in again.stdout
    assert (tmp_path / "out" / "a.png").read_bytes() == b"mine"
    everything = run_here(model, "input=in", "masks=masks", "output=out", "overwrite=true", folder=tmp_path)
    assert "5 of 5 images filled" in everything.stdout
    assert (tmp_path / "out" / "a.png").read_bytes() == good
    done = run_here(model, "input=in", "masks=masks", "output=out", folder=tmp_path)
    assert done.returncode == 0
    assert "0 of 5 images filled; 5 were there already" in done.stdout


def test_several_processes_fill_each_file_once_and_may_have_nothing_to_do(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index in range(7):
        draw("RGB", 16, 24, index).save(tmp_path / "in" / f"{index}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    mask = np.zeros((16, 24), np.uint8)
    mask[4:9, 5:12] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    result = run(model, "input=in", "masks=mask.png", "output=out", "trainer.devices=2", folder=tmp_path)
    assert result.returncode == 1
    assert "7 of 8 images filled" in result.stdout
    assert result.stderr.count("images not filled") == 1  # one process speaks for all
    assert [name for name in files(tmp_path / "out") if name.endswith("png")] == [f"{i}.png" for i in range(7)]
    alone = Inpainter.from_checkpoint(model, device="cpu")
    for index in range(7):
        image, own = Image.open(tmp_path / "in" / f"{index}.png"), Image.open(tmp_path / "out" / f"{index}.png")
        assert np.array_equal(np.array(own), np.array(alone(image, mask)))
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    (tmp_path / "out" / "1.png").unlink()
    (tmp_path / "in" / "bad.png").unlink()  # now one process has nothing left to do
    result = run(model, "input=in", "masks=mask.png", "output=out", "trainer.devices=2", folder=tmp_path)
    assert "1 of 7 images filled; 6 were there already" in result.stdout
    left = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    assert {name for name in times if left[name] != times[name]} == {"1.png"}


def test_shards_are_filled_under_their_own_names(model: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / "shards" / f"part-{shard}.tar", "w") as archive:
            for place in range(3):
                draw("RGB", 16, 16, 10 * shard + place).save(tmp_path / "one.png")
                archive.add(tmp_path / "one.png", f"{place}.png")
    mask = np.zeros((16, 16), np.uint8)
    mask[4:9, 5:12] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    result = run_here(model, "input=shards", "masks=mask.png", "output=out", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    found = [name for name in files(tmp_path / "out") if name.endswith("png")]
    assert found == [f"part-{shard}/{place:06d}.png" for shard in range(2) for place in range(3)]
    expected = Inpainter.from_checkpoint(model, device="cpu")(draw("RGB", 16, 16, 12), mask)
    assert np.array_equal(np.array(Image.open(tmp_path / "out" / "part-1" / "000002.png")), np.array(expected))


def test_a_pattern_with_masks_of_another_name_beside_the_images(model: Path, tmp_path: Path) -> None:
    mask = np.zeros((16, 24), np.uint8)
    mask[4:9, 5:12] = 255
    for name in ("x", "y"):
        draw("RGB", 16, 24, 1).save(tmp_path / f"{name}_input.png")
        Image.fromarray(mask).save(tmp_path / f"{name}_mask.png")
    overrides = ("input='*_input.png'", "masks=.", "mask_rename=[_input,_mask]", "output=out", "format=same")
    result = run_here(model, *overrides, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert [name for name in files(tmp_path / "out") if name.endswith("png")] == ["x_input.png", "y_input.png"]


def test_without_a_checkpoint_the_repositorys_model_fills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GICINPAINT_WEIGHTS", raising=False)
    monkeypatch.setattr("gicinpaint.weights.hub.REPOSITORY_FOLDER", tmp_path / "weights")
    image, mask = draw("RGB", 16, 24, 1), np.zeros((16, 24), np.uint8)
    mask[4:9, 5:12] = 255
    image.save(tmp_path / "one.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    without = run_here(None, "input=one.png", "masks=mask.png", "output=out", folder=tmp_path)
    assert without.returncode == 1
    assert re.search(r"there is no model in .*weights; train one .*convert", without.stderr)
    torch.manual_seed(1)
    save_generator(Generator(2).half(), tmp_path / "weights" / "small")
    result = run_here(None, "input=one.png", "masks=mask.png", "output=out", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    expected = Inpainter.from_checkpoint(tmp_path / "weights" / "small", device="cpu")(image, mask)
    assert np.array_equal(np.array(Image.open(tmp_path / "out" / "one.png")), np.array(expected))


def test_holes_by_colour_in_one_picture(model: Path, tmp_path: Path) -> None:
    image = np.array(draw("RGB", 16, 24, 1)) // 2
    image[4:9, 5:12] = 255
    Image.fromarray(image).save(tmp_path / "one.png")
    result = run_here(model, "input=one.png", "hole_colour=white", "output=out", "blend=feather", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    expected = Inpainter.from_checkpoint(model, device="cpu")(image, hole_colour="white", blend="feather")
    assert np.array_equal(np.array(Image.open(tmp_path / "out" / "one.png")), expected)
    again = run_here(model, "input=one.png", "hole_colour=[1,2,3]", "output=other", folder=tmp_path)
    assert "1 had no hole and were written as they are" in again.stdout
    assert np.array_equal(np.array(Image.open(tmp_path / "other" / "one.png")), image)


def test_a_killed_run_leaves_whole_files_only_and_the_next_one_ends_it(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index in range(60):
        draw("RGB", 120, 160, index).save(tmp_path / "in" / f"{index:02d}.png")
    mask = np.zeros((120, 160), np.uint8)
    mask[40:80, 50:120] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    overrides = [f"checkpoint={model}", "input=in", "masks=mask.png", "output=out", "trainer=cpu", "workers=0"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "inpaint.py"), *overrides],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 240
    while len(list(tmp_path.glob("out/*.png"))) < 5 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    before = len(list(tmp_path.glob("out/*.png")))
    assert before >= 5
    for path in tmp_path.glob("out/*.png"):
        Image.open(path).load()
    result = run_here(model, "input=in", "masks=mask.png", "output=out", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    if before < 60:
        assert f"{60 - before} of 60 images filled; {before} were there already" in result.stdout
    assert len(list(tmp_path.glob("out/*.png"))) == 60


@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        (["masks=mask.png"], 2, "input: a value is missing"),
        (["input=in"], 1, "masks: say where the holes are"),
        (["input=nowhere", "masks=mask.png"], 1, "nowhere', which does not exist"),
        (["input=in", "masks=nowhere"], 1, "masks: there is nothing at 'nowhere'"),
        (["input=in", "masks=mask.png", "blend=magic"], 1, "blend must be one of none, feather, poisson"),
        (["input=in", "masks=mask.png", "format=jpg"], 1, "format: expected one of png, tiff, webp, same"),
        (["input=in", "masks=mask.png", "output=in"], 1, "output: all images of 'in' lie in 'in'; name another folder"),
        (["input=in", "masks=mask.png", "mask_rename=[a]"], 1, "mask_rename: expected"),
        (["input=in", "hole_colour=blurple"], 1, "hole_colour must be a colour, got 'blurple'"),
        (["input=in", "masks=mask.png", "max_memory=0.1"], 1, "max_memory must be at least"),
        (["input=in", "masks=mask.png", "workers=-1"], 1, "no negative number of workers"),
        (["input=in", "masks=mask.png", "checkpoint=nowhere"], 1, "nowhere must be a model's file or folder"),
        (["input=in", "masks=mask.png", "blnd=none"], 2, "did you mean blend"),
        (["input=twins", "masks=mask.png"], 1, "two images, .+ and .+, would become .*; set format=same"),
    ],
)
def test_what_cannot_be_done_is_one_line_before_the_first_file(
    overrides: list[str], code: int, message: str, model: Path, tmp_path: Path
) -> None:
    for name in ("in/a.png", "twins/a.png", "twins/a.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        draw("RGB", 16, 16, 1).save(tmp_path / name)
    Image.new("L", (16, 16), 255).save(tmp_path / "mask.png")
    result = run_here(model, *overrides, folder=tmp_path)
    assert result.returncode == code
    assert re.search(message, result.stderr), result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_help_shows_examples_and_settings(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "inpaint.py"), "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0
    for text in ("input=photo.jpg masks=mask.png", "mask_rename", "blend=none", "trainer.devices=1"):
        assert text in result.stdout


def test_the_pages_python_example_runs() -> None:
    page = (ROOT / "docs" / "inpainting.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(example, "docs/inpainting.md", "exec"), {})


@pytest.mark.parametrize(("size", "told"), [(64, True), ([256, 128], True), (256, False), (None, False)])
def test_a_checkpoint_trained_on_small_images_says_so(tmp_path: Path, size: object, told: bool) -> None:
    draw("RGB", 24, 24, 1).save(tmp_path / "a.png")
    mask = np.zeros((24, 24), np.uint8)
    mask[8:12, 8:12] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    sizes = {f"dataset.image_size.{i}": one for i, one in enumerate(size)} if isinstance(size, list) else {}
    settings = sizes or ({} if size is None else {"dataset.image_size": size})
    generator = Generator(2)
    state = {f"generator.{name}": value for name, value in generator.state_dict().items()}
    checkpoint = {"config": {"generator": configuration_node(generator)}, "state_dict": state, "run_settings": settings}
    torch.save(checkpoint, tmp_path / "model.ckpt")
    result = run_here(tmp_path / "model.ckpt", "input=a.png", "masks=mask.png", "output=out.png", folder=tmp_path)
    assert "1 of 1 images filled" in result.stdout
    shorter = min(size) if isinstance(size, list) else size
    assert (f"trained at {shorter} pixels: wrong colours in much larger images" in result.stdout) == told


def test_images_that_are_filled_in_parts_are_told(model: Path, tmp_path: Path) -> None:
    for folder in ("in", "masks"):
        (tmp_path / folder).mkdir()
    mask = np.zeros((600, 700), np.uint8)
    mask[40:60, 50:80] = 255
    for height in (300, 600):  # the first one has the whole image's result, so nothing is said of it
        draw("RGB", height, 700, 1).save(tmp_path / f"in/{height}.png")
        Image.fromarray(mask[:height]).save(tmp_path / f"masks/{height}.png")
    result = run_here(model, "input=in", "masks=masks", "output=out", "max_memory=0.28", folder=tmp_path)
    assert "2 of 2 images filled (1 in crops around the holes); mean hole ratio" in result.stdout
    result = run_here(model, "input=in", "masks=masks", "output=out", "max_memory=0.28", folder=tmp_path)
    assert "0 of 2 images filled; 2 were there already" in result.stdout
    assert not result.stderr  # no progress bar of nothing
