"""Scans: a line per image that training could not use, whatever the number of processes."""

import numpy as np
import pytest
from PIL import Image

from gicinpaint.data import ImageFiles, Packing, RandomCrop, TarShards, prepare, scan


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(600):  # more than two tasks
        Image.new("RGB", (12, 12), (number % 256, 0, 0)).save(folder / f"{number:03d}.bmp")
    return folder


def lines(result):
    return result.report.read_text().splitlines()


@pytest.mark.parametrize("workers", [0, 2])
def test_every_bad_image_has_a_line_with_its_name_and_the_reason(folder, tmp_path, workers):
    (folder / "007.bmp").write_bytes(b"")
    (folder / "300.bmp").write_bytes(b"text")
    (folder / "301.bmp").unlink()
    (folder / "301.bmp").symlink_to("nowhere")
    (folder / "599.bmp").write_bytes((folder / "598.bmp").read_bytes()[:100])
    result = scan({"train": ImageFiles(folder)}, tmp_path / "out" / "report.txt", workers=workers, progress=False)
    assert (result.images, result.bad) == (600, 4)
    head, *rest = lines(result)
    assert head == "# 4 bad of 600 images: part, number, reason"
    for line, number, reason in zip(
        rest, (7, 300, 301, 599), ("empty", "none of", "nowhere", "truncated"), strict=True
    ):
        part, shown, text = line.split("\t")
        assert (part, shown) == ("train", str(number))
        assert f"{number:03d}.bmp" in text
        assert reason in text


def test_a_good_dataset_has_an_empty_report(folder, tmp_path):
    result = scan({"train": ImageFiles(folder)}, tmp_path / "report.txt", workers=0, progress=False)
    assert result.bad == 0
    assert lines(result) == ["# 0 bad of 600 images: part, number, reason"]


def test_images_too_small_for_the_crop_are_found(folder, tmp_path):
    Image.new("RGB", (11, 90)).save(folder / "100.bmp")
    source = {"train": ImageFiles(folder), "val": ImageFiles(folder)}
    crops = {"val": RandomCrop()}
    result = scan(source, tmp_path / "r.txt", crops=crops, image_size=(12, 12), workers=0, progress=False)
    assert result.bad == 1
    assert "100.bmp': the image is 90x11, smaller than the crop of 12x12" in lines(result)[1]


def test_a_name_with_a_newline_stays_on_its_line(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a\nb\t.png").write_bytes(b"")
    result = scan({"train": ImageFiles(tmp_path / "images")}, tmp_path / "r.txt", workers=0, progress=False)
    assert len(lines(result)) == 2
    assert lines(result)[1].count("\t") == 2
    assert "a\\nb\\t.png" in lines(result)[1]


def test_a_changed_shard_is_found_by_its_sum(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.bmp")
    source = {"train": ImageFiles(tmp_path / "images")}
    prepare(source, tmp_path / "out", Packing(images_per_shard=2), workers=0, progress=False)
    shard = tmp_path / "out" / "train" / "shard-000001.tar"
    content = bytearray(shard.read_bytes())
    content[1500] ^= 1  # one bit of a pixel: still a readable image
    shard.write_bytes(content)
    result = scan({"train": TarShards(shard.parent)}, tmp_path / "r.txt", workers=0, progress=False)
    assert result.bad == 1
    assert "shard-000001.tar' differs from its SHA-256" in lines(result)[1]
