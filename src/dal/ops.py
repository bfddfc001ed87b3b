"""Reads and writes as values: the closed vocabulary of the waist.

A repository says what it wants with these values and a store carries it out; nothing else passes between them, which is
why layers, the consistency checker and live moves can be written once. A new word needs the memory interpreter, the SQL
compiler and a contract test: that is the brake against growing an ORM.

Values are named tuples: immutable, and built in a quarter of a microsecond.

Column paths. Where a query names a column it may also follow one foreign key: `"chat_session_id.chat_id"` is the
`chat_id` of the parent row that `chat_session_id` points to.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from dal.search import SearchQuery

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
Value: TypeAlias = "JsonValue | datetime"
Row: TypeAlias = tuple[Value, ...]
Comparator = Literal["=", "!=", "<", "<=", ">", ">=", "in", "null or >"]


class Ref(NamedTuple):
    """The value in that column of another row at this point of the batch, plus a constant.

    `key` is a whole unique key of the table. A batch whose Ref finds no row is refused with MissingReferenceError.
    """

    table: str
    key: Mapping[str, Value]
    column: str
    plus: int = 0


class Compare(NamedTuple):
    """One and-ed condition: `column op value`.

    `=` and `!=` treat None as a value (IS NULL, IS NOT NULL). `in` takes a tuple or list of values; an empty one holds
    for no row. `null or >` holds where the column is null or greater than the value. A Ref as the value (with any
    comparator but `in` and `null or >`) is read from the store in the same statement; where it finds no row, the
    condition holds for none.
    """

    column: str
    op: Comparator
    value: Value | tuple[Value, ...] | Ref


class Select(NamedTuple):
    """Rows of one table: all conditions hold, in this order, after this place, at most so many.

    columns  names or column paths; empty means the table's declared columns, in declared order.
    order    column names, `-` before one that descends; a bounded or paged query ends with a unique tail.
    after    keyset: the values of the order columns of the last row already seen; only rows behind it are returned.
             Order columns of a query with `after` are never null.
    """

    table: str
    where: tuple[Compare, ...] = ()
    order: tuple[str, ...] = ()
    after: tuple[Value, ...] | None = None
    limit: int | None = None
    columns: tuple[str, ...] = ()


class Count(NamedTuple):
    """How many rows match: one row of one integer."""

    table: str
    where: tuple[Compare, ...] = ()


class Sum(NamedTuple):
    """The sum of an integer column over the rows that match, 0 for none: one row of one integer."""

    table: str
    column: str
    where: tuple[Compare, ...] = ()


class Search(NamedTuple):
    """Rows whose search column matches the query (dal.search.matches), newest first.

    The order is fixed by the table's declaration (`Table.search_order`); `after` and `limit` are as in Select.
    """

    table: str
    query: SearchQuery
    where: tuple[Compare, ...] = ()
    after: tuple[Value, ...] | None = None
    limit: int = 20
    columns: tuple[str, ...] = ()


class Insert(NamedTuple):
    """A new row. Refused as a whole batch: a key already taken (AlreadyExistsError), a parent not there
    (MissingReferenceError). `row` names every column of the table. `returning` names columns for the Receipt.
    `search_later` leaves the row out of the search index until the store is told to index what is pending: for bulk
    loads; a store that searches without an index ignores it."""

    table: str
    row: Mapping[str, Value | Ref]
    returning: tuple[str, ...] = ()
    search_later: bool = False


class Upsert(NamedTuple):
    """A new row, or a change of the row that holds the same unique key.

    on      the columns of one declared unique key.
    update  columns that an existing row takes over from `row`.
    add     numbers added to columns of an existing row.
    where   conditions an existing row must meet; where it does not, nothing is written and the count is 0.
    """

    table: str
    row: Mapping[str, Value]
    on: tuple[str, ...]
    update: tuple[str, ...]
    add: Mapping[str, int] = {}
    where: tuple[Compare, ...] = ()
    returning: tuple[str, ...] = ()


class Update(NamedTuple):
    """A change of the one row with this unique key: columns set, numbers added. Count 0 where there is no such row."""

    table: str
    key: Mapping[str, Value]
    set: Mapping[str, Value] = {}
    add: Mapping[str, int] = {}
    returning: tuple[str, ...] = ()


class Delete(NamedTuple):
    """Every row that meets the conditions, and what hangs on it (cascade, set null, as declared). Counts only the rows
    of this table. An empty `where` is refused: no word deletes a whole table."""

    table: str
    where: tuple[Compare, ...]


class Guard(NamedTuple):
    """A row with this unique key exists, holds these values and meets these conditions, else the whole batch is refused
    (ConflictError). A condition is on the row's own columns, no paths, and compares with a value or with a Ref, as in
    Select; what it saw, in the row and in those referred to, stays as it is until the batch is committed."""

    table: str
    key: Mapping[str, Value]
    expect: Mapping[str, Value] = {}
    where: tuple[Compare, ...] = ()


Query: TypeAlias = Select | Count | Sum | Search
Op: TypeAlias = Insert | Upsert | Update | Delete | Guard


class Receipt(NamedTuple):
    """What only the store could know of a batch, one entry per operation, in order.

    counts  rows of the operation's table that it wrote (Guard: 0).
    rows    the values of `returning`, in that order, after the operation; None where nothing was asked or written.
    """

    counts: tuple[int, ...]
    rows: tuple[Row | None, ...]
