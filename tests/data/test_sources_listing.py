"""Lists of files: compact, in an order that never changes, and the sources built on them."""

import os
import pickle

import pytest
from PIL import Image

from gicinpaint.data import DatasetError, ImageFiles
from gicinpaint.data.sources import Names, list_folder, read_list


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_names_come_back_as_they_went_in():
    names = [b"a.png", "ä\n.jpg".encode(), b"\xff.png", b"d/e.png"]
    packed = Names.of(names)
    assert list(packed) == names
    assert packed[-1] == b"d/e.png"
    assert len(packed) == 4
    assert list(pickle.loads(pickle.dumps(packed))) == names
    assert len(Names.of(())) == 0
    with pytest.raises(IndexError, match=r"must lie in -4\.\.3, got 4"):
        packed[4]


def test_a_folder_is_listed_in_byte_order_with_its_own_files_first(tmp_path):
    touch(
        tmp_path, "b.jpg", "B.JPEG", "a/z.png", "a/y.webp", "a/c/x.tif", "é.bmp", "note.txt", ".hidden.png", ".d/q.png"
    )
    expected = [b"B.JPEG", b"b.jpg", "é.bmp".encode(), b"a/y.webp", b"a/z.png", b"a/c/x.tif"]
    assert list(list_folder(tmp_path)) == expected


def test_pictures_of_kinds_that_are_not_read_are_counted_in_one_line(tmp_path, caplog):
    touch(
        tmp_path, "b.jpg", "a.HEIC", "c.heic", "d/e.heic", "d/f.CR2", "d/g.avif", "d/h.cr2", ".i.heic", "heic", "k.txt"
    )
    assert list(list_folder(tmp_path)) == [b"b.jpg"]
    (line,) = caplog.messages
    counts = "3 .heic, 2 .cr2, 1 .avif"
    assert line == f"pictures in '{tmp_path}' that are not read: {counts}; convert them to PNG, TIFF or JPEG"
    for path in (tmp_path / "a.HEIC", f"{tmp_path}/*.heic"):
        with pytest.raises(DatasetError, match="found none; this kind is not read: convert them to PNG, TIFF or JPEG"):
            ImageFiles(path)
    caplog.clear()
    touch(tmp_path / "others", "a.png", "notes.md")
    assert len(list_folder(tmp_path / "others")) == 1
    assert not caplog.messages


def test_links_are_followed_and_a_loop_ends(tmp_path):
    touch(tmp_path / "elsewhere", "linked.png")
    touch(tmp_path / "data", "own.png")
    (tmp_path / "data" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    assert list(list_folder(tmp_path / "data")) == [b"own.png", b"more/linked.png"]


def test_a_kept_listing_is_used_until_a_folder_changes(tmp_path):
    data, kept = tmp_path / "data", tmp_path / "kept"
    touch(data, "a.png", "sub/b.png")
    for folder in (data, data / "sub"):
        os.utime(folder, (1e9, 1e9))  # long ago: a folder changed in this second is not kept
    assert list(list_folder(data, cache_dir=kept)) == [b"a.png", b"sub/b.png"]
    (listing,) = kept.iterdir()
    touch(data, "sub/c.png")
    os.utime(data / "sub", (1e9, 1e9))  # pretend that nothing changed: the kept list answers
    assert list(list_folder(data, cache_dir=kept)) == [b"a.png", b"sub/b.png"]
    os.utime(data / "sub", (1.1e9, 1.1e9))
    assert list(list_folder(data, cache_dir=kept)) == [b"a.png", b"sub/b.png", b"sub/c.png"]
    listing.write_bytes(b"cut off")
    assert len(list_folder(data, cache_dir=kept)) == 3


def test_a_folder_that_changed_just_now_is_not_kept(tmp_path):
    touch(tmp_path / "data", "a.png")
    list_folder(tmp_path / "data", cache_dir=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("content", [b"b.png\na.png\n", b"b.png\n\n\na.png", b"b.png\r\na.png\r\n", b"\nb.png\na.png"])
def test_a_list_keeps_its_order_whatever_its_line_ends(tmp_path, content):
    (tmp_path / "list.flist").write_bytes(content)
    assert list(read_list(tmp_path / "list.flist")) == [b"b.png", b"a.png"]


def test_an_empty_list_has_no_names(tmp_path):
    for content in (b"", b"\n\n", b"\r\n"):
        (tmp_path / "list.txt").write_bytes(content)
        assert len(read_list(tmp_path / "list.txt")) == 0


def test_a_pattern_takes_images_at_any_depth(tmp_path):
    touch(tmp_path, "a/1_large.png", "a/1_small.png", "b/c/2_large.JPG", "b/large.txt")
    names = [os.path.relpath(os.fsdecode(name), tmp_path) for name in ImageFiles(f"{tmp_path}/**/*large*").names]
    assert names == ["a/1_large.png", "b/c/2_large.JPG"]


@pytest.mark.parametrize("folder", ["plain", "odd [1]* folder"])
def test_folder_pattern_and_list_give_the_same_images(tmp_path, folder):
    root = tmp_path / folder
    root.mkdir()
    for shade in (10, 20):
        Image.new("RGB", (4, 4), (shade, 0, 0)).save(root / f"{shade}.png")
    (tmp_path / "all.flist").write_text(f"{folder}/10.png\n{folder}/20.png\n")
    (tmp_path / "rooted.txt").write_text("10.png\n20.png\n")
    (tmp_path / "absolute.txt").write_text(f"{root}/10.png\n{root}/20.png\n")
    sources = [
        ImageFiles(root),
        ImageFiles(tmp_path / "all.flist"),
        ImageFiles(tmp_path / "rooted.txt", root=root),
        ImageFiles(tmp_path / "absolute.txt"),
        ImageFiles(tmp_path / folder.split(" ")[0] / "*.png" if folder == "plain" else tmp_path / "odd*" / "*.png"),
    ]
    for source in sources:
        assert [source.read(index).getpixel((0, 0))[0] for index in range(len(source))] == [10, 20]


@pytest.mark.parametrize(
    ("path", "settings", "message"),
    [
        ("absent", {}, r"looked for images .* in '.*absent', which does not exist: found none; get it at example\.org"),
        ("empty", {}, r"looked for images .* in '.*empty': found none; get it at example\.org"),
        ("full/*.webp", {}, r"looked for images .* in '.*full/\*\.webp': found none; get it"),
        ("absent.flist", {}, r"looked for a list of images at '.*absent\.flist': no such file; get it at example\.org"),
        ("empty.txt", {}, r"looked for images .* in '.*empty\.txt': found none; get it"),
        (
            "wrong.txt",
            {},
            r"the 1 images of the list '.*wrong\.txt': none of 1 tried exists, .*; set root to the folder",
        ),
        ("full", {"expected": 3}, r"looked for 3 images in '.*full': found 1; get it at example\.org"),
    ],
)
def test_absent_data_says_what_was_looked_for_and_how_to_get_it(tmp_path, path, settings, message):
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "full", "a.png")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "wrong.txt").write_text("nowhere/a.png\n")
    with pytest.raises(DatasetError, match=message) as caught:
        ImageFiles(tmp_path / path, hint="get it at example.org", **settings)
    assert "\n" not in str(caught.value)


def test_a_sub_folder_that_vanishes_is_named(tmp_path):
    with pytest.raises(
        DatasetError, match=r"looked for images in '.*gone.*': No such file or directory; check the path"
    ):
        list_folder(tmp_path / "gone")
