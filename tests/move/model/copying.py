"""Rows of one unit while everybody writes: capture, backfill, copies under versions, a cutover and the way back.

Writers write to whichever store takes writes; a write gets its version when it is carried out and is seen when it
commits, so a lower version may be seen later than a higher one. Any copier may read a dirty entry of either store and
act on it at any later time, or die: relays, inline pushes and zombies are the same thing. A row that the backfill has
not come to yet has no entry, and may be copied before it comes there; whoever copies it registers it then, at the
lowest version, unless somebody was faster; it may also be registered as dirty instead. One mover fences, drains,
activates and marks; everybody may abort a fence.
Many movers at once are the subject of `cutover`.

Claims: the store that was activated last holds every acknowledged write (I1, I2, I8, I10), versions never go back (I5),
a store is activated only fenced, quiet and equal (I6), equal versions mean equal rows (I4), never two primaries (I3),
and everything can always be brought to rest, with both stores equal (I7).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeVar

from tests.move.model.checker import Broken

T = TypeVar("T")

Mutant = Literal[
    "no version guard",
    "no tombstone",
    "row-local versions",
    "versions without epoch",
    "counter not lifted before activation",
    "no drain",
    "fence without waiting for writers in flight",
    "no fence",
    "a sequence cursor instead of the dirty set",
    "acknowledged before the apply",
    "acknowledged without comparing the version",
    "row and entry read in two steps",
    "capture installed without waiting",
    "seed overwrites an entry",
    "a copied row is registered over an entry",
    "the backfill passes rows without an entry",
    "the backfill reads rows at the version of the counter",
    "copies are captured as new versions",
    "replica takes writes",
]

SOURCE: Final = 0
TARGET: Final = 1
#: Versions of one epoch here; the library's is dal.replica.EPOCH.
EPOCH: Final = 100

PRIMARY: Final = 0
FENCED: Final = 1
REPLICA: Final = 2

UNREAD: Final = -1


class Gate(NamedTuple):
    role: int
    epoch: int
    next_epoch: int


class Entry(NamedTuple):
    """A key in one store: its row (0 is none, else the number of the write) and what the registry has of it."""

    row: int
    version: int
    dirty: bool


class Flight(NamedTuple):
    """A write that was carried out and has not committed. version 0: no trigger was there to see it."""

    store: int
    key: int
    row: int
    version: int


class Copy(NamedTuple):
    """A copier at work. UNREAD: it has the row, and not yet the entry (a mutant)."""

    home: int
    key: int
    row: int
    version: int
    applied: bool


class State(NamedTuple):
    gates: tuple[Gate, Gate]
    stores: tuple[tuple[Entry, ...], tuple[Entry, ...]]
    counters: tuple[int, int]
    flights: tuple[Flight, ...]
    copies: tuple[Copy, ...]
    truth: tuple[int, ...]
    installed: bool
    looking: bool
    seeded: int
    cursor: int
    writes: int
    fences: int


@dataclass(frozen=True)
class Copying:
    """A unit of `keys` rows, of which the first is there when it begins."""

    mutant: Mutant | None = None
    keys: int = 1
    writes: int = 3
    copiers: int = 2
    fences: int = 2

    def start(self) -> State:
        rows = (1,) + (0,) * (self.keys - 1)
        source = tuple(Entry(row, 0, False) for row in rows)
        target = tuple(Entry(0, 0, False) for _ in rows)
        return State(
            gates=(Gate(PRIMARY, 1, 0), Gate(REPLICA, 0, 2)),
            stores=(source, target),
            counters=(EPOCH, EPOCH if self.mutant == "copies are captured as new versions" else 0),
            flights=(),
            copies=(),
            truth=rows,
            installed=False,
            looking=False,
            seeded=0,
            cursor=0,
            writes=self.writes,
            fences=self.fences,
        )

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        yield from self._write(state)
        for at, flight in enumerate(state.flights):
            rest = state._replace(flights=state.flights[:at] + state.flights[at + 1 :])
            yield f"commit {_said(flight)}", self._commit(rest, flight)
        yield from self._install_and_backfill(state)
        if state.installed:
            yield from self._read(state)
        for at, copy in enumerate(state.copies):
            rest = state._replace(copies=state.copies[:at] + state.copies[at + 1 :])
            yield "a copier dies", rest
            yield from self._go_on(rest, copy)
        for store in (SOURCE, TARGET):
            yield from self._switch(state, store)

    # -- writers

    def _write(self, state: State) -> Iterator[tuple[str, State]]:
        if not state.writes:
            return
        for store, key in self._writable(state):
            entry = state.stores[store][key]
            if any(flight.store == store and flight.key == key for flight in state.flights):
                continue  # the row's lock
            for row in {self.writes - state.writes + 2, 0}:
                if row == entry.row:
                    continue  # a delete of nothing
                after = state._replace(writes=state.writes - 1)
                version = 0
                if state.installed:
                    after, version = self._next_version(after, store, entry)
                flight = Flight(store, key, row, version)
                yield f"write {_said(flight)}", after._replace(flights=tuple(sorted((*state.flights, flight))))

    def _writable(self, state: State) -> Iterator[tuple[int, int]]:
        for store in (SOURCE, TARGET):
            role = state.gates[store].role
            takes = role == PRIMARY
            takes |= role == FENCED and self.mutant == "no fence"
            takes |= role == REPLICA and self.mutant == "replica takes writes" and state.installed
            if takes:
                yield from ((store, key) for key in range(self.keys))

    def _next_version(self, state: State, store: int, entry: Entry) -> tuple[State, int]:
        if self.mutant == "row-local versions":
            return state, entry.version + 1 if entry.row else EPOCH + 1
        counters = list(state.counters)
        counters[store] += 1
        return state._replace(counters=(counters[0], counters[1])), counters[store]

    def _commit(self, state: State, flight: Flight) -> State:
        """The write is seen, and acknowledged to whoever asked for it."""
        truth = _with(state.truth, flight.key, flight.row)
        before = state.stores[flight.store][flight.key]
        if not flight.version:
            return _put(state, flight.store, flight.key, before._replace(row=flight.row))._replace(truth=truth)
        if state.gates[flight.store].role == REPLICA:  # its role decides what the trigger does
            after = Entry(flight.row, before.version, before.dirty)
        else:
            after = Entry(flight.row, flight.version, True)
        if after.version < before.version:
            raise Broken(f"I5: {_said(flight)} has a lower version than its key had before")
        return _put(state, flight.store, flight.key, after)._replace(truth=truth)

    # -- the move: capture and backfill

    def _install_and_backfill(self, state: State) -> Iterator[tuple[str, State]]:
        if not state.installed:
            if not state.flights or self.mutant == "capture installed without waiting":
                yield "install capture", state._replace(installed=True)
            return
        if state.seeded == self.keys or state.gates[SOURCE].role != PRIMARY:
            return
        key = state.seeded
        entry = state.stores[SOURCE][key]
        further = state._replace(seeded=key + 1, looking=False)
        if not state.looking:
            yield from self._read_ahead(state)
            is_unregistered = bool(entry.row and not entry.version)
            if is_unregistered:
                yield f"seed looks at k{key}", state._replace(looking=True)
            if not is_unregistered or self.mutant == "the backfill passes rows without an entry":
                yield f"the backfill passes k{key}", further
            return
        yield "the seeding mover dies", state._replace(looking=False)
        if not entry.version or self.mutant == "seed overwrites an entry":
            yield f"seed registers k{key}", _put(further, SOURCE, key, Entry(entry.row, self._lowest(state), True))
        else:
            yield f"seed finds an entry of k{key}", further

    def _read_ahead(self, state: State) -> Iterator[tuple[str, State]]:
        """Whatever has no entry yet can be read, before the backfill has passed what lies in front of it."""
        if len(state.copies) == self.copiers:
            return
        for key, entry in enumerate(state.stores[SOURCE]):
            if key >= state.seeded and entry.row and not entry.version:
                copy = Copy(SOURCE, key, entry.row, self._lowest(state), False)
                yield f"the backfill reads {_said(copy)}", _holding(state, copy)

    def _lowest(self, state: State) -> int:
        if self.mutant == "the backfill reads rows at the version of the counter":
            return state.counters[SOURCE]
        return state.gates[SOURCE].epoch * EPOCH

    # -- copiers

    def _pending(self, state: State, home: int) -> list[int]:
        """The keys of a store that are still to be copied."""
        entries = state.stores[home]
        if (
            self.mutant == "a sequence cursor instead of the dirty set"
        ):  # it cannot do without a list of what was seeded
            return [
                key
                for key, entry in enumerate(entries)
                if (entry.version > state.cursor if entry.version % EPOCH else entry.dirty)
            ]
        return [key for key, entry in enumerate(entries) if entry.dirty]

    def _read(self, state: State) -> Iterator[tuple[str, State]]:
        if len(state.copies) == self.copiers:
            return
        for home in (SOURCE, TARGET):
            for key in self._pending(state, home):
                entry = state.stores[home][key]
                after = state
                version = entry.version
                if self.mutant == "acknowledged before the apply":
                    after = _put(after, home, key, entry._replace(dirty=False))
                if self.mutant == "row and entry read in two steps":
                    version = UNREAD
                copy = Copy(home, key, entry.row, version, False)
                yield f"read {_said(copy)}", _holding(after, copy)

    def _go_on(self, rest: State, copy: Copy) -> Iterator[tuple[str, State]]:
        if copy.version == UNREAD:
            found = copy._replace(version=rest.stores[copy.home][copy.key].version)
            yield f"read the entry of {_said(found)}", _holding(rest, found)
        elif not copy.applied:
            yield f"apply {_said(copy)}", _holding(self._apply(rest, copy), copy._replace(applied=True))
        else:
            yield f"acknowledge {_said(copy)}", self._acknowledge(rest, copy)

    def _apply(self, state: State, copy: Copy) -> State:
        there = 1 - copy.home
        before = state.stores[there][copy.key]
        if copy.version <= before.version and self.mutant != "no version guard":
            return state
        after = Entry(copy.row, copy.version, False)
        if self.mutant == "no tombstone" and not copy.row:
            return _put(state, there, copy.key, Entry(0, 0, False))
        if self.mutant == "copies are captured as new versions":
            state, version = self._next_version(state, there, before)
            after = Entry(copy.row, version, True)
        if after.version < before.version:
            raise Broken(f"I5: {_said(copy)} takes the place of version {before.version}")
        if state.gates[there].role == PRIMARY:
            raise Broken(f"{_said(copy)} wins over what the primary has")
        return _put(state, there, copy.key, after)

    def _acknowledge(self, state: State, copy: Copy) -> State:
        entry = state.stores[copy.home][copy.key]
        if self.mutant == "a sequence cursor instead of the dirty set":
            state = state._replace(cursor=max(state.cursor, copy.version))
        if entry.version == copy.version or self.mutant == "acknowledged without comparing the version":
            return _put(state, copy.home, copy.key, entry._replace(dirty=False))
        if copy.version % EPOCH == 0:  # as the backfill read it
            if not entry.version:
                return _put(state, copy.home, copy.key, Entry(entry.row, copy.version, False))
            if self.mutant == "a copied row is registered over an entry":
                return _put(state, copy.home, copy.key, Entry(entry.row, copy.version, False))
        return state

    # -- cutover, from either store to the other

    def _switch(self, state: State, store: int) -> Iterator[tuple[str, State]]:
        there = 1 - store
        mine, theirs = state.gates[store], state.gates[there]
        seeded = state.installed and state.seeded == self.keys
        if mine.role == PRIMARY and theirs.role == REPLICA and seeded and state.fences:
            quiet = all(flight.store != store for flight in state.flights)
            if quiet or self.mutant == "fence without waiting for writers in flight":
                fenced = _gate(state, store, mine._replace(role=FENCED))
                yield f"fence s{store}", fenced._replace(fences=state.fences - 1)
        if mine.role == FENCED and theirs.epoch > mine.epoch:
            yield f"mark s{store}", _gate(state, store, Gate(REPLICA, mine.epoch, theirs.epoch + 1))
        elif mine.role == FENCED:
            burnt = _gate(state, there, theirs._replace(next_epoch=theirs.next_epoch + 1))
            yield f"abort the fence of s{store}", self._activate(burnt, store, theirs.next_epoch)
            if not self._pending(state, store) or self.mutant == "no drain":
                self._ready(state, store)
                yield f"activate s{there}", self._activate(state, there, theirs.next_epoch)

    def _activate(self, state: State, store: int, epoch: int) -> State:
        counters = list(state.counters)
        if self.mutant not in ("versions without epoch", "counter not lifted before activation"):
            counters[store] = max(counters[store], epoch * EPOCH)
        if self.mutant == "versions without epoch":
            counters[store] = max(counters[store], EPOCH)
        state = state._replace(counters=(counters[0], counters[1]))
        return _gate(state, store, state.gates[store]._replace(role=PRIMARY, epoch=epoch))

    def _ready(self, state: State, store: int) -> None:
        if self.mutant in ("no drain", "no fence"):
            return  # let the loss itself be found
        mine, theirs = ([entry.row for entry in entries] for entries in (state.stores[store], state.stores[1 - store]))
        if mine != theirs:
            raise Broken(f"I6: s{1 - store} would be activated with {theirs}, where s{store} has {mine}")

    # -- claims

    def check(self, state: State) -> None:
        source, target = state.gates
        if source.role == target.role == PRIMARY:
            raise Broken("I3: two primaries")
        owner = SOURCE if source.epoch > target.epoch else TARGET
        held = tuple(entry.row for entry in state.stores[owner])
        if held != state.truth:
            raise Broken(f"I1, I2: {state.truth} was acknowledged, and s{owner} has {held}")
        for mine, theirs in zip(*state.stores, strict=True):
            if mine.version and mine.version == theirs.version and mine.row != theirs.row:
                raise Broken(f"I4: both have version {mine.version}, and the rows differ")

    def good(self, state: State) -> bool:
        """At rest: one primary, nothing on its way, both stores equal."""
        if state.flights or state.copies or not state.installed or state.seeded < self.keys:
            return False
        if {gate.role for gate in state.gates} != {PRIMARY, REPLICA}:
            return False
        pending = self._pending(state, SOURCE) + self._pending(state, TARGET)
        return not pending and [e.row for e in state.stores[SOURCE]] == [e.row for e in state.stores[TARGET]]

    def helps(self, step: str) -> bool:
        return not step.startswith(("write", "fence"))


def _with(values: tuple[T, ...], at: int, value: T) -> tuple[T, ...]:
    return (*values[:at], value, *values[at + 1 :])


def _put(state: State, store: int, key: int, entry: Entry) -> State:
    entries = _with(state.stores[store], key, entry)
    return state._replace(stores=(entries, state.stores[1]) if store == SOURCE else (state.stores[0], entries))


def _gate(state: State, store: int, gate: Gate) -> State:
    return state._replace(gates=(gate, state.gates[1]) if store == SOURCE else (state.gates[0], gate))


def _holding(state: State, copy: Copy) -> State:
    return state._replace(copies=tuple(sorted((*state.copies, copy))))


def _said(what: Flight | Copy) -> str:
    store = what.store if isinstance(what, Flight) else what.home
    row = f"={what.row}" if what.row else " gone"
    return f"s{store} k{what.key}{row} @{what.version}"
