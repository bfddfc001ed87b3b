"""What an application decides about files' contents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dal.limits import MAX_BLOB_BYTES

if TYPE_CHECKING:
    from dal.files.reader import FileReader


class Scanner(Protocol):
    """Looks into files, as a virus scanner does. Any async function of one reader is one."""

    async def __call__(self, reader: FileReader, /) -> str | None:
        """None where the file is clean, else what was found. What it raises lets the scan be tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """What an application decides about files' contents. Sizes are bytes.

    max_file_bytes   of one file.
    allowed_types    media types, `*` for any subtype (`image/*`); empty allows all. Judged by content.
    compress         store with zstd what becomes smaller by it. Not what is sent in parts or with signed requests: it
                     lies as it was sent.
    deduplicate      store equal contents once. What is sent in parts or with signed requests is compared when it is
                     completed: it is stored whole first, and removed again where equal content was there.
    retention_s      a deleted file can be restored for so long.
    quota_bytes, quota_files  of a user who was given no quota; None is no limit. Taken over at the first upload.
    scanner          looks into every new file, which is quarantined until then.
    """

    max_file_bytes: int = MAX_BLOB_BYTES
    allowed_types: tuple[str, ...] = ()
    compress: bool = False
    deduplicate: bool = False
    retention_s: float = 30 * 86_400.0
    quota_bytes: int | None = None
    quota_files: int | None = None
    scanner: Scanner | None = None
