"""What a checkpoint minds in a live move, when others may write to the same files at the same moment.

It looks at each file a last time before it takes its place: lines that were appended since it was read come along, and
so do rows of a document that the library did not write; a document of one row that both have written is kept in
quarantine. The two then change places in one step, so that what others were faster with comes out, and is looked at
too. What is left is a program that keeps a file open over a rename: it writes to a file that has no name any more, as
it always did; and, where the system cannot exchange names, the moment between the look and the rename.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from dal.backends.file import faults
from dal.backends.file.documents import Document, read_document
from dal.backends.file.image import Image
from dal.backends.file.index import UNSEEN, UNSURE, FileState, IndexWriter, file_state, settled_state
from dal.backends.file.layout import DIRECTORY_MODE, Layout, open_file, write_new
from dal.backends.file.lines import LineFile
from dal.backends.rows import ID
from dal.exchange import exchanged

#: How often a document changes places with one that others were faster with.
_TRIES: Final = 20


class _Identity(NamedTuple):
    """What tells one file from another that takes its place, or from itself once it is written to."""

    inode: int
    state: FileState


class Beside:
    """One checkpoint's view of others. Does nothing where no live move is on.

    known    the index, which the checkpoint changes at its end: files as they are known.
    written  ids of the rows in documents that the library wrote since its last checkpoint, by table.
    """

    def __init__(
        self, layout: Layout, image: Image, known: IndexWriter, written: Mapping[str, Collection[str]]
    ) -> None:
        self.is_watching = image.registry.is_capturing
        self._layout = layout
        self._image = image
        self._known = known
        self._written = written
        self._documents: dict[Path, Document] = {}
        self.unsure: set[Path] = set()  # files that hold what others wrote
        self._placed: dict[Path, _Identity | None] = {}
        self._read: dict[Path, int] = {}
        self._expected: dict[Path, int] = {}

    def reads(self, file: LineFile) -> None:
        """A file that is to be appended to or replaced is read now."""
        if not self.is_watching:
            return
        if file_state(file.path) != self._known.state(self._layout.relative(file.path)):
            self.unsure.add(file.path)
        self._read[file.path] = file.end()

    def appends(self, path: Path, data: bytes) -> None:
        """Appends to what is there now, in one write, so that nobody's line is written over."""
        descriptor = open_file(path, os.O_WRONLY | os.O_APPEND)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)

    def expects(self, path: Path, size: int) -> None:
        """The file will be so large if nobody else writes to it."""
        self._expected[path] = size

    def put(self, temporary: Path, final: Path) -> None:
        """Gives a file its place, with what others have written to the one there since it was read."""
        if self.is_watching and final in self._read:
            self._put_lines(temporary, final)
        elif self.is_watching and final in self._documents:
            self._put_document(temporary, final)
        else:
            temporary.rename(final)

    def _put_lines(self, temporary: Path, final: Path) -> None:
        end = self._bring_along(final, temporary, self._read[final])
        if _took_place(temporary, final):
            self._bring_along(temporary, final, end)
            temporary.unlink()

    def _bring_along(self, source: Path, target: Path, size: int) -> int:
        """Appends the whole lines behind this size; how far they reach."""
        with suppress(FileNotFoundError), LineFile(source) as file:
            end = max(size, file.end())
            if end > size:
                self.appends(target, os.pread(file.descriptor, end - size, size))
            return end
        return size

    def _put_document(self, temporary: Path, final: Path) -> None:
        known = self._known.state(self._layout.relative(final))
        for _ in range(_TRIES):
            seen = _identity(final)
            if known is not None and known != UNSEEN and seen is not None:
                is_changed = seen.state != FileState(known.size, abs(known.mtime_ns))
                if is_changed and not self._merge(temporary, final) and not self._is_suspect(final):
                    self._keep(final)
            self._placed[final] = ours = _identity(temporary)
            if not _took_place(temporary, final):
                return
            if _identity(temporary) == seen:
                temporary.unlink()
                return
            # Others were faster. Theirs goes back; and once more, where they have even written another since.
            with suppress(FileNotFoundError):
                exchanged(temporary, final)
                if _identity(temporary) != ours:
                    exchanged(temporary, final)
            write_new(temporary, self._documents[final].encode())
        temporary.rename(final)  # a file system that gives what it renames another number, or a program without a pause

    def replaces(self, document: Document) -> None:
        """This document is to be replaced."""
        self._documents[document.path] = document

    def _merge(self, temporary: Path, final: Path) -> bool:
        """Brings along rows of a document that the library did not write; whether it could."""
        document = self._documents.get(final)
        if document is None or not document.is_list:
            return False
        try:
            there = self._image.documents[document.table.name].parse(final, read_document(final))
        except ValueError:
            return False
        written = self._written.get(document.table.name, set())
        kept = {row[ID]: row for row in there if row[ID] not in written}
        own = {row[ID]: row for row in document.rows if row[ID] in written}
        write_new(temporary, document._replace(rows=tuple({**kept, **own}.values())).encode())
        self.unsure.add(final)
        return True

    def _is_suspect(self, final: Path) -> bool:
        """Whether others had changed the document before this process read it: then nothing of theirs is lost."""
        return self._layout.relative(final) in self._image.suspects

    def _keep(self, final: Path) -> None:
        self._layout.quarantine.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        name = self._layout.relative(final)
        with suppress(FileNotFoundError):
            write_new(self._layout.quarantine / name.replace("/", "_"), final.read_bytes())
        self._image.report(f"{name}: was changed while the library wrote it; moved to {self._layout.quarantine.name}/")

    def state(self, path: Path) -> FileState | None:
        """What to remember of a file of lines; UNSURE where others wrote to it meanwhile."""
        found = file_state(path)
        if not self.is_watching or found is None:
            return found
        return UNSURE if path in self.unsure or self._expected.get(path, found.size) != found.size else found

    def document_state(self, path: Path) -> FileState | None:
        """What to remember of a document; UNSURE where others wrote to it meanwhile."""
        found, placed = settled_state(path), self._placed.get(path)
        if placed is not None and found is not None and FileState(found.size, abs(found.mtime_ns)) != placed.state:
            return UNSURE
        return UNSURE if path in self.unsure else found


def _took_place(temporary: Path, final: Path) -> bool:
    """Renames the file; whether `temporary` is now the name of what had that place. Others may have removed it."""
    faults.reach("beside.looked")
    with suppress(FileNotFoundError):
        if exchanged(temporary, final):
            faults.reach("beside.exchanged")
            return True
    temporary.rename(final)
    return False


def _identity(path: Path) -> _Identity | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return _Identity(found.st_ino, FileState(found.st_size, found.st_mtime_ns))
