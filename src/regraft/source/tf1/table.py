"""Sorted tables of TensorFlow, which are LevelDB's: the index of a checkpoint.

A table is a row of blocks: entries with shared key prefixes, then restart points. The last 48 bytes say where the
index block lies, which says where the others lie. github.com/google/leveldb/blob/main/doc/table_format.md
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from regraft.errors import SourceError

_FOOTER, _MAGIC = 48, bytes.fromhex("57fb808b247547db")


def is_table(data: bytes) -> bool:
    """Whether the end of a file is that of a table."""
    return data[-8:] == _MAGIC


def read_table(data: bytes, where: str) -> Iterator[tuple[bytes, bytes]]:
    """Every key and value, in order.

    Args:
        data: the whole file.
        where: its path, for messages.

    Raises:
        SourceError: the file is no table, or a damaged one.
    """
    if not is_table(data) or len(data) < _FOOTER:
        raise _damaged(where, "its last bytes are not those of an index")
    try:
        footer = data[-_FOOTER:]
        _, at = _handle(footer, 0)
        index, _ = _handle(footer, at)
        for _, handle in _entries(_block(data, index, where)):
            yield from _entries(_block(data, _handle(handle, 0)[0], where))
    except (IndexError, ValueError) as error:
        raise _damaged(where, "a length points outside of it") from error


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """(offset, size) of a block, and where to read on."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value, at
    raise ValueError("a number without end")


def _block(data: bytes, handle: tuple[int, int], where: str) -> bytes:
    offset, size = handle
    if offset + size + 5 > len(data):
        raise ValueError("outside")
    block, kind = data[offset : offset + size], data[offset + size]
    if kind != 0:
        raise SourceError(
            f"{where} is compressed with Snappy, which is not read. Save it again with tf.train.Saver().save(...), "
            "which does not compress"
        )
    stored = int.from_bytes(data[offset + size + 1 : offset + size + 5], "little")
    if unmasked(stored) != crc32c(block + bytes([kind])):
        raise _damaged(where, "a checksum is wrong")
    return block


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise ValueError("too short")
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        size, at = _varint(block, at)
        if at + fresh + size > end or shared > len(key):
            raise ValueError("outside")
        key = key[:shared] + block[at : at + fresh]
        yield key, block[at + fresh : at + fresh + size]
        at += fresh + size


def _damaged(where: str, reason: str) -> SourceError:
    return SourceError(f"{where} is damaged or cut short: {reason}. Copy or download it again, then pass it")


def unmasked(stored: int) -> int:
    """A stored checksum without the mask that keeps checksums of checksums apart."""
    rotated = (stored - 0xA282EAD8) & 0xFFFFFFFF
    return ((rotated >> 17) | (rotated << 15)) & 0xFFFFFFFF


@cache
def _polynomial() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


def crc32c(data: bytes) -> int:
    """Castagnoli's checksum; a few megabytes per second, so for small data only.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    table, crc = _polynomial(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
