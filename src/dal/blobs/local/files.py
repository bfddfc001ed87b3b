"""A blob's file: its content, and behind that 320 bytes that say what it is.

Content, media type and checksum come and go in one rename this way, with one sync, on every file system, and no copy of
the directory (cp, rsync, tar, a network drive) loses half of them, as it does extended attributes. A file that was cut
short or grew is known by its end. `head -c -320 FILE` is the content alone.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import struct
from datetime import UTC, datetime
from typing import Final, NamedTuple

from dal.blobs.base import BlobInfo
from dal.blobs.local import faults
from dal.blobs.local.errors import BACKEND
from dal.blobs.local.tree import Tree
from dal.errors import CorruptDataError, UnavailableError

_MAGIC: Final = b"dalblob1"
#: The content's size, its SHA-256, the length of the media type, the media type, nothing, and the mark.
_TRAILER: Final = struct.Struct(">Q32sB255s16x8s")
TRAILER_BYTES: Final = _TRAILER.size
_READING: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITING: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Trailer(NamedTuple):
    """What the end of a blob's file says."""

    size: int
    digest: bytes
    content_type: str

    @property
    def checksum(self) -> str:
        return f"sha256:{self.digest.hex()}"

    def encode(self) -> bytes:
        kind = self.content_type.encode("ascii")
        return _TRAILER.pack(self.size, self.digest, len(kind), kind, _MAGIC)


class Unfinished:
    """A file that is being written: it has a name for nobody but us, until `place` gives it one.

    Nothing is on the disk before the first `write` or `place`.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._name = f"{os.getpid()}-{secrets.token_hex(12)}"
        self._descriptor = -1
        self._hash = hashlib.sha256()
        self._is_there = False
        self.size = 0

    @property
    def checksum(self) -> str:
        """Of what was written so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, block: bytes) -> None:
        """More of the content."""
        faults.reach("blob.writing")
        self._open()
        self._hash.update(block)
        _write_all(self._descriptor, block)
        self.size += len(block)

    def place(self, directory: int, name: str, key: str, *, content_type: str, if_absent: bool = False) -> BlobInfo:
        """Syncs the file and gives it its name, durably. FileExistsError: `if_absent`, and the name is taken."""
        self._open()
        trailer = Trailer(self.size, self._hash.digest(), content_type)
        _write_all(self._descriptor, trailer.encode())
        faults.reach("blob.syncing")
        os.fsync(self._descriptor)
        info = _described(key, trailer, os.fstat(self._descriptor))
        faults.reach("blob.naming")
        if if_absent:
            # A hard link is refused where the name is taken, on every system; a rename would replace.
            os.link(self._name, name, src_dir_fd=self._tree.unfinished, dst_dir_fd=directory, follow_symlinks=False)
            faults.reach("blob.linked")
            self.discard()
        else:
            os.rename(self._name, name, src_dir_fd=self._tree.unfinished, dst_dir_fd=directory)
            self._is_there = False
        try:
            faults.reach("blob.named")
            os.fsync(directory)
        except OSError as error:
            raise UnavailableError(
                f"put: {self.checksum} was written and named, and may be gone after a loss of power: {error.strerror}",
                operation="blobs.put",
                backend=BACKEND,
                outcome="unknown",
            ) from error
        return info

    def discard(self) -> None:
        """Takes the file away, unless it has its name; to be called at the end in any case."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._is_there:
            self._is_there = False
            os.unlink(self._name, dir_fd=self._tree.unfinished)

    def _open(self) -> None:
        if self._descriptor < 0:
            self._descriptor = os.open(self._name, _WRITING, 0o600, dir_fd=self._tree.unfinished)
            self._is_there = True


def open_blob(directory: int, name: str, key: str) -> tuple[int, BlobInfo]:
    """A descriptor of the file, to be closed by the caller, and what it holds. FileNotFoundError, CorruptDataError."""
    descriptor = os.open(name, _READING, dir_fd=directory)
    try:
        return descriptor, _info(descriptor, key)
    except BaseException:
        os.close(descriptor)
        raise


def _info(descriptor: int, key: str) -> BlobInfo:
    status = os.fstat(descriptor)
    size = status.st_size - TRAILER_BYTES
    end = os.pread(descriptor, TRAILER_BYTES, size) if size >= 0 else b""
    found = _decode(end)
    if found is None or found.size != size:
        raise CorruptDataError(
            f"get: the file of {key} was cut short or is not the store's own; restore it from a backup",
            operation="blobs.get",
            backend=BACKEND,
        )
    return _described(key, found, status)


def _described(key: str, trailer: Trailer, status: os.stat_result) -> BlobInfo:
    # Another file takes a blob's place by rename: its inode and times tell one content from the next.
    etag = f"{status.st_ino:x}-{status.st_mtime_ns:x}"
    kind = trailer.content_type or None
    return BlobInfo(key, trailer.size, modified_at(status), kind, trailer.checksum, etag)


def modified_at(status: os.stat_result) -> datetime:
    """When the file was written."""
    return datetime.fromtimestamp(status.st_mtime, UTC)


def _decode(end: bytes) -> Trailer | None:
    if len(end) != TRAILER_BYTES:
        return None
    size, digest, length, kind, magic = _TRAILER.unpack(end)
    return Trailer(size, digest, kind[:length].decode("ascii")) if magic == _MAGIC else None


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
