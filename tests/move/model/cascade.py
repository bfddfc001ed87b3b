"""A parent and its child, in two stores with foreign keys: what a delete does to rows that it was not asked to touch.

The child's unit is primary in the source. The parent's is too, or it was switched already and is primary in the target:
then deletes of the parent come from there. Each key has registry entries in both stores; a delete of the parent makes
the engine delete the child or set its reference null. Where the child's unit is primary that is a change like any
other. Where it is not, the engine's hand is not captured, and the entry is only marked: what the primary holds has to
be sent once more. Two copiers act on what they read, however late. Claims: once nothing is left to copy, both stores
are equal; equal versions that carry no mark mean equal rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal, NamedTuple

from tests.move.model.checker import Broken

Mutant = Literal[
    "cascades in a replica leave no mark",
    "marks do not count at the drain",
    "cascades pass a fence",
    "cascades of a copy are never captured",
    "a child without its parent is passed over",
]

PARENT: Final = 0
CHILD: Final = 1
GONE: Final = 0
REFERS: Final = 1
#: A child whose reference was set null. For a parent any row is 1.
ALONE: Final = 2

SOURCE: Final = 0
TARGET: Final = 1


class Entry(NamedTuple):
    """A key in one store. `row` is GONE, REFERS or ALONE; `dirty` in a replica is the mark."""

    version: int
    row: int
    dirty: bool


class Copy(NamedTuple):
    """A copier at work: what it read of some keys, and whether it was applied."""

    home: int
    entries: tuple[tuple[int, Entry], ...]
    applied: bool


class State(NamedTuple):
    stores: tuple[tuple[Entry, Entry], tuple[Entry, Entry]]
    newest: int
    writes: int
    fences: int
    fenced: bool
    copies: tuple[Copy, ...]


@dataclass(frozen=True)
class Cascade:
    """One parent, one child. `parent_home` is the store in which the parent's unit is primary."""

    mutant: Mutant | None = None
    parent_home: int = SOURCE
    set_null: bool = False
    writes: int = 4
    copiers: int = 2

    def start(self) -> State:
        both = (Entry(1, REFERS, False), Entry(2, REFERS, False))
        return State((both, both), 2, self.writes, 1, False, ())

    def home(self, key: int) -> int:
        return self.parent_home if key == PARENT else SOURCE

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        if state.writes:
            yield from self._writes(state)
        if state.fenced:
            yield "unfence the child's unit", state._replace(fenced=False)
        elif state.fences:
            yield "fence the child's unit", state._replace(fenced=True, fences=state.fences - 1)
        if len(state.copies) < self.copiers:
            yield from self._reads(state)
        for at, copy in enumerate(state.copies):
            rest = state._replace(copies=state.copies[:at] + state.copies[at + 1 :])
            yield "a copier dies", rest
            if copy.applied:
                yield f"acknowledge {_said(copy)}", self._acknowledge(rest, copy)
            else:
                yield from self._applies(rest, copy)
        yield from self._repairs(state)

    # -- writers

    def _writes(self, state: State) -> Iterator[tuple[str, State]]:
        less = state._replace(writes=state.writes - 1)
        parent = state.stores[self.parent_home][PARENT]
        if parent.row == GONE:
            yield "insert parent", self._change(less, self.parent_home, PARENT, REFERS)
        elif (deleted := self._delete_parent(less, self.parent_home, None)) is not None:
            yield "delete parent", deleted
        if state.fenced:
            return
        child = state.stores[SOURCE][CHILD]
        if child.row != GONE:
            yield "delete child", self._change(less, SOURCE, CHILD, GONE)
        if child.row != REFERS and state.stores[SOURCE][PARENT].row != GONE:
            yield "write child", self._change(less, SOURCE, CHILD, REFERS)

    def _change(self, state: State, store: int, key: int, row: int) -> State:
        version = state.newest + 1
        return _put(state, store, key, Entry(version, row, True))._replace(newest=version)

    def _delete_parent(self, state: State, store: int, copied: Entry | None) -> State | None:
        """The parent's row goes, by a writer or by a copy, and the engine follows; None where a fence refuses it."""
        refers = state.stores[store][CHILD].row == REFERS
        at_home = store == self.home(CHILD)
        if refers and at_home and state.fenced and self.mutant != "cascades pass a fence":
            return None
        state = self._change(state, store, PARENT, GONE) if copied is None else _put(state, store, PARENT, copied)
        if not refers:
            return state
        left = ALONE if self.set_null else GONE
        captured = at_home and not state.fenced
        if self.mutant == "cascades of a copy are never captured" and copied is not None:
            captured = False
        if captured:
            return self._change(state, store, CHILD, left)
        child = state.stores[store][CHILD]
        mark = self.mutant != "cascades in a replica leave no mark" and not at_home
        return _put(state, store, CHILD, child._replace(row=left, dirty=child.dirty or mark))

    # -- copiers

    def _reads(self, state: State) -> Iterator[tuple[str, State]]:
        for home in {self.parent_home, SOURCE}:
            keys = [key for key in (PARENT, CHILD) if self.home(key) == home and state.stores[home][key].dirty]
            for some in {tuple(keys), tuple(keys[:1]), tuple(keys[1:])} - {()}:
                yield from self._read(state, home, some)

    def _read(self, state: State, home: int, keys: tuple[int, ...]) -> Iterator[tuple[str, State]]:
        copy = Copy(home, tuple((key, state.stores[home][key]) for key in keys), False)
        yield f"read {_said(copy)}", state._replace(copies=tuple(sorted((*state.copies, copy))))

    def _applies(self, rest: State, copy: Copy) -> Iterator[tuple[str, State]]:
        there = 1 - copy.home
        winners = {key: entry for key, entry in copy.entries if entry.version > rest.stores[there][key].version}
        after = rest
        child = winners.get(CHILD)
        if child is not None and child.row == GONE:
            after = _put(after, there, CHILD, child._replace(dirty=False))
        parent = winners.get(PARENT)
        if parent is not None:
            parent = parent._replace(dirty=False)
            if parent.row == GONE:
                deleted = self._delete_parent(after, there, parent)
                if deleted is None:
                    return  # refused by the fence; it is read again later
                after = deleted
            else:
                after = _put(after, there, PARENT, parent)
        if child is not None and child.row != GONE:
            if child.row == REFERS and after.stores[there][PARENT].row == GONE:
                if self.mutant == "a child without its parent is passed over":
                    yield f"pass over {_said(copy)}", _held(rest, copy)
                elif self.home(PARENT) == copy.home:
                    yield from self._read(rest, copy.home, (PARENT, CHILD))
                return  # else the parent's own home will bring it
            after = _put(after, there, CHILD, child._replace(dirty=False))
        yield f"apply {_said(copy)}", _held(after, copy)

    def _acknowledge(self, state: State, copy: Copy) -> State:
        for key, read in copy.entries:
            now = state.stores[copy.home][key]
            if now.version == read.version:
                state = _put(state, copy.home, key, now._replace(dirty=False))
        return state

    def _repairs(self, state: State) -> Iterator[tuple[str, State]]:
        """A mark in the replica: the primary's entry gets a new version, unless it is to be sent anyway."""
        now = state.stores[SOURCE][CHILD]
        if state.stores[TARGET][CHILD].dirty and not now.dirty and not state.fenced:
            yield "send the marked child again", self._change(state, SOURCE, CHILD, now.row)

    # -- claims

    def drained(self, state: State) -> bool:
        for store, key in product((SOURCE, TARGET), (PARENT, CHILD)):
            marks = store == self.home(key) or self.mutant != "marks do not count at the drain"
            if state.stores[store][key].dirty and marks:
                return False
        return True

    def check(self, state: State) -> None:
        source, target = state.stores
        if self.drained(state) and [e.row for e in source] != [e.row for e in target]:
            raise Broken(f"nothing is left to copy, and the stores differ: {source} and {target}")
        for mine, theirs in zip(source, target, strict=True):
            if mine.version == theirs.version and not (mine.dirty or theirs.dirty) and mine.row != theirs.row:
                raise Broken(f"the registries agree on version {mine.version}, and the rows differ")

    def good(self, state: State) -> bool:
        return self.drained(state) and not state.fenced and not state.copies

    def helps(self, step: str) -> bool:
        return not step.startswith(("insert", "delete", "write", "fence"))


def _put(state: State, store: int, key: int, entry: Entry) -> State:
    rows = list(state.stores[store])
    rows[key] = entry
    pair = (rows[0], rows[1])
    return state._replace(stores=(pair, state.stores[1]) if store == SOURCE else (state.stores[0], pair))


def _held(state: State, copy: Copy) -> State:
    return state._replace(copies=tuple(sorted((*state.copies, copy._replace(applied=True)))))


def _said(copy: Copy) -> str:
    names = ("parent", "child")
    rows = ("gone", "there", "alone")
    return ", ".join(f"{names[key]}@{entry.version} {rows[entry.row]}" for key, entry in copy.entries)
