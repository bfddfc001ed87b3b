"""Queries and operations to SQL, once for every engine and cached by shape.

A shape is the structure of a query or operation without its values: the SQL text, the binders of its parameters and the
decoders of its columns are made once for each, so that a call costs a dictionary look-up and its own values. Nothing a
caller hands in ever becomes part of the SQL text: names come from the declared tables, values are parameters.
"""

# ruff: noqa: S608  (names come from dal.tables only)
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, cast

from dal.backends.sql.binding import (
    Binder,
    ColumnDecoder,
    RefShape,
    RowDecoder,
    WhereShape,
    bind_each_value,
    bind_row,
    bind_where,
    binder_of,
    guard_shape,
    keyset_params,
    row_decoder,
    value_shape,
    where_shape,
)
from dal.backends.sql.conditions import Conditions
from dal.backends.sql.dialect import Decoder, Dialect, Encoder, Result, Statement
from dal.ops import Compare, Count, Delete, Guard, Insert, Op, Ref, Row, Search, Select, Sum, Update, Upsert, Value
from dal.tables import TABLES, Kind, Table

_SHAPES: Final = 4096


class Read(NamedTuple):
    """A compiled query: its text, a binder for each condition (None: the value as it is), and its rows' decoder."""

    sql: str
    where: tuple[Binder | None, ...]
    after: tuple[Encoder | None, ...]
    decode: RowDecoder


class Write(NamedTuple):
    """A compiled operation: its text, its parameters from the operation, and the decoder of what it returns."""

    sql: str
    bind: Callable[[Op], list[object]]
    returns: bool
    decode: RowDecoder
    #: Columns that may be null and take a Ref: a Ref without a row must be told from null by a statement of its own.
    nullable_refs: tuple[str, ...] = ()

    def statement(self, op: Op) -> Statement:
        return Statement(self.sql, self.bind(op), self.returns)

    def settle(self, result: Result, _params: Sequence[object]) -> Sequence[tuple[int, Row | None]]:
        """(count, returned row) of the one operation."""
        rows = self.decode(result.rows) if self.returns else ()
        return ((result.written, rows[0] if rows else None),)


class Compiler:
    """SQL for one dialect.

    Unknown tables or columns raise KeyError, unsound queries ValueError, before anything runs.
    """

    def __init__(self, dialect: Dialect, tables: Mapping[str, Table] = TABLES) -> None:
        self.dialect = dialect
        self.tables = tables
        self._pieces = Conditions(dialect, tables)
        self._select = lru_cache(_SHAPES)(self._compile_select)
        self._total = lru_cache(_SHAPES)(self._compile_total)
        self._insert = lru_cache(_SHAPES)(self._compile_insert)
        self._upsert = lru_cache(_SHAPES)(self._compile_upsert)
        self._update = lru_cache(_SHAPES)(self._compile_update)
        self._delete = lru_cache(_SHAPES)(self._compile_delete)
        self._guard = lru_cache(_SHAPES)(self._compile_guard)

    # Reading ---------------------------------------------------------------------------------------------------------

    def select(self, query: Select) -> tuple[Statement, Read]:
        read = self._select(
            query.table,
            where_shape(query.where),
            query.order,
            query.after is not None,
            query.limit is not None,
            query.columns,
            False,
        )
        return self._bound(read, query.where, query.after, query.limit), read

    def total(self, query: Count | Sum) -> tuple[Statement, Read]:
        column = query.column if type(query) is Sum else None
        read = self._total(query.table, column, where_shape(query.where))
        return self._bound(read, query.where, None, None), read

    def candidates(
        self, query: Search, after: tuple[Value, ...] | None, limit: int, columns: tuple[str, ...]
    ) -> tuple[Statement, Read]:
        """Rows that may match, in search order: the index's terms decide, `dal.search.matches` has the last word."""
        order = self.tables[query.table].search_order
        read = self._select(query.table, where_shape(query.where), order, after is not None, True, columns, True)
        statement = self._bound(read, query.where, after, limit)
        terms = self.dialect.search.encode_query(query.query)
        return Statement(statement.sql, [terms, *statement.params], returns=True), read

    def _bound(
        self, read: Read, where: Sequence[Compare], after: tuple[Value, ...] | None, limit: int | None
    ) -> Statement:
        params: list[object] = []
        for compare, bind in zip(where, read.where, strict=True):
            if bind is None:
                params.append(compare.value)
            else:
                bind(params, compare.value)
        if after is not None:
            params.extend(keyset_params(after, read.after))
        if limit is not None:
            params.append(limit)
        return Statement(read.sql, params, returns=True)

    def _compile_select(
        self,
        table_name: str,
        where: WhereShape,
        order: tuple[str, ...],
        after: bool,
        limit: bool,
        columns: tuple[str, ...],
        candidates: bool,
    ) -> Read:
        table = self.tables[table_name]
        names = columns or table.names
        conditions, binders = self._pieces.where(table, where)
        if candidates:
            conditions.insert(0, self.dialect.search.candidate)
        keyset: tuple[Encoder | None, ...] = ()
        if after:
            condition, keyset = self._pieces.keyset(table, order)
            conditions.append(condition)
        sql = f"SELECT {', '.join(self._pieces.selected(table, name) for name in names)} FROM {table.name}"
        if conditions:
            sql += " WHERE " + " AND ".join(conditions)
        if order:
            sql += " ORDER BY " + ", ".join(_ordered(table, name) for name in order)
        if limit:
            sql += f" LIMIT {self.dialect.placeholder}"
        return Read(sql, binders, keyset, self._pieces.decoder(table, names))

    def _compile_total(self, table_name: str, column: str | None, where: WhereShape) -> Read:
        table = self.tables[table_name]
        conditions, binders = self._pieces.where(table, where)
        total = "count(*)"
        decoders: tuple[ColumnDecoder, ...] = ()
        if column is not None:
            total = f"CAST(COALESCE(sum({table.by_name[column].name}), 0) AS BIGINT)"
            form = self.dialect.selected.get(Kind.BIGINT)
            if form is not None:
                total, decoders = form.format(total), ((0, self.dialect.decoders[Kind.BIGINT], False),)
        sql = f"SELECT {total} FROM {table.name}"
        if conditions:
            sql += " WHERE " + " AND ".join(conditions)
        return Read(sql, binders, (), row_decoder(1, decoders))

    # Writing ---------------------------------------------------------------------------------------------------------

    def write(self, op: Op) -> Write:
        """The compiled form of an operation, without the values of it."""
        if type(op) is Insert:
            return self.insert(op)
        if type(op) is Update:
            return self._update(op.table, tuple(op.key), tuple(op.set), tuple(op.add), op.returning)
        if type(op) is Upsert:
            return self._upsert(
                op.table, tuple(op.row), op.on, op.update, tuple(op.add), where_shape(op.where), op.returning
            )
        if type(op) is Delete:
            return self._delete(op.table, where_shape(op.where))
        if type(op) is Guard:
            expect = tuple([(name, value is None) for name, value in op.expect.items()])
            return self._guard(op.table, tuple(op.key), expect, guard_shape(op))
        raise TypeError(f"not an operation: {type(op).__name__}")

    def insert(self, op: Insert) -> Write:
        refs = tuple([(name, value_shape(value)) for name, value in op.row.items() if type(value) is Ref])
        return self._insert(op.table, tuple(op.row), refs, op.returning)

    def update_returning(self, op: Update, columns: tuple[str, ...]) -> Write:
        """The update with other columns returned than it asks for: how a planner learns what Refs will want."""
        return self._update(op.table, tuple(op.key), tuple(op.set), tuple(op.add), columns)

    def insert_returning(self, op: Insert, columns: tuple[str, ...]) -> Write:
        """The same for an insert."""
        return self.insert(op._replace(returning=columns))

    def insert_linked(self, op: Insert) -> Write:
        """The insert with one plain parameter for each Ref (unbound: None) and nothing returned."""
        return self._insert(op.table, tuple(op.row), (), ())

    def _compile_insert(
        self,
        table_name: str,
        names: tuple[str, ...],
        refs: tuple[tuple[str, RefShape], ...],
        returning: tuple[str, ...],
    ) -> Write:
        table = self.tables[table_name]
        shapes = dict(refs)
        values: list[str] = []
        binders: list[Binder | None] = []
        for name in names:
            column = table.by_name[name]
            if name in shapes:
                sql, bind = self._pieces.ref(shapes[name])
                values.append(sql)
                binders.append(bind)
            else:
                values.append(self._pieces.placeholder(column))
                binders.append(binder_of(self._pieces.encoder(column)))
        sql = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join(values)})"
        if shapes:
            write = self._returning(table, sql, bind_each_value(tuple(binders)), returning)
            return write._replace(nullable_refs=tuple(name for name in shapes if table.by_name[name].nullable))
        encoders = tuple(
            (i, encoder) for i, n in enumerate(names) if (encoder := self._pieces.encoder(table.by_name[n])) is not None
        )
        return self._returning(table, sql, bind_row(encoders), returning)

    def _compile_upsert(
        self,
        table_name: str,
        names: tuple[str, ...],
        on: tuple[str, ...],
        update: tuple[str, ...],
        add: tuple[str, ...],
        where: WhereShape,
        returning: tuple[str, ...],
    ) -> Write:
        table = self.tables[table_name]
        if on not in table.unique_keys:
            raise ValueError(f"Upsert on {table.name} names {on}, which is no unique key")
        marks = [self._pieces.placeholder(table.by_name[n]) for n in names]
        sets = [f"{table.by_name[n].name} = excluded.{n}" for n in update]
        mark = self.dialect.placeholder
        sets += [f"{table.by_name[n].name} = {table.name}.{n} + {mark}" for n in add]
        action = f"UPDATE SET {', '.join(sets)}" if sets else "NOTHING"
        sql = (
            f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join(marks)}) "
            f"ON CONFLICT ({', '.join(on)}) DO {action}"
        )
        conditions, binders = self._pieces.where(table, where, prefix=f"{table.name}.") if sets else ([], ())
        if conditions:
            sql += " WHERE " + " AND ".join(conditions)
        encoders = tuple(
            (i, encoder) for i, n in enumerate(names) if (encoder := self._pieces.encoder(table.by_name[n])) is not None
        )
        bind_values = bind_row(encoders)

        def bind(op: Op) -> list[object]:
            upsert = cast(Upsert, op)
            params = bind_values(op)
            params.extend(upsert.add.values())
            if binders:
                bind_where(params, upsert.where, binders)
            return params

        return self._returning(table, sql, bind, returning)

    def _compile_update(
        self,
        table_name: str,
        key: tuple[str, ...],
        set_: tuple[str, ...],
        add: tuple[str, ...],
        returning: tuple[str, ...],
    ) -> Write:
        table = self.tables[table_name]
        self._pieces.check_key(table, key)
        mark = self.dialect.placeholder
        sets = [f"{n} = {self._pieces.placeholder(table.by_name[n])}" for n in set_]
        sets += [f"{table.by_name[n].name} = {n} + {mark}" for n in add]
        # An update that changes nothing still says whether the row is there.
        changes = ", ".join(sets) or f"{key[0]} = {key[0]}"
        sql = f"UPDATE {table.name} SET {changes} WHERE {self._pieces.key(table, key)}"
        encoders = tuple(
            (place, encoder)
            for place, n in [*enumerate(set_), *enumerate(key, start=len(set_) + len(add))]
            if (encoder := self._pieces.encoder(table.by_name[n])) is not None
        )

        def bind(op: Op) -> list[object]:
            update = cast(Update, op)
            params: list[object] = [*update.set.values(), *update.add.values(), *update.key.values()]
            for place, encode in encoders:
                params[place] = encode(params[place])
            return params

        return self._returning(table, sql, bind, returning)

    def _compile_delete(self, table_name: str, where: WhereShape) -> Write:
        table = self.tables[table_name]
        if not where:
            raise ValueError(f"Delete on {table.name} without a condition")
        conditions, binders = self._pieces.where(table, where)
        sql = f"DELETE FROM {table.name} WHERE {' AND '.join(conditions)}"

        def bind(op: Op) -> list[object]:
            params: list[object] = []
            bind_where(params, cast(Delete, op).where, binders)
            return params

        return Write(sql, bind, False, row_decoder(0, ()))

    def _compile_guard(
        self, table_name: str, key: tuple[str, ...], expect: tuple[tuple[str, bool], ...], where: WhereShape
    ) -> Write:
        table = self.tables[table_name]
        self._pieces.check_key(table, key)
        if any("." in name for name, _, _ in where):
            raise ValueError(f"Guard on {table.name}: conditions are on its own columns")
        shape: WhereShape = (
            *((name, "=", True) for name in key),
            *((name, "=", None if null else True) for name, null in expect),
            *where,
        )
        # What a condition compares with must stay as it was seen, too: a row it refers to is locked as the row itself.
        conditions, binders = self._pieces.where(table, shape, lock=self.dialect.row_lock)
        lock = f" {self.dialect.row_lock}" if self.dialect.row_lock else ""
        sql = (
            "INSERT INTO dal_guard (ok) SELECT 0 WHERE NOT EXISTS "
            f"(SELECT 1 FROM {table.name} WHERE {' AND '.join(conditions)}{lock})"
        )

        def bind(op: Op) -> list[object]:
            guard = cast(Guard, op)
            params: list[object] = []
            values = (*guard.key.values(), *guard.expect.values(), *(compare.value for compare in guard.where))
            for value, binder in zip(values, binders, strict=True):
                if binder is None:
                    params.append(value)
                else:
                    binder(params, value)
            return params

        return Write(sql, bind, False, row_decoder(0, ()))

    # Pieces ----------------------------------------------------------------------------------------------------------

    def placeholder(self, table: Table, name: str) -> str:
        """How a value of that column stands in SQL."""
        return self._pieces.placeholder(table.by_name[name])

    def column(self, table: Table, name: str) -> str:
        """A column, or a column path, as an expression."""
        return self._pieces.column(table, name)

    def decoders(self, table: Table, names: tuple[str, ...]) -> list[ColumnDecoder]:
        """What turns the driver's values of these columns into the waist's."""
        return self._pieces.decoders(table, names)

    def decoders_of(self, query: Select) -> dict[int, Decoder]:
        """The same of a query's columns, by their places."""
        table = self.tables[query.table]
        return {place: decode for place, decode, _ in self.decoders(table, query.columns or table.names)}

    def encode(self, table: Table, values: Mapping[str, object]) -> list[object]:
        """Values as parameters of their columns."""
        encoders = [self._pieces.encoder(table.by_name[name]) for name in values]
        return [v if encode is None else encode(v) for v, encode in zip(values.values(), encoders, strict=True)]

    def _returning(
        self, table: Table, sql: str, bind: Callable[[Op], list[object]], returning: tuple[str, ...]
    ) -> Write:
        if not returning:
            return Write(sql, bind, False, row_decoder(0, ()))
        names = ", ".join(self._pieces.selected(table, name) for name in returning)
        return Write(f"{sql} RETURNING {names}", bind, True, self._pieces.decoder(table, returning))


def _ordered(table: Table, name: str) -> str:
    column = table.by_name[name.lstrip("-")].name
    return f"{column} DESC" if name.startswith("-") else column
