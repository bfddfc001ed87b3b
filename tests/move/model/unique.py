"""Rows that take each other's unique values, copied one by one: what an apply does when another row holds the value.

The source sees to it that no two rows hold one value, and lets two rows exchange theirs in a transaction. A copier
reads some dirty rows as of one moment and applies them at any later time. When a row outside its batch holds a value of
it, nothing is applied, and the batch is read again together with that row. When all such rows are in the batch and win,
their values are parked first, so that an exchange has no order to fail in. When one of them has been overtaken, the
batch is old: it is dropped, and what is still dirty is read again.

Claims: no two rows of the target ever hold one value, versions never go back, equal versions mean equal rows, once
nothing is left to copy both stores are equal, and that can always be reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal, NamedTuple

from tests.move.model.checker import Broken

Mutant = Literal[
    "a clash is passed over",
    "the row in the way is replaced",
    "no parking",
    "rows that do not win are parked",
    "a row in the way is applied whatever its version",
]

GONE: Final = "gone"
#: A value that any number of rows may hold, as NULL.
FREE: Final = "free"
PARKED: Final = "parked"
VALUES: Final = (GONE, FREE, "x", "y")


class Entry(NamedTuple):
    value: str
    version: int
    dirty: bool


class Read(NamedTuple):
    key: int
    value: str
    version: int


class Copy(NamedTuple):
    """A copier at work: what it read as of one moment, and whether it was applied."""

    batch: tuple[Read, ...]
    applied: bool


class State(NamedTuple):
    source: tuple[Entry, ...]
    target: tuple[Entry, ...]
    newest: int
    writes: int
    copies: tuple[Copy, ...]


@dataclass(frozen=True)
class Unique:
    """Rows of which the first two are there when it begins, holding x and y in both stores."""

    mutant: Mutant | None = None
    keys: int = 2
    writes: int = 3
    copiers: int = 2

    def start(self) -> State:
        values = ("x", "y", *[GONE] * (self.keys - 2))
        entries = tuple(Entry(value, 1, False) for value in values)
        return State(entries, entries, 1, self.writes, ())

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        if state.writes:
            yield from self._write(state)
        if len(state.copies) < self.copiers:
            dirty = [key for key, entry in enumerate(state.source) if entry.dirty]
            for count in range(1, len(dirty) + 1):
                for keys in combinations(dirty, count):
                    copy = self._read(state, keys)
                    yield f"read {_said(copy)}", _holding(state, copy)
        for at, copy in enumerate(state.copies):
            rest = state._replace(copies=state.copies[:at] + state.copies[at + 1 :])
            yield "a copier dies", rest
            if copy.applied:
                yield f"acknowledge {_said(copy)}", self._acknowledge(rest, copy)
            else:
                yield self._apply(rest, copy)

    def _write(self, state: State) -> Iterator[tuple[str, State]]:
        taken = {entry.value for entry in state.source} - {GONE, FREE}
        for key, entry in enumerate(state.source):
            for value in VALUES:
                if value != entry.value and value not in taken:
                    yield f"write k{key} {value}", self._change(state, {key: value})
        for one, other in combinations(range(self.keys), 2):
            mine, theirs = state.source[one].value, state.source[other].value
            if {mine, theirs} == {"x", "y"}:
                yield f"exchange k{one} and k{other}", self._change(state, {one: theirs, other: mine})

    def _change(self, state: State, values: dict[int, str]) -> State:
        source = list(state.source)
        newest = state.newest
        for key, value in values.items():
            newest += 1
            source[key] = Entry(value, newest, True)
        return state._replace(source=tuple(source), newest=newest, writes=state.writes - 1)

    def _read(self, state: State, keys: tuple[int, ...]) -> Copy:
        return Copy(tuple(Read(key, state.source[key].value, state.source[key].version) for key in keys), False)

    def _apply(self, rest: State, copy: Copy) -> tuple[str, State]:
        winners = {read.key: read for read in copy.batch if read.version > rest.target[read.key].version}
        wanted = {read.value: read.key for read in winners.values()}
        rows = list(rest.target)
        for read in winners.values():
            if read.value == GONE:
                rows[read.key] = Entry(GONE, read.version, False)
        in_the_way = {key for key, row in enumerate(rows) if row.value in wanted and wanted[row.value] != key}
        in_the_way = {key for key in in_the_way if rows[key].value not in (GONE, FREE)}
        batch = {read.key for read in copy.batch}
        if self.mutant == "a clash is passed over":
            winners = {key: read for key, read in winners.items() if not self._clashes(read, rows)}
        elif self.mutant == "the row in the way is replaced":
            for key in in_the_way - set(winners):
                rows[key] = rows[key]._replace(value=GONE)
        elif in_the_way - batch:
            again = self._read(rest, tuple(sorted(batch | in_the_way)))
            return f"read {_said(again)} instead", _holding(rest, again)
        elif self.mutant == "a row in the way is applied whatever its version":
            winners |= {read.key: read for read in copy.batch if read.key in in_the_way}
        elif self.mutant == "rows that do not win are parked":
            for key in in_the_way - set(winners):
                rows[key] = rows[key]._replace(value=PARKED)
        elif in_the_way - set(winners):
            return "drop a batch that was overtaken", rest
        elif in_the_way and self.mutant == "no parking":
            return "fail at a unique value", rest
        for read in winners.values():
            if read.version < rows[read.key].version:
                raise Broken(f"k{read.key} goes back from {rows[read.key].version} to {read.version}")
            rows[read.key] = Entry(read.value, read.version, False)
        return f"apply {_said(copy)}", _holding(rest._replace(target=tuple(rows)), copy._replace(applied=True))

    def _clashes(self, read: Read, rows: list[Entry]) -> bool:
        if read.value in (GONE, FREE):
            return False
        return any(row.value == read.value for key, row in enumerate(rows) if key != read.key)

    def _acknowledge(self, state: State, copy: Copy) -> State:
        source = list(state.source)
        for read in copy.batch:
            if source[read.key].version == read.version:
                source[read.key] = source[read.key]._replace(dirty=False)
        return state._replace(source=tuple(source))

    # -- claims

    def check(self, state: State) -> None:
        values = [row.value for row in state.target if row.value not in (GONE, FREE)]
        if len(values) != len(set(values)):
            raise Broken(f"two rows of the target hold one value: {state.target}")
        for mine, theirs in zip(state.source, state.target, strict=True):
            if mine.version == theirs.version and mine.value != theirs.value:
                raise Broken(f"both have version {mine.version}, and the rows differ: {mine.value} and {theirs.value}")
            if not mine.dirty and mine.value != theirs.value:
                raise Broken(f"{mine} counts as copied, and the target has {theirs}")

    def good(self, state: State) -> bool:
        return not any(entry.dirty for entry in state.source) and not state.copies

    def helps(self, step: str) -> bool:
        return not step.startswith(("write", "exchange"))


def _holding(state: State, copy: Copy) -> State:
    return state._replace(copies=tuple(sorted((*state.copies, copy))))


def _said(copy: Copy) -> str:
    return ", ".join(f"k{read.key} {read.value} @{read.version}" for read in copy.batch)
