"""Shards: the images of the source, each once per epoch, read in order, found again after any start."""

import http.server
import io
import itertools
import os
import pickle
import tarfile
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from gicinpaint.data import DatasetError, ImageError, ImageFiles, InpaintingDataModule, Packing, TarShards, prepare
from gicinpaint.data.shard_index import ShardCache, expand, index_path, read_index
from gicinpaint.masks import RectangleMask

COUNT, PER_SHARD = 23, 4


def pictures(folder, count=COUNT, size=(24, 20)):
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"picture {number:03d}.png")
    return ImageFiles(folder)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("source") / "images")


@pytest.fixture(scope="module")
def packed(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    prepare({"train": source}, folder, Packing(images_per_shard=PER_SHARD), workers=0, progress=False)
    return folder / "train"


def contents(source):
    return {source.encoded(index) for index in range(len(source))}


def copy_without_index(packed, target):
    target.mkdir()
    for shard in packed.glob("*.tar"):
        (target / shard.name).write_bytes(shard.read_bytes())
    return target


def packed_names(shards):
    return [name for shard in shards.shards for name in read_index(shard, shards.cache).names]


def test_shards_hold_every_image_of_the_source_byte_for_byte(source, packed):
    shards = TarShards(packed)
    assert len(shards) == COUNT
    assert [len(piece) for piece in shards.starts.diff().split(1)] == [1] * 6
    assert shards.starts.diff().tolist() == [4, 4, 4, 4, 4, 3]
    assert contents(shards) == contents(source)
    assert sorted(packed_names(shards)) == sorted(os.fsencode(source.name(index)) for index in range(COUNT))


def test_pixels_are_those_of_the_source(source, packed):
    shards = TarShards(packed)
    by_name = {source.name(index): source.read(index) for index in range(COUNT)}
    for index, name in enumerate(packed_names(shards)):
        assert np.array_equal(np.asarray(shards.read(index)), np.asarray(by_name[os.fsdecode(name)]))


def test_shards_without_an_index_are_scanned_to_the_same_images(packed, tmp_path):
    bare = copy_without_index(packed, tmp_path / "bare")
    scanned, indexed = TarShards(bare, cache_dir=tmp_path / "cache"), TarShards(packed)
    assert torch.equal(scanned.entries, indexed.entries)
    assert len(list((tmp_path / "cache").glob("*.index.npz"))) == 6
    again = TarShards(bare, cache_dir=tmp_path / "cache")
    assert torch.equal(again.entries, indexed.entries)


def test_the_kept_index_of_a_shard_that_was_written_again_is_made_again(tmp_path):
    shard, cache = tmp_path / "shard.tar", tmp_path / "cache"
    for seconds, sizes in ((1000, (8, 200)), (2_000_000_000, (200, 8))):  # tar pads both to 10 KiB
        with tarfile.open(shard, "w") as file:
            for number, size in enumerate(sizes):
                member = tarfile.TarInfo(f"{number}.bmp")
                content = io.BytesIO()
                Image.new("L", (size, 1)).save(content, "BMP")
                member.size = len(content.getvalue())
                file.addfile(member, io.BytesIO(content.getvalue()))
        os.utime(shard, (seconds, seconds))
        shards = TarShards(shard, cache_dir=cache)
        assert [shards.read(index).width for index in range(2)] == list(sizes)


@pytest.mark.parametrize("window", [1, 2, 16])
def test_an_epoch_has_every_image_once_and_reads_each_shard_from_front_to_back(packed, window):
    shards = TarShards(packed, window=window)
    seen = set()
    for epoch in range(8):
        order = shards.order(3, epoch).tolist()
        assert sorted(order) == list(range(COUNT))
        whose = [shards._find(index)[0] for index in order]
        first_and_last = [(whose.index(shard), len(whose) - whose[::-1].index(shard)) for shard in range(6)]
        at_once = max(sum(first <= place < last for first, last in first_and_last) for place in range(COUNT))
        assert at_once <= window
        for shard in range(6):
            inside = [index for index in order if shards._find(index)[0] == shard]
            backwards = sum(later < earlier for earlier, later in itertools.pairwise(inside))
            assert backwards <= 1  # one turn from the end to the start
        seen.add(tuple(order))
    assert len(seen) == 8
    assert shards.order(3, 5).tolist() == TarShards(packed, window=window).order(3, 5).tolist()
    assert shards.order(4, 5).tolist() != shards.order(3, 5).tolist()


@pytest.mark.parametrize("window", [1, 16])
def test_every_image_of_a_shard_comes_first_in_some_epoch(packed, window):
    shards = TarShards(packed, window=window)
    firsts = set()
    for epoch in range(64):  # an image that is the first of 4 by chance is never it with probability 0.75**64 = 1e-8
        order = shards.order(0, epoch)
        firsts |= {int(order[(order >= first) & (order < last)][0]) for first, last in shards.starts.unfold(0, 2, 1)}
    assert firsts == set(range(COUNT))


def make_data(shards, workers, context=None):
    return InpaintingDataModule(
        shards,
        shards,
        RectangleMask(box=8, inset=2),
        image_size=16,
        batch_size=6,
        workers=workers,
        multiprocessing_context=context,
    )


def take(data, count=9):
    return list(itertools.islice(data.train_dataloader(), count))


@pytest.mark.parametrize(("workers", "context"), [(1, None), (3, None), (2, "spawn")])
def test_batches_from_shards_do_not_depend_on_workers(packed, workers, context):
    alone = take(make_data(TarShards(packed), 0))
    for one, other in zip(alone, take(make_data(TarShards(packed), workers, context)), strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.mask, other.mask)


def test_a_resumed_run_continues_inside_an_epoch_of_shards(packed):
    whole = take(make_data(TarShards(packed), 0), 9)
    data = make_data(TarShards(packed), 0)
    data._batches_seen = lambda: 5
    for one, other in zip(whole[5:], take(data, 4), strict=True):
        assert torch.equal(one.image, other.image)


def test_more_open_shards_than_allowed_are_closed_and_opened_again(packed, monkeypatch):
    monkeypatch.setattr("gicinpaint.data.shards._OPEN_FILES", 2)
    shards = TarShards(packed, window=2)
    before = [shards.encoded(index) for index in range(COUNT)]
    assert len(shards._open) == 2
    assert [shards.encoded(index) for index in range(COUNT)] == before


def test_shards_travel_to_another_process(packed):
    shards = TarShards(packed)
    shards.read(0)
    copy = pickle.loads(pickle.dumps(shards))
    assert copy.encoded(5) == shards.encoded(5)


def test_a_shard_that_lost_its_end_is_found_at_the_start(packed, tmp_path):
    bare = copy_without_index(packed, tmp_path / "bare")
    shard = bare / "shard-000002.tar"
    shard.write_bytes(shard.read_bytes()[:-12000])
    with pytest.raises(DatasetError, match=r"cannot read the shard .*shard-000002\.tar'"):
        TarShards(bare)
    (bare / "shard-000002.index.npz").write_bytes((packed / "shard-000002.index.npz").read_bytes())
    with pytest.raises(DatasetError, match=r"shard-000002\.tar' has \d+ bytes, its index says \d+; copy both again"):
        TarShards(bare)


WILD = {
    "beyond the end": lambda entries: entries + 10**9,
    "below zero": lambda entries: entries - 10**6,
    "beyond what numbers hold": lambda entries: np.full_like(entries, 2**63 - 1),
    "no whole numbers": lambda entries: entries + np.nan,
    "a column too many": lambda entries: np.concatenate([entries, entries[:, :1]], 1),
    "words": lambda entries: entries.astype(str),
    "fewer than names": lambda entries: entries[:1],
    "none": lambda entries: entries[:0],
}


@pytest.mark.parametrize("wild", WILD)
def test_an_index_that_points_anywhere_is_made_again(wild, source, packed, tmp_path):
    bare = copy_without_index(packed, tmp_path / "bare")
    for index in packed.glob("*.index.npz"):
        with np.load(index) as kept:
            parts = dict(kept)
        np.savez(bare / index.name, **{**parts, "entries": WILD[wild](parts["entries"])})
    assert contents(TarShards(bare)) == contents(source)


def test_a_shard_cut_during_the_run_gives_an_image_error(packed, tmp_path):
    bare = copy_without_index(packed, tmp_path / "bare")
    shards = TarShards(bare)
    (bare / "shard-000001.tar").write_bytes(b"")
    with pytest.raises(ImageError, match=r"shard-000001\.tar' image 1: the shard ends before it"):
        shards.read(5)


@pytest.mark.parametrize("content", [b"", b"not a tar file" * 100])
def test_what_is_no_tar_file_is_named(tmp_path, content):
    (tmp_path / "shard.tar").write_bytes(content)
    with pytest.raises(DatasetError, match=r"shard\.tar'"):
        TarShards(tmp_path)


def test_absent_shards_say_where_they_were_looked_for(packed, tmp_path):
    with pytest.raises(DatasetError, match=r"looked for \.tar shards in .*none.*: found none; write them"):
        TarShards(tmp_path / "none")
    with pytest.raises(DatasetError, match="looked for 24 images in 6 shards"):
        TarShards(packed, expected=24)
    with pytest.raises(ValueError, match=r"window must be a number of shards in 1\.\.64, got 0"):
        TarShards(tmp_path, window=0)


def test_names_of_shards_expand(tmp_path):
    for name in ("a-01.tar", "a-02.tar", "b.tar", "note.txt"):
        (tmp_path / name).touch()
    paths = [f"{tmp_path}/a-01.tar", f"{tmp_path}/a-02.tar", f"{tmp_path}/b.tar"]
    assert expand(tmp_path) == paths
    assert expand(f"{tmp_path}/a-*.tar") == paths[:2]
    assert expand([f"{tmp_path}/b.tar", f"{tmp_path}/a-{{01..02}}.tar"]) == [paths[2], *paths[:2]]
    assert expand("s3://b/x-{08..11}.tar") == [f"s3://b/x-{number}.tar" for number in ("08", "09", "10", "11")]
    with pytest.raises(DatasetError, match="name remote shards by a range"):
        expand("s3://bucket/*.tar")


@pytest.fixture
def server(packed):
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(packed))

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_shards_behind_a_url_are_fetched_once_and_equal_the_local_ones(server, packed, tmp_path):
    pytest.importorskip("aiohttp")
    url, asked = server
    remote = TarShards(url + "/shard-{000000..000005}.tar", cache_dir=tmp_path)
    assert not any(path.endswith(".tar") for path in asked)  # the start needs the small indices only
    local = TarShards(packed)
    for _ in range(2):
        assert [remote.encoded(index) for index in range(COUNT)] == [local.encoded(index) for index in range(COUNT)]
    assert sorted(path for path in asked if path.endswith(".tar")) == [f"/shard-00000{n}.tar" for n in range(6)]
    assert not list(tmp_path.glob("*.partial"))


def test_fetched_shards_beyond_the_limit_are_deleted_and_fetched_again(server, packed, tmp_path):
    pytest.importorskip("aiohttp")
    url, _ = server
    size = max(path.stat().st_size for path in packed.glob("*.tar"))
    remote = TarShards(url + "/shard-{000000..000005}.tar", cache_dir=tmp_path, cache_gigabytes=2.5 * size / 1e9)
    assert [remote.encoded(index) for index in range(COUNT)] == [TarShards(packed).encoded(i) for i in range(COUNT)]
    assert 1 <= len(list(tmp_path.glob("*.tar"))) <= 2


def test_a_missing_remote_shard_and_a_missing_cache_folder_are_named(server, tmp_path):
    pytest.importorskip("aiohttp")
    url, _ = server
    with pytest.raises(DatasetError, match=r"looked for the shard '.*/shard-000009\.tar'"):
        TarShards(url + "/shard-000009.tar", cache_dir=tmp_path)
    with pytest.raises(DatasetError, match="without a folder on this machine; set cache_dir"):
        TarShards(url + "/shard-000000.tar")


def test_a_protocol_whose_package_is_absent_is_named(tmp_path):
    with pytest.raises(DatasetError, match="cannot fetch"):
        ShardCache(tmp_path).local("nosuchprotocol://host/shard.tar")


def test_the_webdataset_library_reads_our_shards_and_we_read_its(source, packed, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    files = sorted(map(str, packed.glob("*.tar")))
    samples = list(webdataset.WebDataset(files, shardshuffle=False))
    assert {sample["png"] for sample in samples} == contents(source)
    with webdataset.ShardWriter(str(tmp_path / "theirs-%03d.tar"), maxcount=10, verbose=0) as writer:
        for index in range(COUNT):
            writer.write({"__key__": f"{index:04d}", "png": source.encoded(index), "cls": b"3", "json": b"{}"})
    theirs = TarShards(tmp_path)
    assert len(theirs) == COUNT
    assert [theirs.encoded(index) for index in range(COUNT)] == [source.encoded(index) for index in range(COUNT)]


def test_members_that_are_no_images_are_passed_over(tmp_path):
    with tarfile.open(tmp_path / "mixed.tar", "w") as shard:
        for name, content in [("a/1.txt", b"text"), ("a/1.JPG", b"jpeg"), ("a", None), ("x" * 150 + ".png", b"png")]:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
            member.size = len(content or b"")
            shard.addfile(member, io.BytesIO(content or b""))
    shards = TarShards(tmp_path)
    assert [shards.encoded(index) for index in range(len(shards))] == [b"jpeg", b"png"]
    with pytest.raises(ImageError, match=r"mixed\.tar' image 0: its content is none of JPEG"):
        shards.read(0)
    assert index_path("a/shard-000000.tar") == "a/shard-000000.index.npz"
