"""The sorted key-value table that TensorFlow keeps a checkpoint's index in, and protocol-buffer messages inside it.

Source:
    LevelDB, "doc/table_format.md"; protocol buffers, "Encoding". Errors raised here give the reason alone;
    `read_checkpoint` adds the file and what to do.
"""

from collections.abc import Iterator

from gicinpaint.weights.checksum import masked_crc32c

_FOOTER_SIZE = 48
_TRAILER_SIZE = 5  # after each block: compression, checksum
_MAGIC = 0xDB4775248B80FB57
_SNAPPY = 1


class UnsupportedError(ValueError):
    """A whole file of a kind that is not read; its message says what to write instead."""


def read_table(data: bytes) -> dict[bytes, bytes]:
    """Return every entry of a table file.

    Args:
        data: The whole file.

    Raises:
        ValueError: If it is no such table, ends early, or a block's checksum is wrong.
        UnsupportedError: If a block is compressed. TensorFlow 1.1 alone did that; from 1.2 on, its `tensor_bundle.cc`
            switches compression off, and the authors' code needs a later one.
    """
    if len(data) < _FOOTER_SIZE or int.from_bytes(data[-8:], "little") != _MAGIC:
        raise ValueError("it does not end as a table file does")
    position = len(data) - _FOOTER_SIZE
    for _ in range(2):  # the handle of the meta index, which checkpoints leave empty
        _, position = read_varint(data, position)
    handle, _ = _read_handle(data, position)
    entries: dict[bytes, bytes] = {}
    last = b""
    for _, block in _read_block(data, *handle):
        for key, value in _read_block(data, *_read_handle(block, 0)[0]):
            if entries and key <= last:
                raise ValueError("its keys are out of order")
            entries[key], last = value, key
    return entries


def read_message(data: bytes) -> dict[int, list[int | bytes]]:
    """Return the values of a protocol-buffer message by field number.

    Args:
        data: Encoded message.

    Raises:
        ValueError: If the message ends early or holds a wire type that is out of use.
    """
    fields: dict[int, list[int | bytes]] = {}
    position = 0
    value: int | bytes
    while position < len(data):
        tag, position = read_varint(data, position)
        match tag & 7:
            case 0:
                value, position = read_varint(data, position)
            case 1 | 5 as wire_type:
                size = 8 if wire_type == 1 else 4
                value, position = int.from_bytes(_take(data, position, size), "little"), position + size
            case 2:
                size, position = read_varint(data, position)
                value, position = _take(data, position, size), position + size
            case wire_type:
                raise ValueError(f"a message holds wire type {wire_type}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a variable-length integer and the position after it.

    Args:
        data: Bytes to read from.
        position: Where the integer starts.

    Raises:
        ValueError: If the bytes end inside it or it has over 64 bits.
    """
    value = 0
    for shift in range(0, 70, 7):
        byte = _take(data, position, 1)[0]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("an integer is longer than 64 bits")


def _read_block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    end = offset + size
    if end + _TRAILER_SIZE > len(data) - _FOOTER_SIZE:
        raise ValueError("a block lies outside the file")
    compression, stored = data[end], int.from_bytes(data[end + 1 : end + _TRAILER_SIZE], "little")
    if masked_crc32c(data[offset : end + 1]) != stored:
        raise ValueError("the checksum of a block is wrong")
    if compression == _SNAPPY:
        raise UnsupportedError("its blocks are compressed; save the checkpoint again with TensorFlow 1.2 or newer")
    if compression:
        raise ValueError(f"a block has the unknown compression {compression}")
    block = data[offset:end]
    restart_count = int.from_bytes(_take(block, size - 4, 4), "little")
    entries = _take(block, 0, size - 4 * (restart_count + 1))
    position, key = 0, b""
    while position < len(entries):
        shared, position = read_varint(entries, position)
        own, position = read_varint(entries, position)
        value_size, position = read_varint(entries, position)
        key = _take(key, 0, shared) + _take(entries, position, own)
        yield key, _take(entries, position + own, value_size)
        position += own + value_size


def _read_handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position


def _take(data: bytes, position: int, size: int) -> bytes:
    if position < 0 or size < 0 or position + size > len(data):
        raise ValueError("it ends early")
    return data[position : position + size]
