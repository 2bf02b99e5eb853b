"""Official splits: each part has the files that the dataset's own lists say."""

import pytest
from PIL import Image

from gicinpaint.data import DatasetError
from gicinpaint.data.datasets import celeba, celeba_hq, dtd


def save(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / path, format="PNG")


def write(root, path, *lines):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text("".join(f"{line}\n" for line in lines))


def names(source):
    return [source.path(index).rsplit("/", 1)[1] for index in range(len(source))]


@pytest.mark.parametrize("folders", [("", ""), ("Img/", "Eval/")])
def test_celeba_follows_its_partition_file(tmp_path, folders):
    save(tmp_path, *(f"{folders[0]}img_align_celeba/00000{number}.jpg" for number in (1, 2, 3, 4)))
    rows = ["000001.jpg 0", "000002.jpg 1", "000003.jpg 2", "000004.jpg 0"]
    write(tmp_path, f"{folders[1]}list_eval_partition.txt", *rows)
    assert names(celeba(tmp_path, "train")) == ["000001.jpg", "000004.jpg"]
    assert names(celeba(tmp_path, "validation")) == ["000002.jpg"]
    assert names(celeba(tmp_path, "test")) == ["000003.jpg"]


def test_a_foreign_partition_file_is_named_with_its_line(tmp_path):
    save(tmp_path, "img_align_celeba/000001.jpg")
    write(tmp_path, "list_eval_partition.txt", "000001.jpg 0", "000002.jpg,1")
    with pytest.raises(DatasetError, match=r"line 2 of .* must be a file name and 0, 1 or 2, got '000002.jpg,1'"):
        celeba(tmp_path, "train")


def test_celeba_without_its_list_or_images_says_which(tmp_path):
    with pytest.raises(DatasetError, match=r"looked for img_align_celeba or Img/img_align_celeba in .*; get it"):
        celeba(tmp_path, "train", hint="get it")
    save(tmp_path, "img_align_celeba/000001.jpg")
    with pytest.raises(DatasetError, match=r"looked for list_eval_partition.txt or Eval/"):
        celeba(tmp_path, "train")
    write(tmp_path, "list_eval_partition.txt", "000002.jpg 0")
    with pytest.raises(DatasetError, match=r"looked for 1 images, the first .*000002\.jpg': no such file"):
        celeba(tmp_path, "train")


def test_celeba_hq_is_split_by_lists_whatever_folder_and_suffix_they_name(tmp_path):
    save(tmp_path, "0.png", "1.png", "2.png")
    write(tmp_path, "train_shuffled.flist", "/home/author/celeba_hq/2.jpg", "/home/author/celeba_hq/0.jpg")
    write(tmp_path, "val.flist", "1")
    assert names(celeba_hq(tmp_path, "train")) == ["2.png", "0.png"]
    assert names(celeba_hq(tmp_path, "validation")) == ["1.png"]
    with pytest.raises(DatasetError, match=r"found neither test.flist, nor list_eval_partition.txt"):
        celeba_hq(tmp_path, "test")


def test_celeba_hq_is_split_by_celebas_partition_through_the_mapping(tmp_path):
    save(tmp_path, *(f"CelebA-HQ-img/{number}.jpg" for number in range(4)))
    mapping = [
        "idx orig_idx orig_file",
        "0 119613 119614.jpg",
        "1 162999 163000.jpg",
        "2 8 000009.jpg",
        "3 5 000006.jpg",
    ]
    write(tmp_path, "CelebA-HQ-to-CelebA-mapping.txt", *mapping)
    partition = ["000006.jpg 0", "000007.jpg 0", "000009.jpg 2", "119614.jpg 0", "163000.jpg 1"]  # 7 is not in HQ
    write(tmp_path, "list_eval_partition.txt", *partition)
    assert names(celeba_hq(tmp_path, "train")) == ["0.jpg", "3.jpg"]
    assert names(celeba_hq(tmp_path, "validation")) == ["1.jpg"]
    assert names(celeba_hq(tmp_path, "test")) == ["2.jpg"]
    write(tmp_path, "val_shuffled.flist", "celebahq/163000.png", "celebahq/000009.png")  # CelebA's numbers in a list
    assert names(celeba_hq(tmp_path, "validation")) == ["1.jpg", "2.jpg"]


def test_a_list_of_celeba_hq_that_names_absent_images_is_refused(tmp_path):
    save(tmp_path, "0.png")
    write(tmp_path, "train.flist", "0.png", "7.png")
    with pytest.raises(DatasetError, match=r"looked for the 2 images of train in .*: 1 are not there"):
        celeba_hq(tmp_path, "train")


def test_dtd_follows_its_split_files(tmp_path):
    save(tmp_path, *(f"images/banded/banded_000{number}.jpg" for number in (1, 2, 3)))
    for split, order in ((1, (1, 2, 3)), (10, (3, 1, 2))):
        for word, number in zip(("train", "val", "test"), order, strict=True):
            write(tmp_path, f"labels/{word}{split}.txt", f"banded/banded_000{number}.jpg")
    assert names(dtd(tmp_path, "train")) == ["banded_0001.jpg"]
    assert names(dtd(tmp_path, "test")) == ["banded_0003.jpg"]
    assert names(dtd(tmp_path, "validation", split=10)) == ["banded_0001.jpg"]
    with pytest.raises(DatasetError, match=r"looked for labels/train2\.txt in"):
        dtd(tmp_path, "train", split=2)
    with pytest.raises(ValueError, match=r"splits 1\.\.10, got 11"):
        dtd(tmp_path, "train", split=11)


def test_dtd_with_held_out_images_trains_on_all_the_others(tmp_path):
    every = [
        f"images/{kind}/{kind}_{number:04d}.jpg" for kind in ("banded", "woven", "zigzagged") for number in range(8)
    ]
    save(tmp_path, *every)
    train, validation = (names(dtd(tmp_path, part, held_out=3)) for part in ("train", "validation"))
    assert sorted(train + validation) == sorted(path.rsplit("/", 1)[1] for path in every)
    assert validation == ["banded_0004.jpg", "woven_0004.jpg", "zigzagged_0004.jpg"]  # the middle of each third
    with pytest.raises(ValueError, match=r"held_out must lie in 1\.\.23, got 24"):
        dtd(tmp_path, "train", held_out=24)


def test_an_unknown_part_is_refused(tmp_path):
    for layout in (celeba, celeba_hq, dtd):
        with pytest.raises(ValueError, match="part must be one of train, validation, test, got 'val'"):
            layout(tmp_path, "val")
