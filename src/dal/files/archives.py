"""Bombs and polyglots, as far as a file's first and last bytes give them away.

    bomb       a zip archive whose own directory says that it unpacks to more than FILE_MAX_EXPANDED_BYTES and more than
               FILE_MAX_EXPANSION times its size, or whose entries overlap, as in the bombs that need no nesting
               (D. Fifield, "A better zip bomb", WOOT 2019).
    polyglot   a picture, sound, film or PDF that is a zip archive as well (it ends with an archive's directory), or a
               picture with a script, a web page or a PDF in its first bytes.

Nothing is unpacked here. Archives in archives, and formats other than zip, are not looked into: whoever unpacks must
set limits of their own.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from dal.errors import InvalidInputError
from dal.limits import FILE_MAX_EXPANDED_BYTES, FILE_MAX_EXPANSION

_END: Final = struct.Struct("<4s4H2LH")  # end of central directory
_END_MAGIC: Final = b"PK\x05\x06"
_ENTRY: Final = struct.Struct("<4s6H3L5H2L")  # one entry of it
_ENTRY_MAGIC: Final = b"PK\x01\x02"
_LARGE: Final = 0xFFFFFFFF  # the size stands in a zip64 field, the first of the extra fields with id 1
_ZIP64: Final = 1

_SINGLE: Final = ("image/", "audio/", "video/", "application/pdf")
_STRANGE: Final = re.compile(rb"<script|<html|<!doctype|<\?php|<iframe|%PDF-", re.I).search
_STRANGE_BYTES: Final = 2048


def check_content(found: str | None, head: bytes, tail: bytes, size: int) -> None:
    """Refuses what is dangerous to whoever opens it. `found` is what `sniff` saw. Raises InvalidInputError."""
    directory = _directory(tail)
    if found is not None and found.startswith(_SINGLE) and found != "image/svg+xml":
        if directory is not None:
            raise InvalidInputError(f"data: it is {found} and a zip archive at once; nothing good is both")
        if found.startswith("image/") and (strange := _STRANGE(head[:_STRANGE_BYTES])):
            raise InvalidInputError(
                f"data: a picture ({found}) with {strange[0].decode()!r} in it; nothing good is both"
            )
    if directory:
        _check_directory(directory, size)


def _check_directory(directory: bytes, size: int) -> None:
    packed = unpacked = at = 0
    while len(directory) - at >= _ENTRY.size and directory.startswith(_ENTRY_MAGIC, at):
        entry = _ENTRY.unpack_from(directory, at)
        name, extra, comment = entry[10:13]
        start = at + _ENTRY.size + name
        stored, plain = _sizes(entry[8], entry[9], directory[start : start + extra])
        packed, unpacked = packed + stored, unpacked + plain
        at = start + extra + comment
    if packed > size:
        raise InvalidInputError("data: a zip archive whose entries overlap, which is how bombs are built")
    if unpacked > FILE_MAX_EXPANDED_BYTES and unpacked > FILE_MAX_EXPANSION * size:
        raise InvalidInputError(
            f"data: a zip archive of {size} bytes that unpacks to {unpacked}; more than {FILE_MAX_EXPANSION} times its "
            f"size and more than {FILE_MAX_EXPANDED_BYTES} bytes is taken for a bomb"
        )


def _sizes(packed: int, unpacked: int, extra: bytes) -> tuple[int, int]:
    at = 0
    while len(extra) - at >= 4:
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64:
            numbers = [n for (n,) in struct.iter_unpack("<Q", extra[at + 4 : at + 4 + length // 8 * 8])]
            unpacked = numbers.pop(0) if unpacked == _LARGE and numbers else unpacked
            packed = numbers.pop(0) if packed == _LARGE and numbers else packed
            break
        at += 4 + length
    return packed, unpacked


def _directory(tail: bytes) -> bytes | None:
    """The directory of a zip archive that ends here; empty where it begins before the tail; None for no archive."""
    at = tail.rfind(_END_MAGIC)
    if at < 0 or len(tail) - at < _END.size:
        return None
    _, _, _, _, _, length, _, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail):
        return None
    # In zip64 a second end record lies between the directory and this one: the entries are found by their first magic.
    begin = at - length if length != _LARGE and length <= at else tail.find(_ENTRY_MAGIC)
    if begin < 0 or not tail.startswith(_ENTRY_MAGIC, begin):
        begin = tail.find(_ENTRY_MAGIC)
    return b"" if begin < 0 else tail[begin:at]
