"""What every blob store refuses before it does anything: keys, ranges, sizes, checksums and parts that cannot be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from dal.blobs.base import BlobCapabilities, Part
from dal.errors import AlreadyExistsError, CorruptDataError, InvalidInputError, LimitExceededError
from dal.limits import MAX_BLOB_KEY_BYTES, MAX_BLOB_URL_LIFE_S

_SEGMENTS: Final = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*").fullmatch
_PREFIX: Final = re.compile(r"[A-Za-z0-9._/-]*").fullmatch
_CHECKSUM: Final = re.compile(r"sha256:[0-9a-f]{64}").fullmatch
#: A media type with its parameters, as RFC 9110 writes one, of printable ASCII: it becomes a header.
_CONTENT_TYPE: Final = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(?:\s*;[ -~]*)?", re.ASCII).fullmatch
_MAX_CONTENT_TYPE_CHARS: Final = 255
_SHOWN_CHARS: Final = 40


def already_there(operation: str, key: str, backend: str) -> AlreadyExistsError:
    """What is raised where a blob was not to be replaced, and its key is taken."""
    return AlreadyExistsError(f"{operation}: {key} is there already", operation=f"blobs.{operation}", backend=backend)


def check_key(key: str) -> str:
    """The key, if it is one. Raises InvalidInputError, LimitExceededError."""
    if len(key) > MAX_BLOB_KEY_BYTES:
        raise LimitExceededError(f"blob key: found {len(key)} characters, at most {MAX_BLOB_KEY_BYTES} allowed")
    if not _SEGMENTS(key) or any(segment in (".", "..") for segment in key.split("/")):
        raise InvalidInputError(
            f"blob key: {key[:_SHOWN_CHARS]!r} is not of a-z A-Z 0-9 / . _ -, without empty, '.' or '..' segments"
        )
    return key


def check_prefix(prefix: str) -> str:
    """The beginning of keys, if keys can begin so. Raises InvalidInputError."""
    if len(prefix) > MAX_BLOB_KEY_BYTES or not _PREFIX(prefix):
        raise InvalidInputError(f"blob prefix: no key begins with {prefix[:_SHOWN_CHARS]!r}")
    return prefix


def check_content_type(content_type: str) -> str:
    """The media type, if it can stand in a header. Raises InvalidInputError."""
    if len(content_type) > _MAX_CONTENT_TYPE_CHARS or not _CONTENT_TYPE(content_type):
        raise InvalidInputError(f"content_type: {content_type[:_SHOWN_CHARS]!r} is no media type, as text/plain is")
    return content_type


def check_put(
    capabilities: BlobCapabilities, key: str, size: int | None, content_type: str, checksum: str | None
) -> None:
    """What `put` is given. Raises InvalidInputError, LimitExceededError."""
    check_key(key)
    check_content_type(content_type)
    check_size(capabilities, size)
    if checksum is not None and not _CHECKSUM(checksum):
        raise InvalidInputError(f"checksum: {checksum[:_SHOWN_CHARS]!r} is not 'sha256:' and 64 hexadecimal digits")


def check_size(capabilities: BlobCapabilities, size: int | None) -> None:
    """The bytes of a whole blob. Raises InvalidInputError, LimitExceededError."""
    if size is not None and size < 0:
        raise InvalidInputError(f"size: {size} is negative")
    if size is not None and size > capabilities.max_bytes:
        raise LimitExceededError(f"size: {size} bytes, at most {capabilities.max_bytes} allowed")


def check_range(start: int, end: int | None) -> None:
    """A range, before the blob's size is known. Raises InvalidInputError."""
    if start < 0 or (end is not None and end < start):
        raise InvalidInputError(f"range: {start} to {end} is none")


def resolve_range(key: str, size: int, start: int, end: int | None) -> tuple[int, int]:
    """The range within a blob of this size. Raises InvalidInputError where it begins beyond it."""
    if start > size:
        raise InvalidInputError(f"range: {key} has {size} bytes, none at {start}")
    return start, size if end is None else min(end, size)


def check_part(capabilities: BlobCapabilities, number: int, size: int) -> None:
    """One part's number and size. Raises InvalidInputError, LimitExceededError."""
    if number < 1:
        raise InvalidInputError(f"part: {number} is no number of a part; they begin at 1")
    if number > capabilities.max_parts:
        raise LimitExceededError(f"part: {number}, at most {capabilities.max_parts} parts allowed")
    if size < 0:
        raise InvalidInputError(f"part {number}: {size} bytes are none")
    if size > capabilities.max_part_bytes:
        raise LimitExceededError(f"part {number}: {size} bytes, at most {capabilities.max_part_bytes} allowed")


def check_parts(capabilities: BlobCapabilities, parts: Sequence[Part]) -> list[Part]:
    """The parts of a whole, by number. Raises InvalidInputError, LimitExceededError: the rules forbid them."""
    if not parts:
        raise InvalidInputError("parts: none were given; an upload has one at least")
    ordered = sorted(parts)
    for part in ordered:
        check_part(capabilities, part.number, part.size)
    if len({part.number for part in ordered}) < len(ordered):
        raise InvalidInputError("parts: a number was given twice")
    body, last = ordered[:-1], ordered[-1]
    for part in body:
        if part.size < capabilities.min_part_bytes:
            raise InvalidInputError(
                f"part {part.number}: {part.size} bytes, every part but the last needs {capabilities.min_part_bytes}"
            )
        if capabilities.equal_parts and part.size != body[0].size:
            raise InvalidInputError(
                f"part {part.number}: {part.size} bytes, but part {body[0].number} has {body[0].size}; "
                "all parts but the last must be equal here"
            )
    if capabilities.equal_parts and body and last.size > body[0].size:
        raise InvalidInputError(f"part {last.number}: {last.size} bytes, the last may not have more than the others")
    check_size(capabilities, sum(part.size for part in ordered))
    return ordered


def check_presign(
    method: str, expires_in: float, size: int | None, upload_id: str | None, part_number: int | None
) -> None:
    """What `presign` is given, the key and the part aside. Raises InvalidInputError."""
    if method not in ("GET", "PUT"):
        raise InvalidInputError(f"method: {method[:_SHOWN_CHARS]!r} cannot be signed; GET and PUT can")
    if not 1 <= expires_in <= MAX_BLOB_URL_LIFE_S:
        raise InvalidInputError(f"expires_in: {expires_in} seconds; 1 to {MAX_BLOB_URL_LIFE_S} are allowed")
    if method == "GET" and (size is not None or upload_id is not None):
        raise InvalidInputError("presign: a GET has no size and no upload")
    if (upload_id is None) != (part_number is None):
        raise InvalidInputError("presign: upload_id and part_number go together")


def check_arrived(
    key: str, *, found_size: int, found_checksum: str, size: int | None, checksum: str | None, backend: str
) -> None:
    """What arrived against what was announced. Raises CorruptDataError."""
    if size is not None and found_size != size:
        raise CorruptDataError(
            f"put: {key}: {found_size} bytes came, {size} were announced; nothing was stored",
            operation="blobs.put",
            backend=backend,
        )
    if checksum is not None and found_checksum != checksum:
        raise CorruptDataError(
            f"put: {key}: the bytes have the checksum {found_checksum}, not {checksum}; nothing was stored",
            operation="blobs.put",
            backend=backend,
        )
