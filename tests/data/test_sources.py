"""Datasets: the sample set, and each setting in conf/dataset with its archive's layout and with nothing there."""

from pathlib import Path

import hydra
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from PIL import Image

from gicinpaint.data import DatasetError, ImageFiles, InpaintingDataModule, SamplePhotographs
from gicinpaint.data.datasets import SAMPLE_TRAIN, SAMPLE_VALIDATION
from gicinpaint.masks import RectangleMask

SIZE = 32
MASK = RectangleMask(box=[16, 16], inset=[4, 4])
CONF = Path(__file__).parents[2] / "conf"
DATASETS = sorted(path.stem for path in (CONF / "dataset").glob("*.yaml"))
DOWNLOADED = ["celeba", "celeba_hq", "dtd", "imagenet", "places2"]


def test_the_sample_set_needs_no_download_and_is_split_by_photograph(monkeypatch):
    import socket

    def refuse(*_):
        raise AssertionError("the sample set opened a connection")

    monkeypatch.setattr(socket, "socket", refuse)
    train, validation = SamplePhotographs.train(repeat=2), SamplePhotographs.validation()
    assert not set(SAMPLE_TRAIN) & set(SAMPLE_VALIDATION)
    assert {train.name(i) for i in range(len(train))} == set(SAMPLE_TRAIN)
    assert len(train) == 12
    assert {validation.name(i) for i in range(len(validation))} == set(SAMPLE_VALIDATION)
    data = InpaintingDataModule(train, validation, MASK, image_size=SIZE, batch_size=4, workers=0)
    batch = next(iter(data.train_dataloader())).to_float()
    assert batch.image.shape == (4, 3, SIZE, SIZE)
    assert batch.image.std() > 0.05


def test_a_missing_photograph_of_the_sample_set_is_named():
    with pytest.raises(DatasetError, match=r"sample photographs absent\.png in .*; reinstall scikit-image"):
        SamplePhotographs(["coins.png", "absent.png"])


@pytest.mark.parametrize("present", [False, True])
def test_a_missing_or_empty_folder_stops_with_its_path(tmp_path, present):
    if present:
        (tmp_path / "photos").mkdir()
    reason = "found none; put photographs" if present else "which does not exist: found none; put photographs"
    with pytest.raises(DatasetError, match=rf"'{tmp_path}/photos'.*{reason}"):
        ImageFiles(tmp_path / "photos", hint="put photographs there")


def compose_dataset(name, data_dir, *overrides):
    with initialize_config_dir(str(CONF), version_base=None):
        names = [f"+dataset={name}", "+mask=rectangle", "+seed=0", f"+data_dir={data_dir}"]
        return compose(overrides=[*names, *overrides]).dataset


def instantiate(config):
    return hydra.utils.instantiate(config, _convert_="all")


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize("name", [name for name in DATASETS if name != "sample"])
def test_absent_data_is_one_line_that_says_where_it_belongs_and_how_to_get_it(tmp_path, name, part):
    config = compose_dataset(name, tmp_path)
    with pytest.raises(InstantiationException) as caught:
        instantiate(config[part])
    error = caught.value.__cause__
    assert isinstance(error, DatasetError)
    assert "\n" not in str(error)
    assert str(error).startswith("looked for")
    assert f"'{tmp_path}/" in str(error)
    assert ("https://" in str(error) or "http://" in str(error)) == (name in DOWNLOADED)


@pytest.mark.parametrize("name", DOWNLOADED)
def test_the_layout_of_the_archive_is_read(tmp_path, name):
    def save(*paths):
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            size = (178, 218) if name == "celeba" else (64, 64)
            Image.new("RGB", size, (200, 100, 50)).save(tmp_path / path, format="JPEG")

    def write_list(path, *names):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("".join(f"{line}\n" for line in names))

    if name == "places2":
        save("places2/data_large/a/abbey/00000001.jpg", "places2/data_large/b/bar/00000001.jpg")
        save("places2/val_large/Places365_val_00000001.jpg")
    elif name == "imagenet":
        save("imagenet/train/n01440764/n01440764_18.JPEG", "imagenet/train/n01443537/n01443537_2.JPEG")
        save("imagenet/val/ILSVRC2012_val_00000001.JPEG")
    elif name == "dtd":
        save(*(f"dtd/images/banded/banded_000{number}.jpg" for number in (2, 4, 5)))
        write_list("dtd/labels/train1.txt", "banded/banded_0002.jpg", "banded/banded_0004.jpg")
        write_list("dtd/labels/val1.txt", "banded/banded_0005.jpg")
    elif name == "celeba":
        save(*(f"celeba/img_align_celeba/00000{number}.jpg" for number in (1, 2, 3, 4)))
        write_list("celeba/list_eval_partition.txt", "000001.jpg 0", "000002.jpg 2", "000003.jpg 0", "000004.jpg 1")
    else:
        save(*(f"celeba_hq/CelebA-HQ-img/{number}.jpg" for number in (0, 1, 2)))
        write_list("celeba_hq/train_shuffled.flist", "/their/disk/2.png", "/their/disk/0.png")
        write_list("celeba_hq/val_shuffled.flist", "/their/disk/1.png")
    counts = ["dataset.train.expected=2", "dataset.validation.expected=1"]
    size = [
        "dataset.image_size=48",
        "dataset.batch_size=2",
        "dataset.workers=0",
        "mask.box=[16,16]",
        "mask.inset=[0,0]",
    ]
    data = instantiate(compose_dataset(name, tmp_path, *counts, *size))
    assert (len(data.train), len(data.validation)) == (2, 1)
    batch = next(iter(data.train_dataloader())).to_float()
    expected = torch.tensor([200.0, 100.0, 50.0]).div(127.5).sub(1).view(1, 3, 1, 1).expand(2, 3, 48, 48)
    torch.testing.assert_close(batch.image, expected, atol=4 / 127.5, rtol=0)  # JPEG rounds a plain colour by little
    if name != "celeba_hq":  # whose split, and so the number of images, is the user's
        with pytest.raises(InstantiationException, match=r"looked for \d+ images in .*: found 2; get "):
            instantiate(compose_dataset(name, tmp_path, *size))  # a part of the data is not taken for all of it


@pytest.mark.parametrize("name", DOWNLOADED)
def test_the_head_of_each_dataset_says_where_to_get_it(name):
    head = (CONF / "dataset" / f"{name}.yaml").read_text().split("defaults:")[0]
    for word in ("Where", "Licence", "Size", "Unpack", "Count"):
        assert f"\n# {word} " in head
    assert all(line.startswith("#") for line in head.splitlines())
