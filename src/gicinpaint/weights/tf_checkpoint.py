"""TensorFlow V2 checkpoints: the pointer file, the index and the shards of a directory."""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gicinpaint.weights.checksum import masked_crc32c
from gicinpaint.weights.tf_table import UnsupportedError, read_message, read_table

_STRING = 7  # the saved graph, not a weight
_DTYPES = {
    1: "<f4",
    2: "<f8",
    3: "<i4",
    4: "u1",
    5: "<i2",
    6: "i1",
    8: "<c8",
    9: "<i8",
    10: "?",
    17: "<u2",
    18: "<c16",
    19: "<f2",
    22: "<u4",
    23: "<u8",
}  # DataType of TensorFlow's types.proto
_REMEDY = "copy or download the whole checkpoint again"


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
            Where it points into another folder, files of the same name are looked for in this one.

    Raises:
        ValueError: If a file is absent, cut short, damaged or something else; the message names it.

    Source:
        TensorFlow, `tensor_bundle.proto` and `tensor_bundle.cc`.
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
    except UnsupportedError as error:
        raise ValueError(f"{index_path} cannot be read: {error}") from error
    except ValueError as error:
        raise ValueError(f"{index_path} cannot be read as the index of a V2 checkpoint: {error}; {_REMEDY}") from error
    variables: dict[str, NDArray[Any]] = {}
    for shard in sorted({entry.shard for entry in entries.values()}):
        path = _present(directory, names, f"{prefix}.data-{shard:05d}-of-{shard_count:05d}")
        variables |= _read_shard(path, {name: entry for name, entry in entries.items() if entry.shard == shard})
    return {name: variables[name] for name in entries}


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
        raise ValueError(
            f"{directory / name} must be there as part of the checkpoint, got {_listed(sorted(names))}; {_REMEDY}"
        )
    return directory / name


def _read_index(data: bytes) -> tuple[int, dict[str, _Entry]]:
    table = read_table(data)
    if b"" not in table:
        raise ValueError("its header is missing")
    header = read_message(table.pop(b""))
    shard_count = _number(header, 1)
    if _number(header, 2) != 0:
        raise UnsupportedError("it was written by a big-endian machine; save it again on a little-endian one")
    entries: dict[str, _Entry] = {}
    for key, value in table.items():
        name, fields = key.decode(), read_message(value)
        entry = _entry(name, fields)
        if entry.shard >= shard_count:
            raise ValueError(f"variable {name} lies in shard {entry.shard} of {shard_count}")
        if entry.dtype != _STRING:
            entries[name] = entry
    return shard_count, entries


def _entry(name: str, fields: dict[int, list[int | bytes]]) -> _Entry:
    if 7 in fields:
        raise UnsupportedError(f"variable {name} is stored in slices; save it again without a partitioner")
    sizes = [
        _number(read_message(_message(dimension)), 1)
        for shape in fields.get(2, [])
        for dimension in read_message(_message(shape)).get(2, [])
    ]
    entry = _Entry(_number(fields, 1), tuple(sizes), *(_number(fields, field) for field in (3, 4, 5, 6)))
    if entry.dtype == _STRING:
        return entry
    if entry.dtype not in _DTYPES:
        raise UnsupportedError(f"variable {name} has the type number {entry.dtype}; save it again as float32")
    if math.prod(sizes) * np.dtype(_DTYPES[entry.dtype]).itemsize != entry.size:
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
            dtype = np.dtype(_DTYPES[entry.dtype])
            variables[name] = np.ndarray(entry.shape, dtype, data).copy()
    return variables


def _number(fields: dict[int, list[int | bytes]], field: int) -> int:
    value = fields.get(field, [0])[-1]
    if not isinstance(value, int):
        raise ValueError(f"field {field} of a message is no number")
    return value


def _message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where a message is expected")
    return value


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return shown or "an empty folder"
