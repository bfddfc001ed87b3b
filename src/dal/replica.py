"""What a store offers to a live move, beside the waist: a registry of changed rows, gates, and copies under versions.

While a move is on, each store keeps a registry: one entry for every row that was written or marked since, with the
row's version, kept by the store itself for every writer there is. Versions are `epoch * EPOCH + counter`: whatever a
later primary writes is newer than anything an earlier one wrote. Copies go by state: an entry is read together with its
row in one statement, applied where its version is newer, and acknowledged at that version. So copies commute, repeat,
and may come late.

A gate is one row for each unit of a move (tables that are switched together): whether this store takes the unit's
writes now, and in which epoch. A backend makes all of it at `install`, and an ordinary store pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

from dal.file_tables import FILE_TABLES
from dal.ops import Row, Value
from dal.store import Stored
from dal.tables import TABLES

Role = Literal["primary", "replica", "fenced"]
Phase = Literal["CAPTURE", "BACKFILL", "SYNC", "VERIFIED", "ANNOUNCED", "FENCED", "SWITCHED", "RETIRED"]
State = Literal["dirty", "copied", "checked"]

#: Versions of one epoch: under 2^53 for a thousand epochs, so exact through JSON.
EPOCH: Final = 1 << 43


def is_first(version: int) -> bool:
    """Whether it is the lowest of an epoch: that of a row which has not changed since the move began."""
    return version % EPOCH == 0


#: What is switched together, in the order in which a whole move switches it.
UNITS: Final[dict[str, tuple[str, ...]]] = {
    "memory": ("user_memory",),
    "chats": ("chat_sessions", "messages"),
    "files": tuple(table.name for table in FILE_TABLES),
    "users": ("users",),
    "audit": ("system_logs",),
}
UNIT_OF: Final[dict[str, str]] = {table: unit for unit, tables in UNITS.items() for table in tables}
#: Every table with its place: parents before children.
TABLE_ORDER: Final[dict[str, int]] = {name: place for place, name in enumerate(TABLES)}


def in_order(units: Iterable[str]) -> list[str]:
    """The tables of these units, parents before children."""
    return sorted((table for unit in units for table in UNITS[unit]), key=TABLE_ORDER.__getitem__)


class Gate(NamedTuple):
    """How one unit stands in one store. Times are milliseconds since 1970 by the clock of whoever wrote them.

    move            id of the move; a store takes part in one move at a time.
    side            whether this store is the `source` or the `target` of the move; it stays when roles are switched.
    role            primary takes everybody's writes; replica and fenced take those of `apply` alone.
    epoch           the epoch in which this store is or was last primary; 0 for a target that never was.
    next_epoch      the epoch in which it may be activated; raising it burns the ones before.
    phase           how far the move has come; it counts in the row of the primary.
    cursor          how far the backfill has come in the unit: `table` and the last id marked, as `table:id`.
    turn            how many announcements of a switch there were: which of them stands is told by it, never by a time.
    lease_owner, lease_until_ms  which mover is at work on it. The time is for people; that it changes says that the
                    mover lives.
    shadow_percent  how many reads in a hundred also go to the replica, to be compared.
    notes           what commands report of the unit, a JSON object as text: counts, the last check, stalls.
    """

    unit: str
    move: str
    side: Literal["source", "target"]
    role: Role
    epoch: int
    next_epoch: int
    phase: Phase
    cursor: str = ""
    turn: int = 0
    lease_owner: str = ""
    lease_until_ms: int = 0
    shadow_percent: int = 0
    notes: str = "{}"


class Key(NamedTuple):
    """One row by its table and id."""

    table: str
    id: str


class Entry(NamedTuple):
    """One registry entry with its row, as of one moment.

    version  0 for a row that is there and was never registered, or for a key that is unknown.
    row      in the table's declared order, as `read` gives rows; None where there is no row: a tombstone, or unknown.
    hash     what the registry holds of the row's content (dal.move.canonical); None where it changed since.
    """

    table: str
    id: str
    version: int
    row: Row | None
    state: State = "dirty"
    hash: int | None = None

    @property
    def key(self) -> Key:
        return tuple.__new__(Key, self[:2])  # half the time of Key(…), and copies ask for it often


class Registered(NamedTuple):
    """One registry entry alone."""

    table: str
    id: str
    version: int
    deleted: bool
    state: State
    hash: int | None


class Copied(NamedTuple):
    """An entry that was applied elsewhere and read back equal."""

    table: str
    id: str
    version: int
    hash: int | None


def by_first(copied: Sequence[Copied]) -> tuple[list[Copied], list[Copied]]:
    """Those at the lowest version of an epoch, which may have no entry yet, and the others."""
    lowest = {version for version in {one.version for one in copied} if is_first(version)}
    return [one for one in copied if one.version in lowest], [one for one in copied if one.version not in lowest]


class Applied(NamedTuple):
    """What became of entries handed to `apply`: all of them were applied, or none.

    entries   those that were newer than what the store had; theirs are the rows that were written.
    blockers  not empty: nothing was applied. Rows of this store that hold a unique key of these entries, and rows that
              these entries refer to and this store has not. Their present state at the source goes with the next try.
    """

    entries: Sequence[Entry] = ()
    blockers: tuple[Key, ...] = ()

    @property
    def won(self) -> frozenset[Key]:
        """The keys of the entries."""
        return frozenset([entry.key for entry in self.entries])


class Unregistered(NamedTuple):
    """Rows that a move has not come to yet.

    entries  at the lowest version of their unit's epoch: older than whatever was or will be written.
    last     the last id looked at; empty at the end of the table.
    """

    entries: Sequence[Entry]
    last: str


class Bucket(NamedTuple):
    """Registry entries of one table whose ids end in the same three characters, added up.

    low, high  sums of the hashes' lower 32 bits and of the bits above; tombstones are counted, and add nothing.
    unhashed   live entries without a hash: they changed and were not copied since.
    """

    bucket: str
    live: int
    dead: int
    low: int
    high: int
    newest: int
    unhashed: int


class Backlog(NamedTuple):
    """Registry entries of one table by state."""

    dirty: int
    copied: int
    entries: int


class Replica(Protocol):
    """The moves' side of an open store.

    Methods raise errors of dal.errors only. Each is one transaction (D1: one batch), carried out whole or not at all.
    """

    # -- the move itself

    async def install(self, gates: Sequence[Gate]) -> None:
        """Makes the registry, its triggers and these gates; what is there already of the same move stays as it is.

        Waits, in short tries, for writers that are under way: from its return on, every write is registered and every
        role is enforced. Raises ConflictError where another move is installed, UnsupportedError where rights are
        missing (the message names them).
        """
        ...

    async def uninstall(self, *, keep_fence: bool) -> None:
        """Drops registry, triggers and gates. keep_fence leaves the gates, as RETIRED, and goes on refusing writes of
        units whose role is not primary. Nothing installed is no error."""
        ...

    async def gates(self) -> Mapping[str, Gate]:
        """The gates by unit, as of now; empty where no move was installed. One indexed read, of a few rows."""
        ...

    async def change_gate(self, unit: str, *, expect: Mapping[str, Value], change: Mapping[str, Value]) -> bool:
        """Compare-and-set: changes the gate if every expected field holds; whether it did.

        Where the role is not primary, writes that are not `apply`'s are refused (FencedError). What the delete of a
        parent takes along (cascade, set null) is let through in a replica, also in a delete of `apply`'s, and the
        child's entry marked: dirty, without a hash, its version as it was. `dirty` gives the marks; a newer copy clears
        them. Behind a fence such a delete of a parent is refused.
        A change of role takes effect with it, in the same transaction: once a fence (`fenced`) is set, no write of an
        application is under way or will be taken. `role="primary"` with an `epoch` first lifts the unit's counter to
        that epoch, so that every later version lies behind `epoch * EPOCH`.
        Raises DalTimeoutError (retryable) where writers under way did not end in FENCE_LOCK_TIMEOUT_S.
        """
        ...

    # -- the registry

    async def unregistered(self, table: str, after: str, limit: int) -> Unregistered:
        """Those of the next `limit` rows behind the id `after` that have no entry, as of one moment. Registers nothing:
        `acknowledge` does, once they were copied. Ids in the store's order."""
        ...

    async def seed(self, table: str, after: str, limit: int) -> str:
        """Registers, as dirty and at the lowest version of the unit's epoch, the next `limit` rows behind the id
        `after` that have no entry: those that could not be copied at once. The last id looked at; empty at the end of
        the table. Ids in the store's order."""
        ...

    async def dirty(self, table: str, limit: int) -> list[Entry]:
        """Entries that were not copied yet, with their rows as of the same moment. In no promised order."""
        ...

    async def entries(self, table: str, ids: Sequence[str]) -> list[Entry]:
        """These keys as they are now, of one moment; one entry for each id, also where nothing is known of it."""
        ...

    async def stored(self, table: str, ids: Sequence[str]) -> Stored:
        """Those of these rows that are there, as the store has them, without a look at the registry: half the cost of
        `entries`. In no promised order."""
        ...

    async def acknowledge(self, copied: Sequence[Copied]) -> None:
        """Marks entries as copied, with their hash, where they are still dirty at that version.

        At the lowest version of an epoch as checked, for both registries were read then; and also a key that has no
        entry: it has not changed since `unregistered` gave it.
        """
        ...

    async def tables_with(self, state: Literal["dirty", "copied"]) -> frozenset[str]:
        """Tables that have an entry in this state. One statement and a look or two into an index for each table: what a
        round asks first, so that the number of tables with nothing to do costs nothing."""
        ...

    async def backlog(self) -> Mapping[str, Backlog]:
        """How many entries of each table are in which state."""
        ...

    async def raise_versions(self, table: str, ids: Sequence[str]) -> int:
        """Registers these keys as dirty under new versions, whether or not they have an entry; how many. Repair: the
        normal way of copying then carries the primary's state over whatever the replica holds. Nothing where this
        store is not the unit's primary."""
        ...

    async def rescan(self) -> int:
        """Takes in what others changed past the store (hand-edited documents); how many rows. 0 where nobody can."""
        ...

    # -- copies

    async def apply(self, entries: Sequence[Entry]) -> Applied:
        """Writes the rows of those entries that are newer than this store's, with their versions and hashes.

        Entries may come in any order and repeat; one key comes once a call. Deletes go children first, writes parents
        first; rows that hold each other's unique keys are exchanged. Passes the fence. Takes no part in capture for
        units whose role here is not primary.
        """
        ...

    # -- checking

    async def total(self, table: str) -> Bucket:
        """The registry of one table added up as a whole; the bucket has no name. In a third of the time of `digest`."""
        ...

    async def digest(self, table: str) -> list[Bucket]:
        """The registry of one table added up, in at most 4096 buckets. Reads no row."""
        ...

    async def bucket(self, table: str, buckets: Sequence[str]) -> list[Registered]:
        """The registry entries in these buckets."""
        ...

    async def registered(self, table: str, ids: Sequence[str]) -> list[Registered]:
        """The registry entries of these keys; none for a key without one."""
        ...

    async def copied(self, table: str, after: str, limit: int) -> list[Registered]:
        """Entries copied and not checked since, behind the id `after` in the order of ids by code point."""
        ...

    async def mark_checked(self, table: str, versions: Mapping[str, int]) -> None:
        """Marks entries as checked, where they are still at that version and copied."""
        ...

    # -- what a plan and a cutover ask

    async def oldest_writer_s(self) -> float:
        """For how long the oldest transaction that may write has been open, in seconds; 0 where none is."""
        ...

    async def obstacles(self) -> list[str]:
        """What stands in the way of a move from or to this store (rights, engine, triggers), a sentence each."""
        ...


class OneWay:
    """What the moves' side of a source inherits that a unit cannot be switched back to.

    one_way  why, as a sentence for the operator, before the cutover and when asked to roll back.
    """

    one_way: str


@runtime_checkable
class Movable(Protocol):
    """A store that can be moved from and to. Layers do not hand it through: a move speaks to the bare backend."""

    def replica(self) -> Replica:
        """The moves' side of this store, open as long as the store is."""
        ...
