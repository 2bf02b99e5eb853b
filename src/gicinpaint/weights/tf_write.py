"""TensorFlow V2 checkpoints, written: our state dicts as the authors' variables, and the files that hold them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gicinpaint.config.atomic_files import atomic_file, write_text
from gicinpaint.weights.tf_checkpoint import DTYPES, ENTRY, FOOTER_SIZE, MAGIC, masked_crc32c
from gicinpaint.weights.tf_convert import network_tables

_NUMBERS = {np.dtype(name): number for number, name in DTYPES.items()}
_RESTART_INTERVAL = 16  # entries of a block after which a whole key is written again
_HEADER = b"\x08\x01\x1a\x02\x08\x01"  # BundleHeaderProto: one shard, little-endian, version 1


def revert(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, NDArray[Any]]:
    """Return networks' state dicts as variables of the authors' code, in float32: the inverse of `tf_convert.convert`.

    Only released networks can be written; a generator's variables do not tell its padding.
    """
    variables: dict[str, NDArray[Any]] = {}
    tables = network_tables()
    for part, state in parts.items():
        wrong = sorted(state.keys() ^ tables[part].keys())
        if wrong:
            raise ValueError(
                f"the {part} must have the layers of a released network to be written for TensorFlow, {len(wrong)} "
                f"tensors are absent or left over, the first {wrong[0]}; keep it as safetensors"
            )
        for name, tensor in state.items():
            variables[tables[part][name]] = _array(name, tensor, state)
    return variables


def write_checkpoint(variables: Mapping[str, NDArray[Any]], folder: str | Path, prefix: str = "snap-0") -> None:
    """Write variables as a TensorFlow V2 checkpoint that TensorFlow and `read_checkpoint` open.

    The files are those that TensorFlow's Saver writes, byte by byte, but for the graph, which no reader of variables
    needs. The pointer file comes last: a kill leaves no checkpoint rather than half of one.

    Raises:
        ValueError: If an array is of a type that is not read either.

    Source:
        TensorFlow, `tensor_bundle.proto` and `tensor_bundle.cc`; LevelDB, "doc/table_format.md".
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkpoint").unlink(missing_ok=True)
    entries, offset = [(b"", _HEADER)], 0
    with atomic_file(folder / f"{prefix}.data-00000-of-00001") as partial, partial.open("wb") as shard:
        for name, array in sorted(variables.items(), key=lambda item: item[0].encode()):
            if array.dtype not in _NUMBERS:
                raise ValueError(f"{name} must be of a numeric type, got {array.dtype}; convert it to float32")
            data = array.tobytes()  # in the order of the axes, whatever the memory's
            shard.write(data)
            entry = ENTRY(dtype=_NUMBERS[array.dtype], offset=offset, size=len(data), crc32c=masked_crc32c(data))
            entry.shape.SetInParent()
            for size in array.shape:
                entry.shape.dim.add(size=size)
            entries.append((name.encode(), entry.SerializeToString()))
            offset += len(data)
    with atomic_file(folder / f"{prefix}.index") as partial:
        partial.write_bytes(_table(entries))
    pointers = f'model_checkpoint_path: "{prefix}"\nall_model_checkpoint_paths: "{prefix}"\n'
    write_text(folder / "checkpoint", pointers)


def _array(name: str, tensor: Tensor, state: Mapping[str, Tensor]) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().float().numpy()
    if name.endswith(".u"):
        return array[None]
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(2, 3, 1, 0))  # (out, in, height, width) to (height, width, in, out)
    if array.ndim == 2:  # (C, H, W) to rows in (H, W, C) order
        return np.ascontiguousarray(array.reshape(len(state["features.3.bias"]), -1).T.reshape(-1, 1))
    return array


def _table(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Return a table file with all entries in one block, as TensorFlow does up to 256 KB."""
    table = b""
    handles = []
    last = bytearray(entries[-1][0])
    end = next(i for i, byte in enumerate(last) if byte < 0xFF)  # the index names a short key from the last one on
    last[end] += 1
    for block in (_block(entries, _RESTART_INTERVAL), _block([], _RESTART_INTERVAL)):
        handles.append(_varint(len(table)) + _varint(len(block)))
        table += _with_trailer(block)
    index = _block([(bytes(last[: end + 1]), handles[0])], 1)
    footer = (handles[1] + _varint(len(table)) + _varint(len(index))).ljust(FOOTER_SIZE - 8, b"\0")
    return table + _with_trailer(index) + footer + MAGIC.to_bytes(8, "little")


def _block(entries: list[tuple[bytes, bytes]], restart_interval: int) -> bytes:
    block, last = b"", b""
    restarts: list[int] = []
    for number, (key, value) in enumerate(entries):
        if number % restart_interval:
            differ = (i for i, (one, other) in enumerate(zip(key, last, strict=False)) if one != other)
            shared = next(differ, min(len(key), len(last)))
        else:
            shared = 0
            restarts.append(len(block))
        block += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        last = key
    return block + b"".join(n.to_bytes(4, "little") for n in [*(restarts or [0]), len(restarts) or 1])


def _with_trailer(block: bytes) -> bytes:
    block += b"\0"  # not compressed
    return block + masked_crc32c(block).to_bytes(4, "little")


def _varint(value: int) -> bytes:
    encoded = b""
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])
