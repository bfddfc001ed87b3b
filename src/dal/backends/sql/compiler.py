"""Queries and operations to SQL, once for every engine and cached by shape.

A shape is the structure of a query or operation without its values: the SQL text, the binders of its parameters and the
decoders of its columns are made once for each, so that a call costs a dictionary look-up and its own values. Nothing a
caller hands in ever becomes part of the SQL text: names come from the declared tables, values are parameters.
"""

# ruff: noqa: S608  (names come from dal.tables only)
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias, cast

from dal.backends.sql.dialect import Decoder, Dialect, Encoder, Result, Statement
from dal.ops import Compare, Count, Delete, Guard, Insert, Op, Ref, Row, Search, Select, Sum, Update, Upsert, Value
from dal.tables import TABLES, Column, Kind, Table

_SHAPES: Final = 4096
_PLAIN: Final = ("=", "<", "<=", ">", ">=")

#: Appends the parameters of one value.
Binder: TypeAlias = Callable[[list[object], object], None]
#: What the SQL text depends on in a Ref: table, key columns, column, whether something is added.
RefShape: TypeAlias = tuple[str, tuple[str, ...], str, bool]
#: What it depends on in a value: None (IS NULL), a Ref's shape, or any other value.
ValueShape: TypeAlias = RefShape | bool | None
WhereShape: TypeAlias = tuple[tuple[str, str, ValueShape], ...]


class Read(NamedTuple):
    """A compiled query: its text, a binder for each condition (None: the value as it is), and column decoders."""

    sql: str
    where: tuple[Binder | None, ...]
    after: tuple[Encoder | None, ...]
    decode: tuple[tuple[int, Decoder, bool], ...]


class Write(NamedTuple):
    """A compiled operation: its text, its parameters from the operation, and decoders of what it returns."""

    sql: str
    bind: Callable[[Op], list[object]]
    returns: bool
    decode: tuple[tuple[int, Decoder, bool], ...]
    #: Columns that may be null and take a Ref: a Ref without a row must be told from null by a statement of its own.
    nullable_refs: tuple[str, ...] = ()

    def statement(self, op: Op) -> Statement:
        return Statement(self.sql, self.bind(op), self.returns)

    def settle(self, result: Result, _params: Sequence[object]) -> Sequence[tuple[int, Row | None]]:
        """(count, returned row) of the one operation."""
        rows = decode_rows(result.rows, self.decode) if self.returns else ()
        return ((result.written, rows[0] if rows else None),)


def decode_rows(rows: Sequence[tuple[object, ...]], decoders: Sequence[tuple[int, Decoder, bool]]) -> list[Row]:
    """Rows with each named column decoded, a column at a time: twenty rows cost about as much as their decoders."""
    if not rows or not decoders:
        return cast("list[Row]", rows if type(rows) is list else list(rows))
    columns: list[Iterable[object]] = list(zip(*rows, strict=True))
    for place, decode, nullable in decoders:
        if nullable:
            columns[place] = [None if v is None else decode(v) for v in columns[place]]
        else:
            columns[place] = map(decode, columns[place])
    return cast("list[Row]", list(zip(*columns, strict=True)))


def value_shape(value: object) -> ValueShape:
    if type(value) is Ref:
        return (value.table, tuple(value.key), value.column, value.plus != 0)
    return None if value is None else True


class Compiler:
    """SQL for one dialect.

    Unknown tables or columns raise KeyError, unsound queries ValueError, before anything runs.
    """

    def __init__(self, dialect: Dialect, tables: Mapping[str, Table] = TABLES) -> None:
        self.dialect = dialect
        self.tables = tables
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
            _where_shape(query.where),
            query.order,
            query.after is not None,
            query.limit is not None,
            query.columns,
            False,
        )
        return self._bound(read, query.where, query.after, query.limit), read

    def total(self, query: Count | Sum) -> tuple[Statement, Read]:
        column = query.column if type(query) is Sum else None
        read = self._total(query.table, column, _where_shape(query.where))
        return self._bound(read, query.where, None, None), read

    def candidates(
        self, query: Search, after: tuple[Value, ...] | None, limit: int, columns: tuple[str, ...]
    ) -> tuple[Statement, Read]:
        """Rows that may match, in search order: the index's terms decide, `dal.search.matches` has the last word."""
        order = self.tables[query.table].search_order
        read = self._select(query.table, _where_shape(query.where), order, after is not None, True, columns, True)
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
            params.extend(_keyset_params(after, read.after))
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
        conditions, binders = self._where(table, where)
        if candidates:
            conditions.insert(0, self.dialect.search.candidate)
        keyset: tuple[Encoder | None, ...] = ()
        if after:
            condition, keyset = self._keyset(table, order)
            conditions.append(condition)
        sql = f"SELECT {', '.join(self._column(table, name) for name in names)} FROM {table.name}"
        if conditions:
            sql += " WHERE " + " AND ".join(conditions)
        if order:
            sql += " ORDER BY " + ", ".join(_ordered(table, name) for name in order)
        if limit:
            sql += f" LIMIT {self.dialect.placeholder}"
        return Read(sql, binders, keyset, self._decoders(table, names))

    def _compile_total(self, table_name: str, column: str | None, where: WhereShape) -> Read:
        table = self.tables[table_name]
        conditions, binders = self._where(table, where)
        total = "count(*)"
        if column is not None:
            total = f"CAST(COALESCE(sum({table.by_name[column].name}), 0) AS BIGINT)"
        sql = f"SELECT {total} FROM {table.name}"
        if conditions:
            sql += " WHERE " + " AND ".join(conditions)
        return Read(sql, binders, (), ())

    def _keyset(self, table: Table, order: tuple[str, ...]) -> tuple[str, tuple[Encoder | None, ...]]:
        """The condition "behind this place", and encoders of its values.

        A row value where all columns run one way: one range of the composite index. Mixed directions become
        `c1 <= ? AND (c1 < ? OR c1 = ? AND (…))`; the first part is the range, the rest decides ties.
        """
        if not order:
            raise ValueError(f"Select on {table.name} has `after` but no `order`")
        columns = [table.by_name[name.lstrip("-")] for name in order]
        signs = ["<" if name.startswith("-") else ">" for name in order]
        marks = [self._placeholder(c) for c in columns]
        encoders = [self._encoder(c) for c in columns]
        if len(set(signs)) == 1:
            if len(columns) == 1:
                return f"{columns[0].name} {signs[0]} {marks[0]}", tuple(encoders)
            left, right = ", ".join(c.name for c in columns), ", ".join(marks)
            return f"({left}) {signs[0]} ({right})", tuple(encoders)
        condition = f"{columns[-1].name} {signs[-1]} {marks[-1]}"
        for column, sign, mark in list(zip(columns, signs, marks, strict=True))[-2::-1]:
            condition = f"({column.name} {sign} {mark} OR {column.name} = {mark} AND {condition})"
        first = f"{columns[0].name} {signs[0]}= {marks[0]}"
        doubled = [e for encoder in encoders[:-1] for e in (encoder, encoder)]
        return f"{first} AND {condition}", (encoders[0], *doubled, encoders[-1])

    # Writing ---------------------------------------------------------------------------------------------------------

    def write(self, op: Op) -> Write:
        """The compiled form of an operation, without the values of it."""
        if type(op) is Insert:
            return self.insert(op)
        if type(op) is Update:
            return self._update(op.table, tuple(op.key), tuple(op.set), tuple(op.add), op.returning)
        if type(op) is Upsert:
            return self._upsert(
                op.table, tuple(op.row), op.on, op.update, tuple(op.add), _where_shape(op.where), op.returning
            )
        if type(op) is Delete:
            return self._delete(op.table, _where_shape(op.where))
        if type(op) is Guard:
            expect = tuple([(name, value is None) for name, value in op.expect.items()])
            return self._guard(op.table, tuple(op.key), expect)
        raise TypeError(f"not an operation: {type(op).__name__}")

    def insert(self, op: Insert) -> Write:
        refs = tuple([(name, value_shape(value)) for name, value in op.row.items() if type(value) is Ref])
        return self._insert(op.table, tuple(op.row), refs, op.returning)

    def update_returning(self, op: Update, columns: tuple[str, ...]) -> Write:
        """The update with other columns returned than it asks for: how a planner learns what Refs will want."""
        return self._update(op.table, tuple(op.key), tuple(op.set), tuple(op.add), columns)

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
                sql, bind = self._ref(shapes[name])
                values.append(sql)
                binders.append(bind)
            else:
                values.append(self._placeholder(column))
                binders.append(_binder(self._encoder(column)))
        sql = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join(values)})"
        if shapes:
            write = self._returning(table, sql, _bind_each_value(tuple(binders)), returning)
            return write._replace(nullable_refs=tuple(name for name in shapes if table.by_name[name].nullable))
        encoders = tuple(
            (i, encoder) for i, n in enumerate(names) if (encoder := self._encoder(table.by_name[n])) is not None
        )
        return self._returning(table, sql, _bind_row(encoders), returning)

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
        marks = [self._placeholder(table.by_name[n]) for n in names]
        sets = [f"{table.by_name[n].name} = excluded.{n}" for n in update]
        mark = self.dialect.placeholder
        sets += [f"{table.by_name[n].name} = {table.name}.{n} + {mark}" for n in add]
        action = f"UPDATE SET {', '.join(sets)}" if sets else "NOTHING"
        sql = (
            f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join(marks)}) "
            f"ON CONFLICT ({', '.join(on)}) DO {action}"
        )
        conditions, binders = self._where(table, where, prefix=f"{table.name}.") if sets else ([], ())
        if conditions:
            sql += " WHERE " + " AND ".join(conditions)
        encoders = tuple(
            (i, encoder) for i, n in enumerate(names) if (encoder := self._encoder(table.by_name[n])) is not None
        )
        bind_row = _bind_row(encoders)

        def bind(op: Op) -> list[object]:
            upsert = cast(Upsert, op)
            params = bind_row(op)
            params.extend(upsert.add.values())
            if binders:
                _bind_where(params, upsert.where, binders)
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
        self._check_key(table, key)
        mark = self.dialect.placeholder
        sets = [f"{n} = {self._placeholder(table.by_name[n])}" for n in set_]
        sets += [f"{table.by_name[n].name} = {n} + {mark}" for n in add]
        # An update that changes nothing still says whether the row is there.
        changes = ", ".join(sets) or f"{key[0]} = {key[0]}"
        sql = f"UPDATE {table.name} SET {changes} WHERE {self._key(table, key)}"
        encoders = tuple(
            (place, encoder)
            for place, n in [*enumerate(set_), *enumerate(key, start=len(set_) + len(add))]
            if (encoder := self._encoder(table.by_name[n])) is not None
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
        conditions, binders = self._where(table, where)
        sql = f"DELETE FROM {table.name} WHERE {' AND '.join(conditions)}"

        def bind(op: Op) -> list[object]:
            params: list[object] = []
            _bind_where(params, cast(Delete, op).where, binders)
            return params

        return Write(sql, bind, False, ())

    def _compile_guard(self, table_name: str, key: tuple[str, ...], expect: tuple[tuple[str, bool], ...]) -> Write:
        table = self.tables[table_name]
        self._check_key(table, key)
        where: WhereShape = (
            *((name, "=", True) for name in key),
            *((name, "=", None if null else True) for name, null in expect),
        )
        conditions, binders = self._where(table, where)
        lock = f" {self.dialect.row_lock}" if self.dialect.row_lock else ""
        sql = (
            "INSERT INTO dal_guard (ok) SELECT 0 WHERE NOT EXISTS "
            f"(SELECT 1 FROM {table.name} WHERE {' AND '.join(conditions)}{lock})"
        )

        def bind(op: Op) -> list[object]:
            guard = cast(Guard, op)
            params: list[object] = []
            for value, binder in zip((*guard.key.values(), *guard.expect.values()), binders, strict=True):
                if binder is None:
                    params.append(value)
                else:
                    binder(params, value)
            return params

        return Write(sql, bind, False, ())

    def _returning(
        self, table: Table, sql: str, bind: Callable[[Op], list[object]], returning: tuple[str, ...]
    ) -> Write:
        if not returning:
            return Write(sql, bind, False, ())
        names = ", ".join(table.by_name[name].name for name in returning)
        return Write(f"{sql} RETURNING {names}", bind, True, self._decoders(table, returning))

    # Pieces ----------------------------------------------------------------------------------------------------------

    def placeholder(self, table: Table, name: str) -> str:
        """How a value of that column stands in SQL."""
        return self._placeholder(table.by_name[name])

    def encode(self, table: Table, values: Mapping[str, object]) -> list[object]:
        """Values as parameters of their columns."""
        encoders = [self._encoder(table.by_name[name]) for name in values]
        return [v if encode is None else encode(v) for v, encode in zip(values.values(), encoders, strict=True)]

    def _placeholder(self, column: Column) -> str:
        return self.dialect.placeholders.get(column.kind, self.dialect.placeholder)

    def _encoder(self, column: Column) -> Encoder | None:
        encoder = self.dialect.encoders.get(column.kind)
        return _optional(encoder) if encoder is not None and column.nullable else encoder

    def _decoders(self, table: Table, names: Iterable[str]) -> tuple[tuple[int, Decoder, bool], ...]:
        found: list[tuple[int, Decoder, bool]] = []
        for place, name in enumerate(names):
            first, _, rest = name.partition(".")
            column = table.by_name[first]
            nullable = column.nullable
            if rest:
                column = self.tables[table.parent_of[first].table].by_name[rest]
                nullable = nullable or column.nullable
            decoder = self.dialect.decoders.get(column.kind)
            if decoder is not None:
                found.append((place, decoder, nullable))
        return tuple(found)

    def _column(self, table: Table, name: str) -> str:
        """A column, or a column path as a scalar sub-select: it leaves the plan of the query itself alone."""
        first, _, rest = name.partition(".")
        if not rest:
            return table.by_name[name].name
        parent = self.tables[table.parent_of[first].table]
        return (
            f"(SELECT parent.{parent.by_name[rest].name} FROM {parent.name} AS parent "
            f"WHERE parent.{parent.key} = {table.name}.{first})"
        )

    def _key(self, table: Table, key: tuple[str, ...]) -> str:
        return " AND ".join(f"{n} = {self._placeholder(table.by_name[n])}" for n in key)

    def _check_key(self, table: Table, key: tuple[str, ...]) -> None:
        if not any(set(key) == set(unique) for unique in table.unique_keys):
            raise ValueError(f"{key} is no unique key of {table.name}")

    def _ref(self, shape: RefShape) -> tuple[str, Binder]:
        table_name, key, name, plus = shape
        table = self.tables[table_name]
        self._check_key(table, key)
        sql = f"(SELECT {table.by_name[name].name} FROM {table.name} WHERE {self._key(table, key)})"
        if plus:
            sql = f"{sql} + {self.dialect.placeholder}"
        encoders = tuple(self._encoder(table.by_name[n]) for n in key)

        def bind(params: list[object], value: object) -> None:
            ref = cast(Ref, value)
            for key_value, encode in zip(ref.key.values(), encoders, strict=True):
                params.append(key_value if encode is None else encode(key_value))
            if plus:
                params.append(ref.plus)

        return sql, bind

    def _where(self, table: Table, where: WhereShape, prefix: str = "") -> tuple[list[str], tuple[Binder | None, ...]]:
        conditions: list[str] = []
        binders: list[Binder | None] = []
        for name, op, shape in where:
            condition, bind = self._compare(table, name, op, shape, prefix)
            conditions.append(condition)
            binders.append(bind)
        return conditions, tuple(binders)

    def _compare(self, table: Table, name: str, op: str, shape: ValueShape, prefix: str) -> tuple[str, Binder | None]:
        first, _, rest = name.partition(".")
        if not rest:
            return self._compare_column(table.by_name[name], f"{prefix}{name}", op, shape)
        parent = self.tables[table.parent_of[first].table]
        if op in (*_PLAIN, "in") and shape is not None:
            # A semi-join lets the engine start from the parent's own index.
            condition, bind = self._compare_column(parent.by_name[rest], rest, op, shape)
            return f"{prefix}{first} IN (SELECT {parent.key} FROM {parent.name} WHERE {condition})", bind
        return self._compare_column(parent.by_name[rest], self._column(table, name), op, shape)

    def _compare_column(self, column: Column, sql: str, op: str, shape: ValueShape) -> tuple[str, Binder | None]:
        if column.kind is Kind.JSON:
            raise ValueError(f"{column.name} holds JSON documents, which no query compares")
        if shape is None:
            if op in ("=", "!="):
                return f"{sql} IS {'NOT ' if op == '!=' else ''}NULL", _bind_nothing
            raise ValueError(f"{column.name} {op} None has no meaning")
        if isinstance(shape, tuple):
            if op not in (*_PLAIN, "!="):
                raise ValueError(f"{column.name} {op} Ref: only the value of a plain comparator may be a Ref")
            ref, bind = self._ref(shape)
            return f"{sql} {op.replace('!=', '<>')} {ref}", bind
        mark, encoder = self._placeholder(column), self._encoder(column)
        if op == "in":
            return self.dialect.contains(sql, column.kind), self._list_binder(encoder)
        if op == "null or >":
            return f"({sql} IS NULL OR {sql} > {mark})", _binder(encoder)
        if op == "!=":
            return f"{sql} {self.dialect.distinct} {mark}", _binder(encoder)
        if op not in _PLAIN:
            raise ValueError(f"unknown comparator {op!r}")
        return f"{sql} {op} {mark}", _binder(encoder)

    def _list_binder(self, encoder: Encoder | None) -> Binder:
        encode_list = self.dialect.encode_list

        def bind(params: list[object], values: object) -> None:
            items = list(cast("Sequence[object]", values))
            params.append(encode_list(items if encoder is None else [encoder(v) for v in items]))

        return bind


def _where_shape(where: Sequence[Compare]) -> WhereShape:
    return tuple([(c.column, c.op, value_shape(c.value)) for c in where])


def _ordered(table: Table, name: str) -> str:
    column = table.by_name[name.lstrip("-")].name
    return f"{column} DESC" if name.startswith("-") else column


def _keyset_params(after: Sequence[object], encoders: Sequence[Encoder | None]) -> list[object]:
    values: Sequence[object] = after
    if len(encoders) != len(after):
        # The expanded form takes the first value as a range, and every value but the last twice.
        values = [after[0], *(v for value in after[:-1] for v in (value, value)), after[-1]]
    return [v if encode is None else encode(v) for v, encode in zip(values, encoders, strict=True)]


def _bind_where(params: list[object], where: Sequence[Compare], binders: Sequence[Binder | None]) -> None:
    for compare, bind in zip(where, binders, strict=True):
        if bind is None:
            params.append(compare.value)
        else:
            bind(params, compare.value)


def _bind_nothing(_params: list[object], _value: object) -> None:
    """IS NULL takes no parameter."""


def _binder(encoder: Encoder | None) -> Binder | None:
    if encoder is None:
        return None

    def bind(params: list[object], value: object) -> None:
        params.append(encoder(value))

    return bind


def _optional(encoder: Encoder) -> Encoder:
    def encode(value: object) -> object:
        return None if value is None else encoder(value)

    return encode


def _bind_row(encoders: tuple[tuple[int, Encoder], ...]) -> Callable[[Op], list[object]]:
    def bind(op: Op) -> list[object]:
        params: list[object] = list(cast("Insert | Upsert", op).row.values())
        for place, encode in encoders:
            params[place] = encode(params[place])
        return params

    return bind


def _bind_each_value(binders: tuple[Binder | None, ...]) -> Callable[[Op], list[object]]:
    def bind(op: Op) -> list[object]:
        params: list[object] = []
        for value, binder in zip(cast(Insert, op).row.values(), binders, strict=True):
            if binder is None:
                params.append(value)
            else:
                binder(params, value)
        return params

    return bind
