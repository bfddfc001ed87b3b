"""A live move's state in one process: the gates, and one entry for every row that changed since the move began.

An entry that comes with a write stands in the journal record of the write itself, so that both are durable at once and
every process that follows the journal has the same. In memory are only those of the journal that no checkpoint has
taken up yet, as with messages; all others lie in a file that the processes share (registry_file.py), and so does what
concerns no write: rows that the move marks, and what it says of copies. Nothing here decides what is captured
(capture.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Final, Literal, NamedTuple, TypeAlias

from dal.backends.file.registry_file import COPIED, DIRTY, Known, RegistryFile
from dal.replica import EPOCH, UNIT_OF, Gate, State
from dal.tables import TABLES

STATES: Final[tuple[State, State, State]] = ("checked", "copied", "dirty")


class Marked(NamedTuple):
    """Registry entries of one table as they are now."""

    table: str
    entries: Sequence[tuple[str, Known]]


class Gated(NamedTuple):
    """A gate as it is now; versions of its unit go on behind `counter`, unless they are already further."""

    gate: Gate
    counter: int


class Capturing(NamedTuple):
    """Capture begins, with the registry file of this name; or it ends (empty), and gates and registry are gone."""

    file: str


class FilesChanged(NamedTuple):
    """Others have changed files, and this record takes it in: what was remembered of the files no longer holds.

    documents  those that hold what this record says already, by table and key: nobody has to write them.
    """

    documents: Sequence[tuple[str, str]] = ()


MoveChange: TypeAlias = Marked | Gated | Capturing | FilesChanged


class Registry:
    """The gates by unit, and the entries by table and id.

    counters  the last version that each unit gave.
    recent    the entries that the journal has given since the last checkpoint; each hides that of the file.
    waiting   those of them that are dirty.
    open_file gives the registry file of a name.
    """

    def __init__(self, open_file: Callable[[str], RegistryFile]) -> None:
        self._open_file = open_file
        self._clear()

    def _clear(self) -> None:
        self.gates: dict[str, Gate] = {}
        self.file: RegistryFile | None = None
        self.counters: dict[str, int] = {}
        self.recent: dict[str, dict[str, Known]] = {name: {} for name in TABLES}
        self.waiting: dict[str, dict[str, None]] = {name: {} for name in TABLES}

    # -- roles

    @property
    def is_capturing(self) -> bool:
        """Whether every write to a unit whose role is primary is registered."""
        return self.file is not None

    def is_primary(self, table: str) -> bool:
        """Whether this store takes the writes to this table; a table of no gate is not part of the move."""
        gate = self.gates.get(UNIT_OF[table])
        return gate is None or gate.role == "primary"

    def is_captured(self, table: str, *, with_fenced: bool = False) -> bool:
        """Whether a write to this table is registered; behind a fence those that others made past the library are."""
        gate = self.gates.get(UNIT_OF[table])
        if not self.is_capturing or gate is None:
            return False
        return gate.role == "primary" or (with_fenced and gate.role == "fenced")

    # -- looking up, in the thread of the event loop

    def get(self, table: str, row_id: str) -> Known | None:
        return self.many(table, (row_id,)).get(row_id)

    def many(self, table: str, ids: Collection[str]) -> dict[str, Known]:
        """The entries of these ids that are there."""
        recent = self.recent[table]
        found = {row_id: recent[row_id] for row_id in ids if row_id in recent} if recent else {}
        if self.file is not None and len(found) < len(ids):
            found.update(self.file.many(table, [row_id for row_id in ids if row_id not in found]))
        return found

    def dirty(self, table: str) -> Iterator[str]:
        """The ids of dirty entries, those of the journal first."""
        yield from list(self.waiting[table])
        if self.file is not None:
            recent = self.recent[table]
            yield from (row_id for row_id, _ in self.file.dirty(table) if row_id not in recent)

    def copied(self, table: str, after: str, limit: int) -> list[tuple[str, Known]]:
        """The next entries behind this id that are copied and not checked, in the order of ids."""
        recent = self.recent[table]
        own = sorted((i, known) for i, known in recent.items() if i > after and known.state == COPIED)
        below = () if self.file is None else (e for e in self.file.copied(table, after) if e[0] not in recent)
        return list(islice(merge(below, own), limit))

    def tables_with(self, state: Literal["dirty", "copied"]) -> frozenset[str]:
        """The tables that have such entries, those of the file left out that the journal has overtaken."""
        in_file = self.file.tables_with(DIRTY if state == "dirty" else COPIED) if self.file is not None else set()
        near = {name for name, entries in self.recent.items() if entries} | in_file
        if state == "dirty":
            return frozenset(name for name in near if next(self.dirty(name), None) is not None)
        return frozenset(name for name in near if self.copied(name, "", 1))

    def alive(self, table: str) -> Iterator[str]:
        """The ids of all entries but tombstones; for a reader in any thread."""
        recent = dict(self.recent[table])
        if self.file is not None:
            yield from (row_id for row_id in self.file.alive(table) if row_id not in recent)
        yield from (row_id for row_id, known in recent.items() if not known.deleted)

    # -- following the journal

    def apply(self, change: MoveChange) -> None:
        """Takes in a change that is durable."""
        match change:
            case Marked():
                self._mark(change.table, change.entries)
            case Gated():
                self.gates[change.gate.unit] = change.gate
                self._lift(change.gate.unit, change.counter)
            case Capturing():
                self._clear()
                self.file = self._open_file(change.file) if change.file else None
            case FilesChanged():
                pass

    def _lift(self, unit: str, counter: int) -> None:
        self.counters[unit] = max(self.counters.get(unit, 0), counter)

    def _mark(self, table: str, entries: Iterable[tuple[str, Known]]) -> None:
        recent, waiting = self.recent[table], self.waiting[table]
        newest = 0
        for row_id, entry in entries:
            recent[row_id] = entry
            newest = max(newest, entry.version)
            if entry.state == DIRTY:
                waiting[row_id] = None
            else:
                waiting.pop(row_id, None)
        self._lift(UNIT_OF[table], newest)

    def forget(self, table: str, ids: Iterable[str]) -> None:
        """A checkpoint has written these entries into the file."""
        recent, waiting = self.recent[table], self.waiting[table]
        for row_id in ids:
            recent.pop(row_id, None)
            waiting.pop(row_id, None)

    def gated(self) -> list[MoveChange]:
        """Everything but the entries, as changes that give it again."""
        gates: list[MoveChange] = [Gated(gate, self.counters.get(unit, 0)) for unit, gate in self.gates.items()]
        return [Capturing(self.file.name), *gates] if self.file is not None else gates


class Versions:
    """New versions, taken one after another while the store is held."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._last = dict(registry.counters)

    def next(self, table: str) -> int:
        unit = UNIT_OF[table]
        version = self._last[unit] = self._last.get(unit, 0) + 1
        return version


def first_version(epoch: int) -> int:
    """The lowest version of an epoch."""
    return epoch * EPOCH
