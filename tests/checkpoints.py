"""Small TensorFlow V2 checkpoints, written from the format's description for tests of the reader."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "bool": 10, "float16": 19}


def crc32c(data: bytes) -> int:
    """Return the CRC-32C bit by bit, as RFC 3720 defines it."""
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    encoded = b""
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def nested(field: int, message: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(message)) + message


def fixed32(field: int, value: int) -> bytes:
    return varint(field << 3 | 5) + value.to_bytes(4, "little")


def header(shards: int = 1, endianness: int = 0) -> bytes:
    return number(1, shards) + number(2, endianness) + nested(3, number(1, 1))


def entry(dtype: int, shape: tuple[int, ...], data: bytes, shard: int = 0, offset: int = 0) -> bytes:
    sizes = b"".join(nested(2, number(1, size)) for size in shape)
    where = number(3, shard) + number(4, offset) + number(5, len(data))
    return number(1, dtype) + nested(2, sizes) + where + fixed32(6, masked(crc32c(data)))


@dataclass
class Table:
    """A table file under construction."""

    content: bytes = b""

    def block(self, entries: list[tuple[bytes, bytes]], compression: int = 0) -> bytes:
        """Add a block and return its handle."""
        block, last = b"", b""
        for key, value in entries:
            shared = next((i for i, pair in enumerate(zip(key, last, strict=False)) if pair[0] != pair[1]), len(last))
            block += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
            last = key
        block += bytes(4) + (1).to_bytes(4, "little")  # one restart, at 0
        handle = varint(len(self.content)) + varint(len(block))
        block += bytes([compression])
        self.content += block + masked(crc32c(block)).to_bytes(4, "little")
        return handle


def table(entries: list[tuple[bytes, bytes]], block_size: int = 3, compression: int = 0) -> bytes:
    """Return a table file with a few entries per block."""
    file = Table()
    index = []
    for start in range(0, len(entries), block_size):
        block = entries[start : start + block_size]
        index.append((block[-1][0], file.block(block, compression)))
    handles = file.block([]) + file.block(index)
    return file.content + handles.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def write(folder: Path, shards: list[dict[str, np.ndarray]]) -> Path:
    """Write a checkpoint with the given variables in each shard and return its folder."""
    index = {b"": header(len(shards))}
    for shard, variables in enumerate(shards):
        content = b""
        for name, array in variables.items():
            data = array.tobytes()
            index[name.encode()] = entry(DTYPES[array.dtype.name], array.shape, data, shard, len(content))
            content += data
        (folder / f"model-7.data-{shard:05d}-of-{len(shards):05d}").write_bytes(content)
    return write_index(folder, sorted(index.items()))


def write_index(folder: Path, entries: list[tuple[bytes, bytes]], compression: int = 0) -> Path:
    """Write the index and the pointer file of a checkpoint and return its folder."""
    (folder / "model-7.index").write_bytes(table(entries, compression=compression))
    (folder / "checkpoint").write_text('model_checkpoint_path: "model-7"\n')
    return folder
