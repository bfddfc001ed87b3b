"""The registry on disk: a file for each checkpoint, in `move/`, named by the position of the journal it reaches to.

A part holds the entries that changed since the file before it, a whole all of them; both hold the gates. Each line is
a payload as the journal has them, and reading the files is repeating them: the newest whole, then the parts behind it.
A file is written aside and never changed: one from behind what is settled was left by a checkpoint that did not end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from dal.backends.file import faults
from dal.backends.file.codec import decode_changes, encode_changes
from dal.backends.file.layout import BACKEND, TEMPORARY, Layout, sync_directory
from dal.backends.file.registry import Capturing, Gated, Known, Marked, MoveChange, Registry
from dal.backends.file.waiting import politely
from dal.errors import CorruptDataError

#: Parts that hold more entries than this, and more than there are altogether, are written as one whole.
WHOLE_ENTRIES: Final = 10_000
_LINE_ENTRIES: Final = 500
_WHOLE: Final = ".whole.jsonl"
_PART: Final = ".part.jsonl"


class Part(NamedTuple):
    """What a checkpoint writes of the registry, as it was when the work was taken up."""

    gates: Sequence[MoveChange]
    entries: dict[str, list[tuple[str, Known]]]
    is_whole: bool

    def size(self) -> int:
        return sum(map(len, self.entries.values()))

    def encode(self) -> Iterator[bytes]:
        """The lines of the file."""
        yield encode_changes(self.gates) + b"\n"
        for table, entries in self.entries.items():
            for first in politely(range(0, len(entries), _LINE_ENTRIES), 2):
                yield encode_changes([Marked(table, entries[first : first + _LINE_ENTRIES])]) + b"\n"


def part_of(registry: Registry, changed: dict[str, dict[str, None]], *, is_new: bool, since_whole: int) -> Part:
    """What is to be written: the entries that changed, or all of them where that is due."""
    count = since_whole + sum(map(len, changed.values()))
    if is_new or count > max(WHOLE_ENTRIES, registry.size()):
        return Part(registry.gated(), {name: list(known.items()) for name, known in registry.tables.items()}, True)
    entries = {
        name: [(row_id, registry.tables[name][row_id]) for row_id in ids if row_id in registry.tables[name]]
        for name, ids in changed.items()
    }
    return Part(registry.gated(), entries, False)


def path_of(layout: Layout, part: Part, target: int) -> Path:
    return layout.move / f"{target:016x}{_WHOLE if part.is_whole else _PART}"


class Loaded(NamedTuple):
    """The registry, and how many entries were read from parts."""

    registry: Registry
    since_whole: int


def load(layout: Layout, settled: int) -> Loaded:
    """The registry as of what is settled, under the checkpoint lock. CorruptDataError: a file is damaged."""
    registry, since_whole = Registry(), 0
    found = _files(layout)
    for path in [path for path in found if _position(path) > settled]:
        path.unlink(missing_ok=True)
    for path in layout.move.glob("*" + TEMPORARY):
        path.unlink(missing_ok=True)
    for path in _counting(found, settled):
        changes = [change for line in path.read_bytes().split(b"\n") if line for change in _decode(layout, path, line)]
        for change in changes:
            if isinstance(change, Marked) and path.name.endswith(_PART):
                since_whole += len(change.entries)
            if not isinstance(change, Marked | Gated | Capturing):
                raise _damaged(layout, path)
            registry.apply(change)
    return Loaded(registry, since_whole)


def _decode(layout: Layout, path: Path, line: bytes) -> list[object]:
    try:
        return list(decode_changes(line))
    except ValueError as error:
        raise _damaged(layout, path) from error


def _damaged(layout: Layout, path: Path) -> CorruptDataError:
    return CorruptDataError(
        f"{layout.relative(path)}: the move's state is damaged; restore it from a backup, "
        f"or remove {layout.move} and start the move again",
        operation="open",
        backend=BACKEND,
    )


def retire(layout: Layout, settled: int) -> None:
    """Removes the files that a newer whole has replaced; the oldest first, so that none is ever missed."""
    found = [path for path in _files(layout) if _position(path) <= settled]
    needed = _counting(found, settled)
    for path in found:
        if path not in needed:
            path.unlink(missing_ok=True)
            faults.reach("registry.retired")
    if len(needed) == 1 and needed[0].read_bytes() == encode_changes([]) + b"\n":
        sync_directory(layout.move)  # what it replaced is gone for good
        needed[0].unlink(missing_ok=True)  # the move has ended
        with suppress(OSError):
            layout.move.rmdir()


def _files(layout: Layout) -> list[Path]:
    with suppress(FileNotFoundError):
        return sorted(path for path in layout.move.iterdir() if path.name.endswith((_WHOLE, _PART)))
    return []


def _position(path: Path) -> int:
    return int(path.name[:16], 16)


def _counting(found: list[Path], settled: int) -> list[Path]:
    """The newest whole and the parts behind it, of what is settled."""
    settled_files = [path for path in found if _position(path) <= settled]
    wholes = [place for place, path in enumerate(settled_files) if path.name.endswith(_WHOLE)]
    return settled_files[wholes[-1] :] if wholes else settled_files
