"""What a transaction knows of the stored rows: as much as its writes have made it look up, and no more.

The interpreter asks for rows and gets an answer at once; D1 answers later. So a batch is first carried out for trial:
what is not known is taken for absent and noted, the notes are looked up together, and the batch is tried again until
nothing is missing. Every answer, that a row is not there included, is a fact that must still hold at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, cast

from dal.backends.rows import MemoryRows, Scan, Stored
from dal.ops import Compare, Ref, Value
from dal.tables import TABLES, Table


class Lookup(NamedTuple):
    """Wanted: the row with this unique key."""

    table: str
    key: tuple[str, ...]
    values: tuple[Value, ...]


class Range(NamedTuple):
    """Wanted: the rows that meet these conditions, none of which holds a Ref any more."""

    table: str
    where: tuple[Compare, ...]


class KnownRows:
    """The stored rows of one table as far as they are known: `Rows` for the interpreter.

    wanted  where it notes what it was asked and did not know.
    """

    def __init__(self, table: Table, wanted: dict[Lookup | Range, None]) -> None:
        self.table = table
        self._rows = MemoryRows(table)
        self._absent: set[Lookup] = set()
        self._ranges: set[Range] = set()
        self._wanted = wanted

    def get(self, row_id: Value) -> Stored | None:
        return self.find((self.table.key,), (row_id,))

    def find(self, key: tuple[str, ...], values: tuple[Value, ...]) -> Stored | None:
        row = self._rows.find(key, values)
        if row is None:
            lookup = Lookup(self.table.name, key, values)
            if lookup not in self._absent:
                self._wanted[lookup] = None
        return row

    def scan(self, plan: Scan) -> tuple[Iterable[Stored], bool]:
        equal = plan.equal()
        for key in self.table.unique_keys:
            if all(column in equal for column in key):
                row = self.find(key, tuple(equal[column] for column in key))
                return ([] if row is None else [row]), True
        wanted = Range(self.table.name, tuple(_hashable(compare) for compare in plan.where))
        if wanted not in self._ranges:
            self._wanted[wanted] = None
        return list(self._rows), False

    def learn(self, wanted: Iterable[Lookup | Range], rows: Iterable[Stored]) -> None:
        """Takes in the rows that answer what was wanted."""
        for row in rows:
            self._rows.put(row)
        for one in wanted:
            if isinstance(one, Range):
                self._ranges.add(one)
            elif self._rows.find(one.key, one.values) is None:
                self._absent.add(one)

    def put(self, row: Stored) -> None:
        raise NotImplementedError("stored rows change at the end of the transaction only")

    def remove(self, row_id: str) -> None:
        raise NotImplementedError("stored rows change at the end of the transaction only")

    def drop(self, column: str, parent_id: str) -> None:
        raise NotImplementedError("stored rows change at the end of the transaction only")


class Known(Mapping[str, KnownRows]):
    """Every declared table as far as it is known."""

    def __init__(self) -> None:
        #: What is to be looked up next.
        self.wanted: dict[Lookup | Range, None] = {}
        self._tables = {name: KnownRows(table, self.wanted) for name, table in TABLES.items()}

    def __getitem__(self, name: str) -> KnownRows:
        return self._tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)


def _hashable(compare: Compare) -> Compare:
    """The condition with a list of values as a tuple."""
    value = compare.value
    is_list = isinstance(value, list | tuple) and not isinstance(value, Ref)
    return compare._replace(value=tuple(cast("Iterable[Value]", value))) if is_list else compare
