"""The write-ahead journal: the one place where a commit becomes durable, and the log that processes share.

Records follow each other in segments named by the position of their first byte; a position counts bytes since the store
was made. A record is `crc32 length payload\\n`. The writer, who holds the store's lock, appends a record, syncs it, and
publishes the new end in `journal/state`, which every process maps: a reader compares eight bytes to know that there is
nothing new, and never reads past what is published, so it never meets half a record.

What stands behind the published end was never acknowledged and is cut off. A record before it that does not match its
checksum is damage: it is passed over, named as a problem, and its segment is kept.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from dal.backends.file import faults, records
from dal.backends.file.errors import damaged_file
from dal.backends.file.layout import (
    DIRECTORY_MODE,
    FILE_MODE,
    Layout,
    open_file,
    replace,
    sync_directory,
    write_all,
)

#: A segment that has grown to this is closed, and what it holds moves into the documents.
SEGMENT_BYTES: Final = 4 * 1024 * 1024
#: Segments already in the documents that are kept for processes that have not read them yet.
KEPT_BYTES: Final = 8 * 1024 * 1024
KEPT_SEGMENTS: Final = 16

_WORD: Final = struct.Struct("=Q")
_STATE_BYTES: Final = 4096


class Boundary(NamedTuple):
    """Everything before this position is in closed segments."""

    position: int


class Record(NamedTuple):
    """One batch: its payload, and where it lies."""

    payload: bytes
    position: int
    segment: Path


class State:
    """Three positions that all processes of a store see at once.

    published  everything before it is durable and acknowledged, or will be.
    horizon    no document holds anything from behind it.
    settled    everything before it is in the documents, durably.
    """

    def __init__(self, path: Path) -> None:
        descriptor = open_file(path, os.O_RDWR | os.O_CREAT)
        try:
            if os.fstat(descriptor).st_size < _STATE_BYTES:
                os.ftruncate(descriptor, _STATE_BYTES)
            self._map = mmap.mmap(descriptor, _STATE_BYTES)
        finally:
            os.close(descriptor)

    def _get(self, place: int) -> int:
        # Eight aligned bytes are copied at once: a reader sees one value or the other.
        try:
            return int(_WORD.unpack(self._map[place : place + 8])[0])
        except ValueError as error:  # as any other file that was closed under a reader
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from error

    def _set(self, place: int, value: int) -> None:
        self._map[place : place + 8] = _WORD.pack(value)

    @property
    def published(self) -> int:
        return self._get(0)

    @published.setter
    def published(self, position: int) -> None:
        self._set(0, position)

    @property
    def horizon(self) -> int:
        return self._get(8)

    @horizon.setter
    def horizon(self, position: int) -> None:
        self._set(8, position)

    @property
    def settled(self) -> int:
        return self._get(16)

    @settled.setter
    def settled(self, position: int) -> None:
        self._set(16, position)

    def close(self) -> None:
        self._map.close()


class Journal:
    """One process's view of the journal: it reads from `position` on, and appends there when it has read everything.

    `problems` names what was found damaged, `notes` what was cut off without loss.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._directory = str(layout.journal)  # every look at the journal asks there
        self.state = State(layout.journal / "state")
        self.position = 0
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.damaged: set[int] = set()
        self.is_broken = False
        self._descriptor = -1
        self._base = 0

    # -- reading

    def seek(self, position: int) -> None:
        """Goes on reading here. FileNotFoundError: that part of the journal is gone."""
        base = max((s for s in self.segments() if s <= position), default=None)
        if base is None:
            raise FileNotFoundError(f"{self._layout.journal}: no segment holds position {position}")
        self._open(base)
        self.position = position

    def has_news(self) -> bool:
        """Whether something was published that was not read yet."""
        return self.state.published != self.position

    def read(self, end: int | None = None) -> Iterator[Record | Boundary]:
        """The records from the position on, up to what is published; a Boundary where a segment ends.

        end  reads up to there instead: at opening, under the lock, the true end of what is whole.
        FileNotFoundError: that part of the journal is gone, for everything in it is in the documents.
        """
        end = self.state.published if end is None else end
        buffer, start = b"", self.position
        while self.position < end:
            size = records.whole_at(buffer, self.position - start)
            if size is None:
                buffer, start = self._chunk(end), self.position
                size = records.whole_at(buffer, 0)
            if size is not None:
                at = self.position
                self.position += size
                yield Record(buffer[at - start + records.HEADER : at - start + size - 1], at, self._path(self._base))
            elif self._next_segment():
                buffer, start = b"", self.position
                yield Boundary(self.position)
            else:
                self._pass_over(end)
                buffer, start = b"", self.position
        if self._next_segment():  # another process has closed this one and written nothing since
            yield Boundary(self.position)

    def _chunk(self, end: int) -> bytes:
        """What stands at the position, before `end`: many records, or one however long."""
        at = self.position - self._base
        chunk = os.pread(self._descriptor, min(records.READ_BYTES, end - self.position), at)
        if records.length(chunk, 0) > len(chunk) == records.READ_BYTES:
            rest = os.fstat(self._descriptor).st_size - at
            chunk = os.pread(self._descriptor, min(rest, records.length(chunk, 0)), at)
        return chunk

    def _next_segment(self) -> bool:
        """Opens the segment that begins at the position, if there is one and this one has ended."""
        if self.position == self._base or not os.path.exists(f"{self._directory}/{_segment(self.position)}"):
            return False
        self._open(self.position)
        return True

    def _pass_over(self, end: int) -> None:
        """Goes to the next whole record (or the next segment) behind a damaged one, and remembers the damage."""
        if self.position < self.state.settled:
            raise FileNotFoundError(f"{self._layout.journal}: position {self.position} is in the documents already")
        following = [s for s in self.segments() if s > self.position]
        limit = min([end, *following])
        found = records.find(self._descriptor, self.position - self._base + 1, limit - self._base)
        target = limit if found is None else self._base + found
        name, offset = self._layout.relative(self._path(self._base)), self.position - self._base
        self.problems.append(
            f"{name}: the record at byte {offset} does not match its checksum; "
            f"{target - self.position} bytes were passed over and the file is kept"
        )
        self.damaged.add(self._base)
        self.position = target

    def report_foreign(self, record: Record) -> None:
        """Remembers a whole record that holds something this library does not write."""
        name = self._layout.relative(record.segment)
        self.problems.append(f"{name}: position {record.position}: not a batch of changes; the file is kept")
        self.damaged.add(int(record.segment.stem, 16))

    # -- writing, under the store's lock and after everything was read

    def append(self, payload: bytes) -> int:
        """Makes a record durable; the position behind it, to be given to `publish`.

        OSError: nothing was appended, or, when `is_broken` is set then, nobody knows.
        """
        at = self.position - self._base
        data = records.encode(payload)
        faults.reach("journal.append")
        try:
            if os.pread(self._descriptor, 1, at) not in (b"", b"\0"):
                self._cut(at)  # left by a process that died before it could publish
            faults.reach("journal.writing")
            write_all(self._descriptor, data, at)
        except OSError:
            try:
                self._cut(at)
            except OSError:
                self.is_broken = True
            raise
        faults.reach("journal.written")
        try:
            faults.reach("journal.syncing")
            os.fdatasync(self._descriptor)
        except OSError:
            # The kernel may have dropped the pages: what is on disk is known only to the next opening.
            self.is_broken = True
            raise
        faults.reach("journal.synced")
        return self.position + len(data)

    def publish(self, end: int) -> None:
        """Shows everybody that the journal is durable up to here."""
        self.position = end
        self.state.published = end

    def segment_bytes(self) -> int:
        """How much the open segment holds."""
        return self.position - self._base

    def rotate(self) -> None:
        """Closes the segment and opens the next; nothing happens where this one is empty."""
        if self.position == self._base:
            return
        closed, size = self._path(self._base), self.position - self._base
        faults.reach("journal.rotating")
        self._create(self.position)
        faults.reach("journal.rotated")
        with suppress(OSError):
            os.truncate(closed, size)  # gives back what was reserved

    def whole(self) -> int:
        """A published position in the last segment before which records are whole. No lock: they never change."""
        segments = self.segments()
        if not segments:
            return 0
        self._open(segments[-1])
        return self._base + records.whole_end(self._descriptor, 0, self.state.published - self._base)

    def is_sound(self, whole: int) -> bool:
        """Whether nothing is there but what is published, with everything before `whole` known to be.

        So it is while other processes are at work, but for the moments in which they append.
        """
        published = self.state.published
        if self._descriptor < 0 or published != whole or self.state.horizon > published:
            return False
        return os.pread(self._descriptor, 1, published - self._base) in (b"", b"\0")

    def recover(self, whole: int = 0) -> int:
        """The end of the whole records, under the store's lock; what is behind it is cut off.

        whole  up to where they are known to be whole.

        Makes the first segment where there is none. Only the last record can be unfinished, for each waits for its own
        sync: anything else that does not match is left to `read`, which names it.
        """
        segments = self.segments()
        if not segments:
            self._create(0)
            self.state.published = self.state.horizon = self.state.settled = 0
            return 0
        self._open(segments[-1])
        size = os.fstat(self._descriptor).st_size
        end = records.whole_end(self._descriptor, max(0, whole - self._base), size)
        published = self.state.published - self._base
        if published > end:
            end = min(published, size)  # acknowledged, so damaged and not unfinished
        unfinished = len(os.pread(self._descriptor, records.READ_BYTES, end).rstrip(b"\0"))
        if unfinished:
            name = self._layout.relative(self._path(self._base))
            self.notes.append(f"{name}: {unfinished} bytes of an unfinished record were cut off at byte {end}")
            self._cut(end)
        self.state.horizon = min(self.state.horizon, self._base + end)
        return self._base + end

    def _cut(self, at: int) -> None:
        os.ftruncate(self._descriptor, at)
        _reserve(self._descriptor)
        os.fdatasync(self._descriptor)

    # -- segments

    def segments(self) -> list[int]:
        """Positions at which the segments begin."""
        return sorted(int(e.name[:16], 16) for e in os.scandir(self._layout.journal) if e.name.endswith(".log"))

    def settle(self, position: int) -> None:
        """Records durably that everything before this position is in the documents."""
        replace(_settled(self._layout), orjson.dumps({"position": position}))
        self.state.settled = position

    def retire(self) -> None:
        """Removes segments that are in the documents and that no reader can be expected to want; keeps damaged ones."""
        segments = self.segments()
        settled = self.state.settled
        past = [(base, end) for base, end in pairwise(segments) if end <= settled]
        for age, (base, end) in enumerate(reversed(past), 1):
            if base in self.damaged:
                self._quarantine(base)
            elif age > KEPT_SEGMENTS or settled - base > KEPT_BYTES + (end - base):
                self._path(base).unlink(missing_ok=True)

    def _quarantine(self, base: int) -> None:
        self._layout.quarantine.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        with suppress(FileNotFoundError):
            self._path(base).rename(self._layout.quarantine / self._path(base).name)

    def _path(self, base: int) -> Path:
        return self._layout.journal / _segment(base)

    def _open(self, base: int) -> None:
        descriptor = open_file(self._path(base), os.O_RDWR)
        self._close_segment()
        self._descriptor, self._base, self.position = descriptor, base, base

    def _create(self, base: int) -> None:
        path = self._path(base)
        descriptor = open_file(path, os.O_RDWR | os.O_CREAT)
        try:
            os.fchmod(descriptor, FILE_MODE)
            _reserve(descriptor)
            os.fsync(descriptor)
            sync_directory(self._layout.journal)
        except OSError:
            os.close(descriptor)
            raise
        self._close_segment()
        self._descriptor, self._base, self.position = descriptor, base, base

    def _close_segment(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def close(self) -> None:
        self._close_segment()
        self.state.close()


def _segment(base: int) -> str:
    return f"{base:016x}.log"


def settled_position(layout: Layout) -> int:
    """Up to where everything is in the documents, as it is on disk. CorruptDataError: what says so is damaged."""
    path = _settled(layout)
    try:
        return int(orjson.loads(path.read_bytes())["position"])
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError) as error:
        raise damaged_file(layout, path) from error


def _settled(layout: Layout) -> Path:
    return layout.journal / "settled.json"


def _reserve(descriptor: int) -> None:
    # Appending within reserved space needs no change of the file's size: 90 µs a sync instead of 184 on ext4.
    with suppress(OSError, AttributeError):
        os.posix_fallocate(descriptor, 0, SEGMENT_BYTES)
