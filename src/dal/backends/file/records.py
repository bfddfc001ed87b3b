r"""Records of the journal as bytes: `crc32 length payload\n`, with eight hexadecimal digits for each of the numbers."""

from __future__ import annotations

import os
from typing import Final
from zlib import crc32

HEADER: Final = 18  # 8 hexadecimal digits, a space, twice
READ_BYTES: Final = 1024 * 1024


def encode(payload: bytes) -> bytes:
    """A whole record."""
    return b"%08x %08x %b\n" % (crc32(payload), len(payload), payload)


def length(buffer: bytes, place: int) -> int:
    """Bytes of the record here, as its header says; 0 where there is no header."""
    try:
        return HEADER + int(buffer[place + 9 : place + 17], 16) + 1 if buffer[place + 17 : place + 18] == b" " else 0
    except ValueError:
        return 0


def whole_at(buffer: bytes, place: int) -> int | None:
    """Bytes of the whole record here; None where there is none."""
    size = length(buffer, place)
    if not size or len(buffer) - place < size or buffer[place + size - 1] != 10:
        return None
    try:
        expected = int(buffer[place : place + 8], 16)
    except ValueError:
        return None
    return size if crc32(buffer[place + HEADER : place + size - 1]) == expected else None


def record_at(descriptor: int, offset: int) -> int:
    header = os.pread(descriptor, HEADER, offset)
    return whole_at(os.pread(descriptor, max(length(header, 0), HEADER), offset), 0) or 0


def whole_end(descriptor: int, start: int, size: int) -> int:
    """Where the last whole record ends of those that begin at or behind `start`, in so many bytes."""
    end = start
    while (found := find(descriptor, end, size)) is not None:
        end = found + record_at(descriptor, found)
    return end


def find(descriptor: int, start: int, end: int) -> int | None:
    """Offset of the first whole record at or behind `start`: there, or behind a line end."""
    offset, fresh = start, True
    while offset < end:
        if fresh and record_at(descriptor, offset):
            return offset
        chunk = os.pread(descriptor, min(READ_BYTES, end - offset), offset)
        place = chunk.find(b"\n")
        if not chunk or (fresh and not any(chunk)):
            return None
        offset, fresh = (offset + place + 1, True) if place >= 0 else (offset + len(chunk), False)
    return None
