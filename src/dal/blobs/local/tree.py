"""The directories of a local store, and how a key becomes a place in them that nothing outside can be.

    blobs/SS/NAME     a blob. SS: the first byte of the SHA-256 of its key, in hexadecimal: 256 directories.
    uploads/ID/       an upload in parts: `upload` says of what, `00001` … are its parts.
    unfinished/       what is being written; a file gets its name by a rename once it is whole and synced.

NAME is the key with `!` for `/` and `=` before a capital letter, so that no two keys are one name where the file
system knows no case; a name of more than 200 characters is cut, its beginnings being directories whose names end in
`+`. Everything is opened relative to a descriptor of the directory above and never through a symbolic link.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_PIECE_CHARS: Final = 200
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CAPITAL: Final = re.compile("[A-Z]")
_WRITTEN: Final = re.compile("=([A-Za-z])")

BLOBS: Final = "blobs"
UPLOADS: Final = "uploads"
UNFINISHED: Final = "unfinished"


class Tree:
    """The open directories of a store. Every method waits for the disk: call it in a thread.

    blobs, uploads, unfinished  descriptors of the three directories in `path`.
    """

    def __init__(self, root: Path) -> None:
        """Makes what is missing, for the owner alone, and opens it. Raises OSError."""
        self.path = root
        self._opened: list[int] = []
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        opened = [self.root]
        try:
            for name in (BLOBS, UPLOADS, UNFINISHED):
                make_directory(name, self.root)
                opened.append(os.open(name, _DIRECTORY, dir_fd=self.root))
                if name == BLOBS:
                    _make_shards(opened[-1])
            _, self.blobs, self.uploads, self.unfinished = opened
        finally:
            self._opened = opened
            if len(opened) < 4:
                self.close()

    def close(self) -> None:
        """Closes the directories; a second call does nothing."""
        while self._opened:
            os.close(self._opened.pop())

    def __del__(self) -> None:
        self.close()  # a call that was cancelled while it opened them never got to know them

    @contextmanager
    def place(self, key: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """The directory that a blob lies in, open for the block, and its name there. FileNotFoundError."""
        *above, name = places(key)
        descriptor = os.dup(self.blobs)
        try:
            for directory in above:
                if create:
                    make_directory(directory, descriptor)
                deeper = os.open(directory, _DIRECTORY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = deeper
            yield descriptor, name
        finally:
            os.close(descriptor)

    @contextmanager
    def upload(self, upload_id: str) -> Iterator[int]:
        """The directory of an upload in parts, open for the block. FileNotFoundError."""
        descriptor = os.open(upload_id, _DIRECTORY, dir_fd=self.uploads)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def blob_keys(self) -> Iterator[str]:
        """The key of every blob, in no order. What the store did not write is passed over."""
        for shard in os.listdir(self.blobs):
            try:
                descriptor = os.open(shard, _DIRECTORY, dir_fd=self.blobs)
            except OSError:
                continue  # a foreign file, or a symbolic link
            yield from _keys_in(descriptor, "")


def _keys_in(descriptor: int, before: str) -> Iterator[str]:
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                if entry.name.endswith("+") and entry.is_dir(follow_symlinks=False):
                    try:
                        deeper = os.open(entry.name, _DIRECTORY, dir_fd=descriptor)
                    except FileNotFoundError:
                        continue
                    yield from _keys_in(deeper, before + entry.name[:-1])
                elif entry.is_file(follow_symlinks=False):
                    yield _WRITTEN.sub(r"\1", (before + entry.name).replace("!", "/"))
    finally:
        os.close(descriptor)


def places(key: str) -> list[str]:
    """The directories below `blobs`, and the name, of a key that was checked."""
    shard = hashlib.sha256(key.encode()).hexdigest()[:2]
    name = _CAPITAL.sub(r"=\g<0>", key).replace("/", "!")
    pieces = [name[start : start + _PIECE_CHARS] for start in range(0, len(name), _PIECE_CHARS)]
    return [shard, *(f"{piece}+" for piece in pieces[:-1]), pieces[-1]]


def _make_shards(above: int) -> None:
    """All of them at once, with one sync: made one by one, each would cost the first blob in it another."""
    missing = {f"{number:02x}" for number in range(256)} - set(os.listdir(above))
    for name in missing:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=above)
    if missing:
        os.fsync(above)


def make_directory(name: str, above: int) -> None:
    """A directory for the owner alone, durable, where there is none."""
    try:
        os.mkdir(name, 0o700, dir_fd=above)
    except FileExistsError:
        return
    os.fsync(above)
