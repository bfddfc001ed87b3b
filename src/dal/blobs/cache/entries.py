"""The directory of a cache: one file for each blob, never more bytes than allowed, whoever else fills it.

A file is the blob's content and, behind it, what the store said of the blob, as JSON with its length. Its time of
change is when it was last used, so that the order of use outlives processes. `total` holds the bytes of all files and
is changed under a lock that every process takes; a process that died in between leaves it wrong until the next
eviction, which counts. Every function waits for the disk: call it in a thread.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from dal.blobs.base import BlobInfo
from dal.limits import BLOB_BLOCK_BYTES, BLOB_LEFTOVER_S

_LENGTH_BYTES: Final = 8
_UNFINISHED: Final = "unfinished"
_TOTAL: Final = "total"


class Held:
    """An open file, closed with its holder: a call that is cancelled while it opens one never gets to know it.

    path  of a draft, which is taken away at its end unless it was stored.
    """

    def __init__(self, descriptor: int, path: Path | None = None) -> None:
        self.descriptor = descriptor
        self.path = path

    def close(self) -> None:
        """Closes it; a second call does nothing."""
        if self.descriptor >= 0:
            os.close(self.take())
        if self.path is not None:
            path, self.path = self.path, None
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def take(self) -> int:
        """The descriptor, now to be closed by the caller."""
        descriptor, self.descriptor = self.descriptor, -1
        return descriptor

    def __del__(self) -> None:
        self.close()


class Entries:
    """The files of a cache.

    max_bytes  of all of them, with what is written behind their contents.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes

    def open(self) -> None:
        """Makes the directory, and counts what is in it."""
        (self._directory / _UNFINISHED).mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked() as total:
            _write_total(total, self._evict(self._max_bytes))

    def find(self, key: str) -> tuple[Held, BlobInfo] | None:
        """The file of a blob, open, and what is known of it; None where there is none, or a damaged one."""
        try:
            held = Held(os.open(self._path(key), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
        except FileNotFoundError:
            return None
        info = _described(held.descriptor, key)
        if info is None:
            held.close()
            self.drop(key)
            return None
        os.utime(held.descriptor)
        return held, info

    def drop(self, key: str) -> None:
        """Forgets a blob."""
        with self._locked() as total, suppress(FileNotFoundError):
            path = self._path(key)
            size = path.stat().st_size
            path.unlink()
            _write_total(total, max(_read_total(total) - size, 0))

    def begin(self) -> Held:
        """A draft to write a content into, until it is stored."""
        path = self._directory / _UNFINISHED / secrets.token_hex(12)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return Held(os.open(path, flags, 0o600), path)

    def store(self, draft: Held, info: BlobInfo) -> None:
        """Makes a written content the blob's, in the place of what was there; others go to make room for it."""
        known = info._replace(modified_at=info.modified_at.isoformat())  # type: ignore[arg-type]
        end = json.dumps(known._asdict()).encode()
        assert draft.path is not None  # noqa: S101  # it was begun, and is stored once
        os.pwrite(draft.descriptor, end + len(end).to_bytes(_LENGTH_BYTES, "big"), info.size)
        size = info.size + len(end) + _LENGTH_BYTES
        place = self._path(info.key)
        with self._locked() as total:
            known_total = _read_total(total)
            if known_total + size > self._max_bytes:
                # An eighth more than is needed, so that not every new blob looks through the directory.
                known_total = self._evict(self._max_bytes * 7 // 8 - size)
            with suppress(FileNotFoundError):
                known_total -= place.stat().st_size
            place.parent.mkdir(mode=0o700, exist_ok=True)
            os.rename(draft.path, place)
            draft.path = None
            _write_total(total, known_total + size)

    def total_bytes(self) -> int:
        """The bytes of all files."""
        with self._locked() as total:
            return _read_total(total)

    def _evict(self, max_bytes: int) -> int:
        """Takes away what was not used for longest, until so many bytes are left at most; how many are. Locked."""
        found = sorted(self._files())
        total = sum(size for _, size, _ in found)
        for _, size, path in found:
            if total <= max_bytes:
                break
            with suppress(FileNotFoundError):
                path.unlink()
            total -= size
        return total

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """When each was last used, its bytes and its place. Clears away what a killed process was writing."""
        now = datetime.now().timestamp()
        for above in self._directory.iterdir():
            if not above.is_dir():
                continue
            for path in above.iterdir():
                with suppress(FileNotFoundError):
                    status = path.stat(follow_symlinks=False)
                    if above.name != _UNFINISHED:
                        yield status.st_mtime, status.st_size, path
                    elif now - status.st_mtime > BLOB_LEFTOVER_S:
                        path.unlink()

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self._directory / name[:2] / name[2:]

    @contextmanager
    def _locked(self) -> Iterator[int]:
        descriptor = os.open(self._directory / _TOTAL, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)


def is_intact(descriptor: int, info: BlobInfo) -> bool:
    """Whether the content has the checksum that the store named."""
    found, position = hashlib.sha256(), 0
    while position < info.size:
        block = os.pread(descriptor, min(BLOB_BLOCK_BYTES, info.size - position), position)
        if not block:
            return False
        found.update(block)
        position += len(block)
    return info.checksum == f"sha256:{found.hexdigest()}"


def _described(descriptor: int, key: str) -> BlobInfo | None:
    whole = os.fstat(descriptor).st_size
    length = int.from_bytes(os.pread(descriptor, _LENGTH_BYTES, max(whole - _LENGTH_BYTES, 0)), "big")
    size = whole - _LENGTH_BYTES - length
    if size < 0:
        return None
    try:
        known = json.loads(os.pread(descriptor, length, size))
        info = BlobInfo(**{**known, "modified_at": datetime.fromisoformat(known["modified_at"])})
    except (ValueError, TypeError, KeyError):
        return None
    return info if info.key == key and info.size == size else None


def _read_total(descriptor: int) -> int:
    return int.from_bytes(os.pread(descriptor, _LENGTH_BYTES, 0), "big")


def _write_total(descriptor: int, total: int) -> None:
    os.pwrite(descriptor, total.to_bytes(_LENGTH_BYTES, "big"), 0)
