"""Packing into shards: the same bytes after any kill, a manifest that tells the truth, bad images named."""

import fcntl
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from gicinpaint.data import DatasetError, ImageError, ImageFiles, Packing, SamplePhotographs, TarShards, prepare
from gicinpaint.data import packing as packing_module
from gicinpaint.data.packing import count_image, work_through

FORK = multiprocessing.get_context("fork")


def pictures(folder, count, size=(24, 20)):
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.png")
    return folder


def pack(source, output, workers=0, **packing):
    parts = {"train": ImageFiles(source), "val": ImageFiles(source)}
    return prepare(parts, output, Packing(**{"images_per_shard": 5, **packing}), workers=workers, progress=False)


def sums(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_shards_do_not_depend_on_the_number_of_workers(tmp_path):
    source = pictures(tmp_path / "images", 23)
    pack(source, tmp_path / "0")
    pack(source, tmp_path / "2", workers=2)
    assert sums(tmp_path / "0") == sums(tmp_path / "2")
    assert len(list((tmp_path / "0").rglob("*.tar"))) == 10


def test_the_manifest_has_the_counts_bytes_and_sums_of_the_files(tmp_path):
    manifest = json.loads(pack(pictures(tmp_path / "images", 23), tmp_path / "out").read_text())
    part = manifest["parts"]["train"]
    assert part["images"] == 23
    assert [shard["images"] for shard in part["shards"]] == [5, 5, 5, 5, 3]
    for shard in part["shards"]:
        content = (tmp_path / "out" / shard["file"]).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert part["bytes"] == sum(shard["bytes"] for shard in part["shards"])
    assert manifest["packing"]["images_per_shard"] == 5


def _pack_and_die(source, output, moment):
    calls = 0

    def counted(function):
        def call(*arguments, **settings):
            nonlocal calls
            calls += 1
            if calls == moment:
                os._exit(9)
            return function(*arguments, **settings)

        return call

    for name in ("replace", "fsync"):
        setattr(os, name, counted(getattr(os, name)))
    pack(source, output)


def test_a_kill_at_every_step_of_writing_leaves_the_same_shards_in_the_end(tmp_path):
    source = pictures(tmp_path / "images", 8)
    pack(source, tmp_path / "undisturbed")
    expected = sums(tmp_path / "undisturbed")
    for moment in range(1, 200):
        output = tmp_path / f"killed at {moment}"
        process = FORK.Process(target=_pack_and_die, args=(source, output, moment))
        process.start()
        process.join()
        if process.exitcode == 0:  # there are fewer steps than that
            break
        assert process.exitcode == 9
        pack(source, output)
        assert sums(output) == expected
    assert moment > 20


def test_kills_at_ten_random_moments_leave_the_same_shards_in_the_end(tmp_path):
    source, output = pictures(tmp_path / "images", 240, size=(150, 200)), tmp_path / "out"
    start = time.monotonic()
    pack(source, tmp_path / "undisturbed", 2, short_side=64)
    duration = time.monotonic() - start  # machines differ, and so do the moments worth killing at
    expected = sums(tmp_path / "undisturbed")
    chance, kills = random.Random(0), 0
    while kills < 10:
        process = FORK.Process(target=pack, args=(source, output, 2), kwargs={"short_side": 64})
        process.start()
        process.join(chance.uniform(0, 0.7 * duration))
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            kills += 1
        else:  # it had finished; the next one starts from nothing
            assert process.exitcode == 0
            assert sums(output) == expected
            shutil.rmtree(output)
    pack(source, output, 2, short_side=64)
    assert sums(output) == expected
    assert not list(output.rglob("*.partial"))


def test_a_complete_job_does_nothing_twice_and_a_damaged_shard_is_written_again(tmp_path):
    source = pictures(tmp_path / "images", 12)
    pack(source, tmp_path / "out")
    expected = sums(tmp_path / "out")
    shards = sorted((tmp_path / "out").rglob("*.tar"))
    before = [shard.stat().st_mtime_ns for shard in shards]
    pack(source, tmp_path / "out")
    assert [shard.stat().st_mtime_ns for shard in shards] == before
    shards[1].write_bytes(shards[1].read_bytes()[:700])
    shards[3].with_suffix(".index.npz").write_bytes(b"broken")
    pack(source, tmp_path / "out")
    assert sums(tmp_path / "out") == expected


def test_images_are_reduced_to_the_short_side_and_smaller_ones_kept_as_they_are(tmp_path):
    folder = pictures(tmp_path / "images", 1, size=(100, 60))
    Image.new("RGB", (16, 40), (9, 8, 7)).save(folder / "small.png")
    pack(folder, tmp_path / "out", short_side=32)
    shards = TarShards(tmp_path / "out" / "train")
    assert sorted(shards.read(index).size for index in range(2)) == [(16, 40), (32, 53)]
    assert (folder / "small.png").read_bytes() in {shards.encoded(index) for index in range(2)}


def test_another_packing_or_other_images_are_not_mixed_into_a_folder(tmp_path):
    source = pictures(tmp_path / "images", 6)
    pack(source, tmp_path / "out")
    with pytest.raises(DatasetError, match=r"in another way \(packing changed\); delete it"):
        pack(source, tmp_path / "out", images_per_shard=3)
    (source / "0003.png").rename(source / "renamed.png")
    with pytest.raises(DatasetError, match=r"\(parts changed\)"):
        pack(source, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(DatasetError, match="holds other files; choose an empty folder"):
        pack(source, tmp_path / "mine")


def test_two_jobs_do_not_write_to_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["gicinpaint.data.prepare"], "_LOCK_WAIT", 0.2)
    source = pictures(tmp_path / "images", 3)
    (tmp_path / "out").mkdir()
    with open(tmp_path / "out" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DatasetError, match="another job is writing to"):
            pack(source, tmp_path / "out")
    pack(source, tmp_path / "out")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_stops_the_job_with_its_name(tmp_path, workers):
    source = pictures(tmp_path / "images", 7)
    (source / "0004.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"0004\.png': its content is none of"):
        pack(source, tmp_path / "out", workers=workers)


def test_skipped_images_are_in_the_manifest_also_after_a_restart(tmp_path):
    source = pictures(tmp_path / "images", 120)
    (source / "0004.png").write_bytes(b"")
    for _ in range(2):
        part = json.loads(pack(source, tmp_path / "out", on_error="skip").read_text())["parts"]["train"]
        assert part["images"] == 119
        assert len(part["skipped"]) == 1
        assert "0004.png': the file is empty" in part["skipped"][0]
    assert len(TarShards(tmp_path / "out" / "train", expected=119)) == 119


def test_more_than_one_per_cent_of_bad_images_stops_the_job(tmp_path):
    source = pictures(tmp_path / "images", 120)
    for name in ("0004.png", "0077.png"):
        (source / name).write_bytes(b"")
    with pytest.raises(DatasetError, match="2 of 120 images could not be used so far, more than 1%; the last: "):
        pack(source, tmp_path / "out", on_error="skip")


def test_a_source_without_files_is_packed_losslessly(tmp_path):
    source = SamplePhotographs(["coins.png", "coffee.png"])
    prepare({"train": source}, tmp_path, Packing(images_per_shard=2), workers=0, progress=False)
    shards = TarShards(tmp_path / "train")
    packed = {shards.read(index).tobytes() for index in range(2)}
    assert packed == {source.read(index).tobytes() for index in range(2)}


def _kill_itself(_subject, _numbers):
    os.kill(os.getpid(), signal.SIGKILL)


def two_of_three(folder, numbers):
    """Work on three images, and on the third only once the bar has shown two."""
    for number in numbers:
        deadline = time.monotonic() + 60
        while number == 2 and not (folder / "shown").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        count_image()
    return (folder / "shown").exists()


def test_the_bar_moves_within_a_shard(tmp_path, monkeypatch):
    shown = []

    class Recorded(packing_module.Bar):
        def update(self, n=1):
            shown.append(self.n + n)
            if shown[-1] == 12:  # ten were done before
                (tmp_path / "shown").touch()
            return super().update(n)

    monkeypatch.setattr(packing_module, "Bar", Recorded)
    tasks = [(torch.arange(3),), (torch.arange(3, 6),)]
    assert list(work_through(two_of_three, tmp_path, tasks, 1, total=16, done=10, title="pack")) == [True, True]
    assert shown == sorted(shown)
    assert shown[-1] == 16
    shown.clear()
    assert list(work_through(two_of_three, tmp_path, tasks, 0, total=16, done=10, title="pack")) == [True, True]
    assert shown[-1] == 16


def test_a_killed_worker_is_an_error_and_not_a_hang():
    with pytest.raises(DatasetError, match=r"a worker process was killed.*start the job again"):
        list(work_through(_kill_itself, None, [(torch.tensor([1]),)], 1, total=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images_per_shard": 0}, "must be at least 1, got 0 and None"),
        ({"short_side": 0}, "must be at least 1, got 4096 and 0"),
        ({"quality": 101}, r"quality must lie in 1\.\.100, got 101"),
        ({"on_error": "ignore"}, "on_error must be 'raise' or 'skip', got 'ignore'"),
    ],
)
def test_impossible_packings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Packing(**settings)
