"""A live move's state in one process: the gates, and one entry for every row that changed since the move began.

It is kept as the rows are: what changes it stands in the journal record of the write itself, so that both are durable
at once, and every process that follows the journal has the same. Nothing here decides what is captured (capture.py) or
how it lies on disk (registry_files.py). An entry takes some 300 bytes of memory while a move is on, none before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

from dal.replica import EPOCH, UNIT_OF, Gate, State
from dal.tables import TABLES

CHECKED: Final = 0
COPIED: Final = 1
DIRTY: Final = 2
STATES: Final[tuple[State, State, State]] = ("checked", "copied", "dirty")


class Known(NamedTuple):
    """What the registry holds of one row. `state` is CHECKED, COPIED or DIRTY."""

    version: int
    deleted: bool
    state: int
    hash: int | None


class Marked(NamedTuple):
    """Registry entries of one table as they are now."""

    table: str
    entries: Sequence[tuple[str, Known]]


class Gated(NamedTuple):
    """A gate as it is now; versions of its unit go on behind `counter`, unless they are already further."""

    gate: Gate
    counter: int


class Capturing(NamedTuple):
    """Capture begins; or it ends, and gates and registry are gone."""

    is_on: bool


class FilesChanged(NamedTuple):
    """Others have changed files, and this record takes it in: what was remembered of the files no longer holds.

    documents  those that hold what this record says already, by table and key: nobody has to write them.
    """

    documents: Sequence[tuple[str, str]] = ()


MoveChange: TypeAlias = Marked | Gated | Capturing | FilesChanged


class Registry:
    """The gates by unit, and the entries by table and id.

    is_capturing  every write to a unit whose role is primary is registered.
    counters      the last version that each unit gave.
    waiting, copied, dead  ids of the entries that are dirty, that are copied, and that are tombstones.
    """

    def __init__(self) -> None:
        self.gates: dict[str, Gate] = {}
        self.is_capturing = False
        self.counters: dict[str, int] = {}
        self.tables: dict[str, dict[str, Known]] = {name: {} for name in TABLES}
        self.waiting: dict[str, dict[str, None]] = {name: {} for name in TABLES}
        self.copied: dict[str, dict[str, None]] = {name: {} for name in TABLES}
        self.dead: dict[str, dict[str, None]] = {name: {} for name in TABLES}

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

    def version(self, table: str, row_id: str) -> int:
        known = self.tables[table].get(row_id)
        return 0 if known is None else known.version

    def size(self) -> int:
        """How many entries there are."""
        return sum(map(len, self.tables.values()))

    def apply(self, change: MoveChange) -> None:
        """Takes in a change that is durable."""
        match change:
            case Marked():
                self._mark(change.table, change.entries)
            case Gated():
                self.gates[change.gate.unit] = change.gate
                self._lift(change.gate.unit, change.counter)
            case Capturing(is_on=False):
                self.__init__()  # type: ignore[misc]
            case Capturing():
                self.is_capturing = True
            case FilesChanged():
                pass

    def _lift(self, unit: str, counter: int) -> None:
        self.counters[unit] = max(self.counters.get(unit, 0), counter)

    def _mark(self, table: str, entries: Iterable[tuple[str, Known]]) -> None:
        known, waiting = self.tables[table], self.waiting[table]
        copied, dead = self.copied[table], self.dead[table]
        newest = 0
        for row_id, entry in entries:
            known[row_id] = entry
            newest = max(newest, entry.version)
            if entry.state == DIRTY:
                waiting[row_id] = None
            else:
                waiting.pop(row_id, None)
            if entry.state == COPIED:
                copied[row_id] = None
            else:
                copied.pop(row_id, None)
            if entry.deleted:
                dead[row_id] = None
            elif dead:
                dead.pop(row_id, None)
        self._lift(UNIT_OF[table], newest)

    def gated(self) -> list[MoveChange]:
        """Everything but the entries, as changes that give it again."""
        gates: list[MoveChange] = [Gated(gate, self.counters.get(unit, 0)) for unit, gate in self.gates.items()]
        return [Capturing(True), *gates] if self.is_capturing else gates


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
