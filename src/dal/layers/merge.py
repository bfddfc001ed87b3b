"""Several waiting commits as one batch that means the same: the algebra of group commit, without any I/O.

Mergeable is a commit of at most one change of an existing row (Update or Upsert, first) and any number of Inserts. One
such change a commit lets the batch lock its rows in the order of (table, key), the same in every process, so that two
batches cannot deadlock. Updates of one row become one; Inserts that Ref into it are shifted by their place, so that
each sees what it would have seen alone. Everything else is not merged and goes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from dal.limits import MAX_GROUP_CHARS, MAX_GROUP_COMMITS, MAX_GROUP_OPS
from dal.ops import Insert, Op, Receipt, Ref, Update, Upsert, Value
from dal.tables import TABLES

# Parents before children, as the copy order has it.
_RANK: Final = {name: rank for rank, name in enumerate(TABLES)}
_RELATED: Final = frozenset(name for t in TABLES.values() for p in t.parents for name in (t.name, p.table))
_KEY_COLUMNS: Final = {t.name: frozenset(c for key in t.unique_keys for c in key) for t in TABLES.values()}

_Key = tuple[Value, ...]
_Shape = tuple[object, ...]


class Simple(NamedTuple):
    """A mergeable commit, taken apart once.

    lock      the change of an existing row, if there is one, with its key columns and values.
    inserts   each with its shape: what must agree for two inserts to be rows of one statement.
    referred  columns of the locked row that the inserts read.
    chars     characters of text in it, a cheap measure of its size.
    """

    ops: Sequence[Op]
    lock: Update | Upsert | None
    key_columns: tuple[str, ...]
    key: _Key
    inserts: list[tuple[Insert, _Shape]]
    referred: frozenset[str]
    chars: int


class Merged(NamedTuple):
    """One batch for several commits; `split` gives each its own Receipt back."""

    ops: list[Op]
    places: list[list[int]]

    def split(self, receipt: Receipt) -> list[Receipt]:
        """The Receipt of each commit, in the order in which they were merged."""
        counts, rows = receipt
        return [Receipt(tuple([counts[i] for i in p]), tuple([rows[i] for i in p])) for p in self.places]


def take_apart(ops: Sequence[Op]) -> Simple | None:
    """The commit as a Simple, or None where it has to go alone."""
    if any(op.table not in _RANK for op in ops):
        return None  # the store will say what is wrong with it
    lock: Update | Upsert | None = None
    key_columns: tuple[str, ...] = ()
    key: _Key = ()
    first = ops[0] if ops else None
    if type(first) is Update:
        if not _KEY_COLUMNS[first.table].isdisjoint(first.set) or not first.add.keys().isdisjoint(first.set):
            return None  # it renames the row, or says two things about one column
        lock, key_columns, key = first, tuple(first.key), tuple(first.key.values())
    elif type(first) is Upsert:
        if not _KEY_COLUMNS[first.table].isdisjoint(first.update) or not _is_about_its_own_row(first):
            return None
        lock, key_columns, key = first, first.on, tuple([first.row[c] for c in first.on])
    elif first is None:
        return None
    inserts: list[tuple[Insert, _Shape]] = []
    referred: set[str] = set()
    related: str | None = None
    chars = 0
    for op in ops[1:] if lock is not None else ops:
        if type(op) is not Insert or (lock is not None and op.table == lock.table):
            return None
        table = op.table
        if table in _RELATED:
            # With one such table a commit, the order of tables is an order of commits too: no two can need each other.
            if related is not None and table != related:
                return None
            related = table
        refs: list[str] = []
        for column, value in op.row.items():
            if type(value) is str:
                chars += len(value)
            elif type(value) is Ref:
                if type(lock) is not Update or value.table != lock.table or value.key != lock.key:
                    return None
                refs.append(column)
                referred.add(value.column)
        inserts.append((op, (table, tuple(op.row), tuple(refs), op.returning, op.search_later)))
    if type(lock) is Update and not referred.isdisjoint(lock.set):
        return None
    try:
        hash(key)
    except TypeError:
        return None  # a document as a key
    return Simple(ops, lock, key_columns, key, inserts, frozenset(referred), chars)


def _is_about_its_own_row(op: Upsert) -> bool:
    return all("." not in c.column and type(c.value) is not Ref for c in op.where)


class _Lock:
    """What the batch does to one existing row so far."""

    __slots__ = ("add", "op", "place", "referred", "set", "shared", "sort_key")

    def __init__(self, commit: Simple) -> None:
        op = commit.lock
        assert op is not None  # noqa: S101 - told to the type checker
        self.op: Update | Upsert = op
        self.set: dict[str, Value] = dict(op.set) if type(op) is Update else {}
        self.add: dict[str, int] = dict(op.add)
        self.referred = set(commit.referred)
        self.shared = False
        self.place = 0
        self.sort_key = (op.table, [str(value) for value in commit.key])

    def takes(self, commit: Simple) -> bool:
        mine, other = self.op, commit.lock
        return (
            type(mine) is Update
            and type(other) is Update
            and not mine.returning
            and not other.returning
            and self.set.keys().isdisjoint(other.add)
            and self.add.keys().isdisjoint(other.set)
            and self.set.keys().isdisjoint(commit.referred)
            and self.referred.isdisjoint(other.set)
        )

    def merge(self, commit: Simple) -> None:
        other = commit.lock
        assert type(other) is Update  # noqa: S101 - takes() has seen it
        self.shared = True
        self.set.update(other.set)
        for column, number in other.add.items():
            self.add[column] = self.add.get(column, 0) + number
        self.referred |= commit.referred

    def merged_op(self) -> Op:
        if self.shared and type(self.op) is Update:
            return Update(self.op.table, self.op.key, self.set, self.add)
        return self.op


class Merger:
    """Takes commits in their order for as long as they fit together, then gives the batch.

    max_ops  operations in the batch, where the store takes fewer than MAX_GROUP_OPS.
    """

    def __init__(self, *, max_ops: int = MAX_GROUP_OPS) -> None:
        self._max_ops = min(max_ops, MAX_GROUP_OPS)
        self._ops = 0
        self._chars = 0
        self._commits: list[tuple[Simple, _Lock | None, dict[str, int] | None]] = []
        self._locks: dict[tuple[str, _Key], _Lock] = {}
        self._lock_columns: dict[str, tuple[str, ...]] = {}
        self._inserted: set[str] = set()

    def add(self, commit: Simple) -> bool:
        """Takes the commit in; False where it must wait for another batch. The first one always fits."""
        if self._commits and not self._has_room(commit):
            return False
        lock = None
        if commit.lock is not None:
            table = commit.lock.table
            # One way to name the rows of a table in a batch: two names could mean one row unnoticed.
            if self._lock_columns.get(table, commit.key_columns) != commit.key_columns or table in self._inserted:
                return False
            lock = self._locks.get((table, commit.key))
            if lock is not None and not lock.takes(commit):
                return False
        tables = {insert.table for insert, _ in commit.inserts}
        # A table is either changed or added to, so that no change can miss, or meet, a row new in this batch.
        if not self._lock_columns.keys().isdisjoint(tables):
            return False

        if lock is not None:
            lock.merge(commit)
        elif commit.lock is not None:
            lock = self._locks[commit.lock.table, commit.key] = _Lock(commit)
            self._lock_columns[commit.lock.table] = commit.key_columns
        self._inserted |= tables
        self._ops += len(commit.ops)
        self._chars += commit.chars
        self._commits.append((commit, lock, dict(lock.add) if lock is not None and commit.referred else None))
        return True

    def _has_room(self, commit: Simple) -> bool:
        return (
            len(self._commits) < MAX_GROUP_COMMITS
            and self._ops + len(commit.ops) <= self._max_ops
            and self._chars + commit.chars <= MAX_GROUP_CHARS
        )

    def merged(self) -> Merged:
        """The batch: changes by (table, key), then inserts, parents first, those of one shape next to each other."""
        ops: list[Op] = []
        for lock in sorted(self._locks.values(), key=lambda lock: lock.sort_key):
            lock.place = len(ops)
            ops.append(lock.merged_op())
        groups: dict[_Shape, list[tuple[list[int], int, Insert]]] = {}
        places: list[list[int]] = []
        for commit, held, seen in self._commits:
            place = [held.place] if held is not None else []
            places.append(place)
            for insert, shape in commit.inserts:
                if held is not None and seen is not None and held.shared:
                    insert = _shifted(insert, held.add, seen)
                groups.setdefault(shape, []).append((place, len(place), insert))
                place.append(-1)
        for shape in sorted(groups, key=lambda shape: _RANK[str(shape[0])]):
            for place, at, insert in groups[shape]:
                place[at] = len(ops)
                ops.append(insert)
        return Merged(ops, places)


def _shifted(insert: Insert, total: dict[str, int], seen: dict[str, int]) -> Insert:
    """The insert with its Refs turned from the row after its own commit's change to the row after the whole batch's."""
    moved = {
        column: Ref(value.table, value.key, value.column, value.plus + back)
        for column, value in insert.row.items()
        if type(value) is Ref and (back := seen.get(value.column, 0) - total.get(value.column, 0))
    }
    if not moved:
        return insert
    return Insert(insert.table, {**insert.row, **moved}, insert.returning, insert.search_later)


def merge(commits: Sequence[Sequence[Op]]) -> Merged:
    """All these commits as one batch. ValueError where they do not fit together: a Merger finds out how far they do."""
    merger = Merger()
    for ops in commits:
        commit = take_apart(ops)
        if commit is None or not merger.add(commit):
            raise ValueError("these commits cannot be merged")
    return merger.merged()
