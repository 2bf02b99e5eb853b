"""TensorFlow V2 checkpoints: the pointer file, the index, a table of protocol-buffer messages, and the shards."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

_STRING = 7  # the saved graph, not a weight
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 8: "<c8", 9: "<i8", 10: "?", 17: "<u2"}
DTYPES |= {18: "<c16", 19: "<f2", 22: "<u4", 23: "<u8"}  # DataType of TensorFlow's types.proto
FOOTER_SIZE = 48
_TRAILER_SIZE = 5  # after each block: compression, checksum
MAGIC = 0xDB4775248B80FB57  # of a table file
_SNAPPY = 1
_REMEDY = "copy or download the whole checkpoint again"

Message = dict[int, list[int | bytes]]  # values by field number


class _UnsupportedError(ValueError):
    """A whole file of a kind that is not read; its message says what to write instead."""


class _Entry(NamedTuple):
    """One variable of the index: BundleEntryProto of TensorFlow's tensor_bundle.proto."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


def read_checkpoint(directory: str | Path) -> dict[str, NDArray[Any]]:
    """Return every variable of a TensorFlow V2 checkpoint, in TensorFlow's layout.

    All checksums are verified. Text entries, which hold the saved graph, are left out.

    Args:
        directory: Folder with the file `checkpoint` and the `.index` and `.data-*` files that it points to.
            If it points into another folder, files of the same name are looked for in this one.

    Raises:
        ValueError: If a file is absent, cut short, damaged or something else; the message names it.

    Source:
        TensorFlow, `tensor_bundle.proto` and `tensor_bundle.cc`; LevelDB, "doc/table_format.md".
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ValueError(
            f"{directory} must be a folder that holds a TensorFlow checkpoint, got "
            f"{'a file' if directory.exists() else 'nothing there'}; unpack the checkpoint and pass its folder"
        )
    names = {path.name for path in directory.iterdir() if path.is_file()}
    prefix = _prefix(directory, names)
    index_path = _present(directory, names, f"{prefix}.index")
    try:
        shard_count, entries = _read_index(index_path.read_bytes())
    except _UnsupportedError as error:
        raise ValueError(f"{index_path} cannot be read: {error}") from error
    except ValueError as error:
        raise ValueError(f"{index_path} cannot be read as the index of a V2 checkpoint: {error}; {_REMEDY}") from error
    variables: dict[str, NDArray[Any]] = {}
    for shard in sorted({entry.shard for entry in entries.values()}):
        path = _present(directory, names, f"{prefix}.data-{shard:05d}-of-{shard_count:05d}")
        variables |= _read_shard(path, {name: entry for name, entry in entries.items() if entry.shard == shard})
    return {name: variables[name] for name in entries}


def masked_crc32c(data: bytes) -> int:
    """Return the checksum that TensorFlow and LevelDB store: CRC-32C, rotated by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _prefix(directory: Path, names: set[str]) -> str:
    path = _present(directory, names, "checkpoint")
    text = path.read_bytes().decode(errors="replace")
    found = re.search(r'^\s*model_checkpoint_path\s*:\s*"([^"\r\n]+)"', text, re.MULTILINE)
    if found is None:
        raise ValueError(
            f'{path} must name the checkpoint in a line such as model_checkpoint_path: "snap-0", got {text[:80]!r}; '
            "write that line with the name of the .index file, less its ending"
        )
    return re.split(r"[/\\]", found[1])[-1]


def _present(directory: Path, names: set[str], name: str) -> Path:
    if name not in names:
        listed = ", ".join(sorted(names)[:8]) + (", ..." if len(names) > 8 else "")
        raise ValueError(
            f"{directory / name} must be there as part of the checkpoint, got {listed or 'an empty folder'}; {_REMEDY}"
        )
    return directory / name


def _read_index(data: bytes) -> tuple[int, dict[str, _Entry]]:
    table = _read_table(data)
    if b"" not in table:
        raise ValueError("its header is missing")
    header = _read_message(table.pop(b""))
    shard_count = _number(header, 1)
    if _number(header, 2) != 0:
        raise _UnsupportedError("it was written by a big-endian machine; save it again on a little-endian one")
    entries: dict[str, _Entry] = {}
    for key, value in table.items():
        name = key.decode()
        entry = _entry(name, _read_message(value))
        if entry.shard >= shard_count:
            raise ValueError(f"variable {name} lies in shard {entry.shard} of {shard_count}")
        if entry.dtype != _STRING:
            entries[name] = entry
    return shard_count, entries


def _entry(name: str, fields: Message) -> _Entry:
    if 7 in fields:
        raise _UnsupportedError(f"variable {name} is stored in slices; save it again without a partitioner")
    sizes = [
        _number(_submessage(dimension), 1) for shape in fields.get(2, []) for dimension in _submessage(shape).get(2, [])
    ]
    entry = _Entry(_number(fields, 1), tuple(sizes), *(_number(fields, field) for field in (3, 4, 5, 6)))
    if entry.dtype == _STRING:
        return entry
    if entry.dtype not in DTYPES:
        raise _UnsupportedError(f"variable {name} has the type number {entry.dtype}; save it again as float32")
    if math.prod(sizes) * np.dtype(DTYPES[entry.dtype]).itemsize != entry.size:
        raise ValueError(f"variable {name} of shape {entry.shape} cannot have {entry.size} bytes")
    return entry


def _read_shard(path: Path, entries: dict[str, _Entry]) -> dict[str, NDArray[Any]]:
    variables: dict[str, NDArray[Any]] = {}
    with path.open("rb") as shard:
        length = shard.seek(0, 2)
        for name, entry in entries.items():
            if entry.offset + entry.size > length:
                raise ValueError(
                    f"{path} must have at least {entry.offset + entry.size} bytes to hold variable {name}, "
                    f"got {length}; {_REMEDY}"
                )
            shard.seek(entry.offset)
            data = shard.read(entry.size)
            if masked_crc32c(data) != entry.checksum:
                raise ValueError(f"{path} must match its checksums, got other bytes for variable {name}; {_REMEDY}")
            variables[name] = np.ndarray(entry.shape, np.dtype(DTYPES[entry.dtype]), data).copy()
    return variables


def _read_table(data: bytes) -> dict[bytes, bytes]:
    """Return every entry of a table file; errors give the reason alone.

    Compressed blocks are refused: TensorFlow 1.1 alone wrote them, and the authors' code needs a later one.
    """
    if len(data) < FOOTER_SIZE or int.from_bytes(data[-8:], "little") != MAGIC:
        raise ValueError("it does not end as a table file does")
    position = len(data) - FOOTER_SIZE
    for _ in range(2):  # the handle of the meta index, which checkpoints leave empty
        _, position = _read_varint(data, position)
    handle = _read_handle(data, position)
    entries: dict[bytes, bytes] = {}
    last = b""
    for _, block in _read_block(data, *handle):
        for key, value in _read_block(data, *_read_handle(block, 0)):
            if entries and key <= last:
                raise ValueError("its keys are out of order")
            entries[key], last = value, key
    return entries


def _read_block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    end = offset + size
    if end + _TRAILER_SIZE > len(data) - FOOTER_SIZE:
        raise ValueError("a block lies outside the file")
    compression, stored = data[end], int.from_bytes(data[end + 1 : end + _TRAILER_SIZE], "little")
    if masked_crc32c(data[offset : end + 1]) != stored:
        raise ValueError("the checksum of a block is wrong")
    if compression == _SNAPPY:
        raise _UnsupportedError("its blocks are compressed; save the checkpoint again with TensorFlow 1.2 or newer")
    if compression:
        raise ValueError(f"a block has the unknown compression {compression}")
    block = data[offset:end]
    restart_count = int.from_bytes(_take(block, size - 4, 4), "little")
    entries = _take(block, 0, size - 4 * (restart_count + 1))
    position, key = 0, b""
    while position < len(entries):
        shared, position = _read_varint(entries, position)
        own, position = _read_varint(entries, position)
        value_size, position = _read_varint(entries, position)
        key = _take(key, 0, shared) + _take(entries, position, own)
        yield key, _take(entries, position + own, value_size)
        position += own + value_size


def _read_handle(data: bytes, position: int) -> tuple[int, int]:
    """Return the offset and the size of a block."""
    offset, position = _read_varint(data, position)
    return offset, _read_varint(data, position)[0]


def _read_message(data: bytes) -> Message:
    """Return the values of a protocol-buffer message."""
    fields: Message = {}
    position = 0
    value: int | bytes
    while position < len(data):
        tag, position = _read_varint(data, position)
        match tag & 7:
            case 0:
                value, position = _read_varint(data, position)
            case 1 | 5 as wire_type:
                size = 8 if wire_type == 1 else 4
                value, position = int.from_bytes(_take(data, position, size), "little"), position + size
            case 2:
                size, position = _read_varint(data, position)
                value, position = _take(data, position, size), position + size
            case wire_type:
                raise ValueError(f"a message holds wire type {wire_type}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a variable-length integer and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = _take(data, position, 1)[0]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("an integer is longer than 64 bits")


def _take(data: bytes, position: int, size: int) -> bytes:
    if position < 0 or size < 0 or position + size > len(data):
        raise ValueError("it ends early")
    return data[position : position + size]


def _number(fields: Message, field: int) -> int:
    value = fields.get(field, [0])[-1]
    if not isinstance(value, int):
        raise ValueError(f"field {field} of a message is no number")
    return value


def _submessage(value: int | bytes) -> Message:
    if isinstance(value, int):
        raise ValueError("a number stands where a message is expected")
    return _read_message(value)
