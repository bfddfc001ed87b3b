"""Content compressed in frames of zstd, each for itself, with a table at the end: whole by any zstd, and in ranges.

The form is the "seekable format" of the zstd project (contrib/seekable_format/zstd_seekable_compression_format.md):
frames of FILE_FRAME_BYTES of content, then a skippable frame that holds each frame's compressed and plain size, and a
footer of 9 bytes. A whole read needs no table; a range costs one read of the table and at most one frame in vain.
Memory is one frame, whatever a frame claims to hold.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from dal.errors import CorruptDataError
from dal.files.sniffing import essence_of
from dal.limits import BLOB_PIECE_BYTES, FILE_FRAME_BYTES, FILE_MIN_COMPRESSED_BYTES, FILE_MIN_GAIN

if TYPE_CHECKING:
    import zstandard

_LEVEL: Final = 3
_SKIPPABLE: Final = 0x184D2A5E
_SEEKABLE: Final = 0x8F92EAB1
FOOTER_BYTES: Final = 9
_HEADER: Final = struct.Struct("<II")
_ENTRY: Final = struct.Struct("<II")
_FOOTER: Final = struct.Struct("<IBI")
_HEADER_BYTES: Final = 18  # of a frame, at most

#: Types whose content is compressed already; the trial would say so too, at the cost of a block.
_DENSE: Final = ("image/", "video/", "audio/", "font/woff", "application/zip", "application/gzip", "application/zstd")
_LOOSE: Final = frozenset(
    ("image/svg+xml", "image/bmp", "image/tiff", "image/x-xcf", "audio/x-wav", "audio/wav", "audio/midi")
)


class Frame(NamedTuple):
    """Where a frame lies in the blob, and its content in the file."""

    at: int
    stored: int
    start: int
    size: int


def pays(mime_type: str, head: bytes) -> bool:
    """Whether compressing is worth it: by the type, and by trying the first block. Cost: 0.2 ms."""
    essence = essence_of(mime_type)
    if len(head) < FILE_MIN_COMPRESSED_BYTES or (essence.startswith(_DENSE) and essence not in _LOOSE):
        return False
    return len(_compress(head)) < FILE_MIN_GAIN * len(head)


async def compressed(content: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The content in frames, then their table. Each frame is made in a thread."""
    entries: list[bytes] = []
    async for block in _blocks(content):
        frame = await asyncio.to_thread(_compress, block)
        entries.append(_ENTRY.pack(len(frame), len(block)))
        yield frame
    table = b"".join(entries)
    yield _HEADER.pack(_SKIPPABLE, len(table) + FOOTER_BYTES) + table + _FOOTER.pack(len(entries), 0, _SEEKABLE)


async def decompressed(stored: AsyncIterable[bytes], key: str) -> AsyncGenerator[bytes, None]:
    """The content of whole frames as they come, the table passed over. Raises CorruptDataError."""
    import zstandard

    left, decoder, is_over, pieces = b"", None, False, aiter(stored)
    while not is_over:
        piece = await anext(pieces, None)
        is_over = piece is None
        left += piece or b""
        while left and (is_over or decoder is not None or len(left) >= _HEADER_BYTES):
            try:
                decoder = decoder or _decoder(left, key)
                content = await asyncio.to_thread(decoder.decompress, left)
            except zstandard.ZstdError as error:
                raise _broken(key) from error
            view = memoryview(content)
            for start in range(0, len(view), BLOB_PIECE_BYTES):
                yield bytes(view[start : start + BLOB_PIECE_BYTES])
            left = decoder.unused_data
            decoder = None if decoder.eof else decoder
    if decoder is not None:
        raise _broken(key)


def table_bytes(footer: bytes, key: str) -> int:
    """From the last FOOTER_BYTES of a blob: how long its table is, header and footer included."""
    count: int
    count, flags, magic = _FOOTER.unpack(footer)
    if magic != _SEEKABLE or flags:
        raise _broken(key)
    return _HEADER.size + count * _ENTRY.size + FOOTER_BYTES


def read_table(table: bytes, key: str) -> list[Frame]:
    """The frames that a table names, in order. Raises CorruptDataError."""
    magic, size = _HEADER.unpack_from(table)
    if magic != _SKIPPABLE or size != len(table) - _HEADER.size:
        raise _broken(key)
    frames, at, start = [], 0, 0
    for stored, content in _ENTRY.iter_unpack(table[_HEADER.size : -FOOTER_BYTES]):
        if content > FILE_FRAME_BYTES:
            raise _broken(key)
        frames.append(Frame(at, stored, start, content))
        at, start = at + stored, start + content
    return frames


def covering(frames: Sequence[Frame], start: int, end: int) -> tuple[int, int, int]:
    """The part of the blob that holds this range of content, and how much of its content comes before the range."""
    found = [frame for frame in frames if frame.start < end and frame.start + frame.size > start]
    if not found:
        return 0, 0, 0
    return found[0].at, found[-1].at + found[-1].stored, start - found[0].start


async def _blocks(content: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    buffer = bytearray()
    async for piece in content:
        buffer += piece
        while len(buffer) >= FILE_FRAME_BYTES:
            yield bytes(memoryview(buffer)[:FILE_FRAME_BYTES])
            del buffer[:FILE_FRAME_BYTES]
    if buffer:
        yield bytes(buffer)


def _compress(block: bytes) -> bytes:
    import zstandard

    frame = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(block)
    return bytes(memoryview(frame))  # theirs holds on to room for a block that does not shrink


def _decoder(beginning: bytes, key: str) -> zstandard.ZstdDecompressionObj:
    """For one frame, if it says of itself that it holds no more than a frame of this library can."""
    import zstandard

    if int.from_bytes(beginning[:4], "little") != _SKIPPABLE and not (
        0 <= zstandard.frame_content_size(beginning) <= FILE_FRAME_BYTES
    ):
        raise _broken(key)
    return zstandard.ZstdDecompressor().decompressobj()


def _broken(key: str) -> CorruptDataError:
    return CorruptDataError(f"blobs: {key} is not the compressed content that was stored", operation="files.open")
