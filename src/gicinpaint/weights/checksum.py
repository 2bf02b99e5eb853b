"""CRC-32C, the checksum of TensorFlow's files, fast enough for whole networks."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

_POLYNOMIAL = 0x82F63B78  # Castagnoli, bits reversed
_SHORT = 128  # bytes below which a plain loop is faster than setting up the lanes
_BITS = np.arange(32, dtype=np.uint32)


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of some bytes.

    Long data is cut into equal lanes that are worked on together. A remainder is linear in the message, so the lanes'
    remainders are merged pairwise: the left one is moved past the right one's bytes and added.

    Args:
        data: Bytes to sum up.

    Source:
        RFC 3720, appendix B.4.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    if len(data) < _SHORT:
        return _plain(data)
    lane_count = 1 << ((len(data) - 1).bit_length() // 2)
    lane_size = -(-len(data) // lane_count)
    # Zeros in front leave a remainder of 0 unchanged; inverting the first four bytes stands for the initial ~0.
    padded = np.zeros(lane_count * lane_size, dtype=np.uint8)
    start = padded.size - len(data)
    padded[start:] = np.frombuffer(data, dtype=np.uint8)
    padded[start : start + 4] ^= 0xFF
    table = _table()
    remainder = np.zeros(lane_count, dtype=np.uint32)
    for column in np.ascontiguousarray(padded.reshape(lane_count, lane_size).T):
        remainder = table[(remainder ^ column) & 0xFF] ^ (remainder >> np.uint32(8))
    shift = _zeros_operator(lane_size)
    while remainder.size > 1:
        remainder = _apply(shift, remainder[::2]) ^ remainder[1::2]
        shift = _apply(shift, shift)
    return int(remainder[0]) ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """Return the checksum as TensorFlow stores it: rotated by 15 bits, plus a constant.

    Args:
        data: Bytes to sum up.

    Source:
        TensorFlow and LevelDB, `crc32c::Mask`.
    """
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _plain(data: bytes) -> int:
    table = _table_list()
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder = table[(remainder ^ byte) & 0xFF] ^ (remainder >> 8)
    return remainder ^ 0xFFFFFFFF


@lru_cache
def _table() -> Words:
    remainder = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        remainder = (remainder >> np.uint32(1)) ^ (remainder & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    return remainder


@lru_cache
def _table_list() -> list[int]:
    return _table().tolist()


@lru_cache
def _zeros_operator(length: int) -> Words:
    """Return what a run of zero bytes does to each of a remainder's 32 bits."""
    bits = np.uint32(1) << _BITS
    operator, power = bits, _table()[bits & 0xFF] ^ (bits >> np.uint32(8))  # identity, one zero byte
    while length:
        if length & 1:
            operator = _apply(power, operator)
        power = _apply(power, power)
        length >>= 1
    return operator


def _apply(operator: Words, remainders: Words) -> Words:
    chosen = (remainders[:, None] >> _BITS) & np.uint32(1)  # (count, 32)
    return np.bitwise_xor.reduce(chosen * operator, axis=1)
