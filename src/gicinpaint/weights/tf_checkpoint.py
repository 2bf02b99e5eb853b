"""TensorFlow V2 checkpoints: the pointer file, the index, a table of protocol-buffer messages, and the shards."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, text_format  # type: ignore[import-untyped]
from numpy.typing import NDArray

_STRING = 7  # the saved graph, not a weight
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 8: "<c8", 9: "<i8", 10: "?", 17: "<u2"}
DTYPES |= {18: "<c16", 19: "<f2", 22: "<u4", 23: "<u8"}  # DataType of TensorFlow's types.proto
FOOTER_SIZE = 48
_TRAILER_SIZE = 5  # after each block: compression, checksum
MAGIC = 0xDB4775248B80FB57  # of a table file
_SNAPPY = 1
_REMEDY = "copy or download the whole checkpoint again"

_SCHEMA = """
name: "tensor_bundle.proto" syntax: "proto3"
message_type { name: "Dimension" field { name: "size" number: 1 type: TYPE_INT64 } }
message_type { name: "Shape" field { name: "dim" number: 2 label: LABEL_REPEATED type_name: "Dimension" } }
message_type { name: "Header"
  field { name: "num_shards" number: 1 type: TYPE_INT32 } field { name: "endianness" number: 2 type: TYPE_INT32 } }
message_type { name: "Entry"
  field { name: "dtype" number: 1 type: TYPE_INT32 } field { name: "shape" number: 2 type_name: "Shape" }
  field { name: "shard_id" number: 3 type: TYPE_INT32 } field { name: "offset" number: 4 type: TYPE_INT64 }
  field { name: "size" number: 5 type: TYPE_INT64 } field { name: "crc32c" number: 6 type: TYPE_FIXED32 }
  field { name: "slices" number: 7 label: LABEL_REPEATED type: TYPE_BYTES } }
"""  # the fields of TensorFlow's tensor_bundle.proto that are needed
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(text_format.Parse(_SCHEMA, descriptor_pb2.FileDescriptorProto()))
HEADER, ENTRY = (message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name)) for name in ("Header", "Entry"))


class _UnsupportedError(ValueError):
    """A whole file of a kind that is not read."""


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
    except (ValueError, message.DecodeError) as error:
        raise ValueError(f"{index_path} cannot be read as the index of a V2 checkpoint: {error}; {_REMEDY}") from error
    variables: dict[str, NDArray[Any]] = {}
    for shard in sorted({entry.shard_id for entry in entries.values()}):
        path = _present(directory, names, f"{prefix}.data-{shard:05d}-of-{shard_count:05d}")
        variables |= _read_shard(path, {name: entry for name, entry in entries.items() if entry.shard_id == shard})
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


def _read_index(data: bytes) -> tuple[int, dict[str, Any]]:
    table = _read_table(data)
    if b"" not in table:
        raise ValueError("its header is missing")
    header = HEADER.FromString(table.pop(b""))
    if header.endianness != 0:
        raise _UnsupportedError("it was written by a big-endian machine; save it again on a little-endian one")
    entries: dict[str, Any] = {}
    for key, value in table.items():
        name = key.decode()
        entry = ENTRY.FromString(value)
        if not 0 <= entry.shard_id < header.num_shards:
            raise ValueError(f"variable {name} lies in shard {entry.shard_id} of {header.num_shards}")
        if entry.dtype != _STRING:
            _check_entry(name, entry)
            entries[name] = entry
    return header.num_shards, entries


def _check_entry(name: str, entry: Any) -> None:
    if entry.slices:
        raise _UnsupportedError(f"variable {name} is stored in slices; save it again without a partitioner")
    if entry.dtype not in DTYPES:
        raise _UnsupportedError(f"variable {name} has the type number {entry.dtype}; save it again as float32")
    shape, item_size = _shape(entry), np.dtype(DTYPES[entry.dtype]).itemsize
    if math.prod(shape) * item_size != entry.size or min(shape, default=0) < 0:
        raise ValueError(f"variable {name} of shape {shape} cannot have {entry.size} bytes")
    if entry.offset < 0:
        raise ValueError(f"variable {name} begins at {entry.offset}")


def _shape(entry: Any) -> tuple[int, ...]:
    return tuple(dimension.size for dimension in entry.shape.dim)


def _read_shard(path: Path, entries: dict[str, Any]) -> dict[str, NDArray[Any]]:
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
            if masked_crc32c(data) != entry.crc32c:
                raise ValueError(f"{path} must match its checksums, got other bytes for variable {name}; {_REMEDY}")
            variables[name] = np.ndarray(_shape(entry), np.dtype(DTYPES[entry.dtype]), data).copy()
    return variables


def _read_table(data: bytes) -> dict[bytes, bytes]:
    """Return every entry of a table file; compressed blocks, which TensorFlow 1.1 alone wrote, are refused."""
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


def _read_handle(data: bytes, position: int) -> tuple[int, int]:  # offset and size of a block
    offset, position = _read_varint(data, position)
    return offset, _read_varint(data, position)[0]


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
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
