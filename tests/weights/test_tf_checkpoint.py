"""Reading files: damage to the golden checkpoint, and small checkpoints written by tests/checkpoints.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import checkpoints
from gicinpaint.weights import read_checkpoint
from gicinpaint.weights.tf_checkpoint import masked_crc32c

FILES = ["checkpoint", "snap-0.index", "snap-0.data-00000-of-00001"]


@pytest.fixture
def copied(released: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copied"
    folder.mkdir()
    for name in FILES:
        shutil.copyfile(released / name, folder / name)
    return folder


def test_checksums_are_tensorflows_masked_crc32c() -> None:
    for data in (b"", b"123456789", bytes(32), np.random.default_rng(0).bytes(5000)):
        crc = checkpoints.crc32c(data)  # a loop over the bits
        assert masked_crc32c(data) == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
    assert checkpoints.crc32c(bytes(range(32))) == 0x46DD794E  # RFC 3720, appendix B.4


def _positions(size: int, count: int, tail: int = 0) -> list[int]:
    return sorted({*np.linspace(0, size - 1, count, dtype=int).tolist(), *range(size - tail, size)})


def _is_noticed(folder: Path, name: str, variables: dict[str, np.ndarray]) -> bool:
    """Return whether reading fails and names the file; if it does not fail, every array must be right."""
    try:
        found = read_checkpoint(folder)
    except ValueError as error:
        return name in str(error) or pytest.fail(f"{name} is not named: {error}")
    assert found.keys() == variables.keys()
    assert all(np.array_equal(found[key], array) for key, array in variables.items())
    return False


@pytest.mark.parametrize(
    ("name", "count", "tail", "harmless"),
    [
        ("checkpoint", 69, 0, 45),  # all but the name of the checkpoint
        ("snap-0.index", 900, 56, 40),  # in the footer: the handle of the empty meta index and zeros
        ("snap-0.data-00000-of-00001", 30, 0, 0),
    ],
)
def test_a_flipped_bit_is_noticed_or_harmless(
    copied: Path, variables: dict[str, np.ndarray], name: str, count: int, tail: int, harmless: int
) -> None:
    path = copied / name
    whole = path.read_bytes()
    noticed = []
    for turn, position in enumerate(_positions(len(whole), count, tail)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << turn % 8
        path.write_bytes(damaged)
        noticed.append(_is_noticed(copied, "snap" if name == "checkpoint" else name, variables))
    assert noticed.count(False) <= harmless


@pytest.mark.parametrize(
    ("name", "count", "tail", "harmless"),
    [
        ("checkpoint", 69, 0, 38),  # after the first line, of 31 bytes
        ("snap-0.index", 300, 56, 0),
        ("snap-0.data-00000-of-00001", 20, 3, 0),
    ],
)
def test_a_truncated_file_is_named(
    copied: Path, variables: dict[str, np.ndarray], name: str, count: int, tail: int, harmless: int
) -> None:
    path = copied / name
    whole = path.read_bytes()
    noticed = []
    for length in _positions(len(whole), count, tail):
        path.write_bytes(whole[:length])
        noticed.append(_is_noticed(copied, name, variables))
    assert noticed.count(False) <= harmless


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(ValueError, match=rf"{name} must be there as part of the checkpoint.*download"):
        read_checkpoint(copied)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"PK\x03\x04" * 100, b"\xff" * 100_000])
def test_a_foreign_file_is_named(copied: Path, name: str, content: bytes) -> None:
    (copied / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        read_checkpoint(copied)


def test_an_absent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere must be a folder .* got nothing there; unpack"):
        read_checkpoint(tmp_path / "nowhere")


def test_a_file_instead_of_a_folder_is_named(released: Path) -> None:
    with pytest.raises(ValueError, match=r"snap-0.index must be a folder .* got a file; .* pass its folder"):
        read_checkpoint(released / "snap-0.index")


def test_a_pointer_without_a_name_says_which_line_is_expected(copied: Path) -> None:
    (copied / "checkpoint").write_text("version 1")
    with pytest.raises(ValueError, match=r"checkpoint must name .* model_checkpoint_path: .*got 'version 1'"):
        read_checkpoint(copied)


@pytest.mark.parametrize("path", ["/home/authors/logs/snap-0", "logs/snap-0", "C:\\\\logs\\\\snap-0"])
def test_a_pointer_into_another_folder_is_followed_here(
    copied: Path, variables: dict[str, np.ndarray], path: str
) -> None:
    (copied / "checkpoint").write_text(f'model_checkpoint_path: "{path}"\n')
    assert read_checkpoint(copied).keys() == variables.keys()


def test_every_type_and_several_shards_are_read(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {
        "a/float16": random.normal(size=(3,)).astype(np.float16),
        "a/float32": random.normal(size=(2, 3, 4)).astype(np.float32),
        "a/float64": random.normal(size=(300,)),
        "b/bool": random.random(5) > 0.5,
        "b/int32": np.array(7, dtype=np.int32),
        "b/int64": np.array([-(2**40), 2**40]),
        "b/uint8": np.zeros((0, 3), dtype=np.uint8),
    }
    shards = [dict(list(arrays.items())[::2]), dict(list(arrays.items())[1::2])]
    found = read_checkpoint(checkpoints.write(tmp_path, shards))
    assert list(found) == sorted(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_text_entries_are_left_out(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path, [{"lr": np.array(1.0)}])
    graph = checkpoints.entry(7, (), b"\x01graph")
    lr = checkpoints.entry(2, (), np.array(1.0).tobytes())
    checkpoints.write_index(folder, [(b"", checkpoints.header()), (b"_GRAPH", graph), (b"lr", lr)])
    assert list(read_checkpoint(folder)) == ["lr"]


ONE = checkpoints.entry(1, (1,), bytes(4))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([(b"a", ONE)], "its header is missing"),
        ([], "its header is missing"),
        ([(b"", checkpoints.header()), (b"b", ONE), (b"a", ONE)], "its keys are out of order"),
        ([(b"", checkpoints.header()), (b"a", checkpoints.entry(1, (2,), bytes(4)))], r"shape \(2,\) .* 4 bytes"),
        ([(b"", checkpoints.header()), (b"a", checkpoints.entry(1, (1,), bytes(4), shard=1))], "shard 1 of 1"),
        ([(b"", checkpoints.header()), (b"\xff", ONE)], "utf-8"),
        ([(b"", checkpoints.header()), (b"a", checkpoints.number(1, 1) + checkpoints.number(2, 5))], "cannot have 0"),
        ([(b"", checkpoints.header()), (b"a", ONE + checkpoints.number(4, 2**64 - 1))], "begins at -1"),
        ([(b"", checkpoints.header()), (b"a", ONE[:-2])], "Error parsing message"),
        ([(b"", checkpoints.header()), (b"a", b"\x0b")], "Error parsing message"),  # a group that does not end
        ([(b"", checkpoints.header()), (b"a", b"\x08" + b"\xff" * 11)], "Error parsing message"),  # over 64 bits
    ],
)
def test_an_index_of_another_kind_is_named_with_the_reason(
    tmp_path: Path, entries: list[tuple[bytes, bytes]], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"model-7.index cannot be read as the index .*{message}.*download"):
        read_checkpoint(checkpoints.write_index(tmp_path, entries))


@pytest.mark.parametrize(
    ("entries", "compression", "message"),
    [
        ([(b"", checkpoints.header()), (b"a", ONE)], 1, "blocks are compressed; save .* with TensorFlow 1.2 or newer"),
        ([(b"", checkpoints.header(endianness=1)), (b"a", ONE)], 0, "big-endian machine; save it again on a little"),
        ([(b"", checkpoints.header()), (b"a", checkpoints.entry(14, (2,), bytes(4)))], 0, "number 14; .* as float32"),
        ([(b"", checkpoints.header()), (b"a", checkpoints.nested(1, b"x"))], 0, "number 0; .* as float32"),
        ([(b"", checkpoints.header()), (b"a", ONE + checkpoints.nested(7, b""))], 0, "in slices; .* without a part"),
    ],
)
def test_a_whole_index_of_a_kind_that_is_not_read_says_what_to_save_instead(
    tmp_path: Path, entries: list[tuple[bytes, bytes]], compression: int, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"model-7.index cannot be read: .*{message}") as error:
        read_checkpoint(checkpoints.write_index(tmp_path, entries, compression))
    assert "download" not in str(error.value)  # the same bytes would come again


def test_an_unknown_compression_is_named(tmp_path: Path) -> None:
    entries = [(b"", checkpoints.header()), (b"a", ONE)]
    with pytest.raises(ValueError, match=r"model-7.index .*unknown compression 9; .*download"):
        read_checkpoint(checkpoints.write_index(tmp_path, entries, 9))
