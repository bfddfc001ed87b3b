"""Where things lie in a file store's directory, and how files are made there.

Names of callers' keys become file names that are distinct on any disk (case-insensitive ones too), at most 140 bytes
long, never a path, and readable where the key is. Every file is made with mode 0600 and every directory with 0700,
whatever the umask. Nothing here knows what a document holds.
"""

from __future__ import annotations

import ctypes
import os
import re
from base64 import b32encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final

import orjson

from dal.backends.file import faults
from dal.errors import ConfigurationError, SchemaError
from dal.urls import schema_up

BACKEND: Final = "file"
LAYOUT_VERSION: Final = 2
MARKER: Final = "dal.json"
FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700
TEMPORARY: Final = ".tmp"

#: The directories of documents and lines, each named as the unit of a live move whose tables it holds. Tables of one
#: unit that have directories of their own have them within it: a fence puts one directory away, in one step.
DATA: Final = ("users", "chats", "memory", "files", "audit")
_FENCED: Final = "fenced/"

_PLAIN: Final = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,99}(?<!\.)")
# Names that Windows keeps for devices, with whatever suffix.
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
_SLUG_CHARS: Final = 80


class Layout:
    """The paths of one store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.marker = root / MARKER
        self.fenced = root / "fenced"
        self._away: frozenset[str] = frozenset()
        self.journal = root / "journal"
        self.quarantine = root / "quarantine"
        self.move = root / "move"
        self.index = root / "cache" / "ids.sqlite"

    # -- data, which a live move's fence may have put away

    def directory(self, name: str) -> Path:
        """Where the documents of this kind are, one of DATA or within it, as far as is known."""
        return (self.fenced if name.partition("/")[0] in self._away else self.root) / name

    @property
    def chats(self) -> Path:
        return self.directory("chats")

    @property
    def moving(self) -> Path:
        return self.chats / "moving"

    def look(self) -> None:
        """Sees which directories are put away now."""
        away = [name for name in DATA if (self.fenced / name).is_dir()] if self.fenced.exists() else []
        self._away = frozenset(away)

    def is_away(self, name: str) -> bool:
        return name in self._away

    def prepare(self, *, create: bool, upgrade: bool = False) -> None:
        """Checks that the directory is a store of this layout; makes it one where it is empty and `create` is set, or
        of an older layout and `upgrade` is set.

        Raises SchemaError: no store yet, or of another layout.  ConfigurationError: a directory of something else.
        """
        try:
            found = orjson.loads(self.marker.read_bytes())
        except FileNotFoundError:
            self._create(create=create)
        except orjson.JSONDecodeError as error:
            raise ConfigurationError(
                f"{self.marker}: not JSON; restore it from a backup", operation="open", backend=BACKEND
            ) from error
        else:
            version = found.get("layout") if isinstance(found, dict) else None
            if type(version) is not int:
                raise ConfigurationError(
                    f"{self.marker}: names no layout version; is this a file store?", operation="open", backend=BACKEND
                )
            if version < LAYOUT_VERSION and not upgrade:
                raise SchemaError(
                    f"{self.root} has layout {version}, this library writes {LAYOUT_VERSION}; close what has it open "
                    f"and {schema_up(BACKEND, self.root)}",
                    operation="open",
                    backend=BACKEND,
                )
            if version < LAYOUT_VERSION:
                self._mark()  # a layout only ever gains kinds of documents: an older library must not write any more
            elif version > LAYOUT_VERSION:
                raise SchemaError(
                    f"{self.root} has layout {version}, this library knows {LAYOUT_VERSION}; "
                    "use the version of the library that wrote it",
                    operation="open",
                    backend=BACKEND,
                )
        for directory in (self.journal, self.index.parent):
            make_directory(directory)
        self.look()

    def _create(self, *, create: bool) -> None:
        with suppress(FileNotFoundError):
            foreign = [e.name for e in os.scandir(self.root) if e.name not in (MARKER, MARKER + TEMPORARY)]
            if foreign:
                raise ConfigurationError(
                    f"{self.root} is not empty and has no {MARKER}, but for example {sorted(foreign)[0]!r}; "
                    "name an empty directory or a file store",
                    operation="open",
                    backend=BACKEND,
                )
        if not create:
            raise SchemaError(
                f"{self.root} is no file store yet; {schema_up(BACKEND, self.root)}", operation="open", backend=BACKEND
            )
        make_directory(self.root)
        self._mark()

    def _mark(self) -> None:
        replace(self.marker, orjson.dumps({"layout": LAYOUT_VERSION}, option=orjson.OPT_APPEND_NEWLINE))

    def messages(self, chat_id: str) -> Path:
        return self.chats / sharded(chat_id, ".jsonl")

    def moving_messages(self, chat_session_id: str) -> Path:
        return self.moving / f"{file_name(chat_session_id)}.jsonl"

    def log(self, kind: str, day: str) -> Path:
        """The file of a day's entries, in a directory of such files."""
        return self.directory(kind) / f"{day}.jsonl"

    def days(self, kind: str) -> list[str]:
        """The days of which there are entries in files."""
        while True:
            directory = self.directory(kind)
            try:
                return [path.stem for path in directory.iterdir() if path.suffix == ".jsonl"]
            except (FileNotFoundError, NotADirectoryError):
                self.look()
                if self.directory(kind) == directory:
                    return []

    def quarantined(self) -> list[str]:
        """A sentence about each damaged file that was set aside."""
        with suppress(FileNotFoundError):
            names = sorted(path.name for path in self.quarantine.iterdir())
            return [f"{self.quarantine.name}/{name}: was damaged; look at it, then remove it" for name in names]
        return []

    def relative(self, path: Path) -> str:
        """The path as messages and health show it, the same whether it is put away or not."""
        return path.relative_to(self.root).as_posix().removeprefix(_FENCED)

    def absolute(self, name: str) -> Path:
        """The path of that relative name."""
        kind, _, rest = name.partition("/")
        return self.directory(kind) / rest


@lru_cache(maxsize=65536)
def file_name(key: str) -> str:
    """A file name for a caller's key: the key itself where it is plain, else a readable part and a 128-bit hash.

    Distinct keys have distinct names: a plain key never holds `~`.
    """
    if _PLAIN.fullmatch(key) and not _RESERVED.fullmatch(key):
        return key
    slug = re.sub(r"[^a-z0-9_-]+", "-", key.lower())[:_SLUG_CHARS].strip("-")
    digest = blake2b(key.encode(), digest_size=16).digest()
    return f"{slug}~{b32encode(digest).decode().rstrip('=').lower()}"


def shard(name: str) -> str:
    """One of 256 directories, so that a million documents leave some thousands in each."""
    return blake2b(name.encode(), digest_size=1).hexdigest()


def sharded(key: str, suffix: str) -> str:
    """Where a document lies within the directory of its kind."""
    name = file_name(key)
    return f"{shard(name)}/{name}{suffix}"


def entries(directory: Path) -> Iterator[os.DirEntry[str]]:
    """What is in the shards of a directory; nothing where the directory is not there yet."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for part in sorted(os.scandir(directory), key=lambda entry: entry.name):
            if part.is_dir(follow_symlinks=False) and len(part.name) == 2:
                yield from os.scandir(part.path)


def flat_entries(directory: Path) -> Iterator[os.DirEntry[str]]:
    """What is in a directory without shards; nothing where it is not there yet."""
    with suppress(FileNotFoundError, NotADirectoryError):
        yield from os.scandir(directory)


def make_directory(directory: Path) -> None:
    """The directory and what is missing above it, closed to others, and on disk."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    with suppress(FileExistsError):
        directory.mkdir(mode=DIRECTORY_MODE)
    sync_directory(directory.parent)


def write_new(path: Path, data: bytes) -> None:
    """Writes a whole new file, not yet synced."""
    descriptor = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(descriptor, data, 0)
    finally:
        os.close(descriptor)


def replace(path: Path, data: bytes) -> None:
    """Replaces a file as a whole: whoever reads finds the old or the new content, also after power loss."""
    temporary = path.with_name(path.name + TEMPORARY)
    descriptor = open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(descriptor, data, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    faults.reach("replace.written")
    temporary.rename(path)
    sync_directory(path.parent)


def open_file(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)


def write_all(descriptor: int, data: bytes, offset: int) -> None:
    """Writes at this place until everything is written; a system call may take less."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path, changed: Iterable[Path]) -> None:
    """Returns when the changed files and their directories are on disk.

    One syncfs where the system has it: 1,000 files took 1.4 ms that way and 270 ms with an fsync each.
    """
    sync_filesystem = _syncfs()
    if sync_filesystem is not None:
        descriptor = os.open(root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        try:
            sync_filesystem(descriptor)
        finally:
            os.close(descriptor)
        return
    for directory in sync_files(changed):
        sync_directory(directory)


def sync_files(changed: Iterable[Path]) -> set[Path]:
    """Syncs each file that is there; the directories that hold them."""
    directories = set()
    for path in changed:
        directories.add(path.parent)
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    return directories


@cache
def _syncfs() -> Callable[[int], None] | None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if function is None:
        return None

    def sync_filesystem(descriptor: int) -> None:
        if function(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return sync_filesystem
