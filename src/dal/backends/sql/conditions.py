"""The pieces of SQL that queries and operations share: columns, keys, conditions, places in an order.

Each method gives text and the binders of its parameters, for names out of the declared tables; it is only called when a
shape is met for the first time.
"""

# ruff: noqa: S608  (names come from dal.tables only)
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast

from dal.backends.sql.binding import (
    Binder,
    ColumnDecoder,
    RefShape,
    RowDecoder,
    ValueShape,
    WhereShape,
    bind_nothing,
    binder_of,
    optional,
    row_decoder,
)
from dal.backends.sql.dialect import Dialect, Encoder
from dal.ops import Ref
from dal.tables import Column, Kind, Table

_PLAIN: Final = ("=", "<", "<=", ">", ">=")


class Conditions:
    """SQL pieces of one dialect."""

    def __init__(self, dialect: Dialect, tables: Mapping[str, Table]) -> None:
        self._dialect = dialect
        self._tables = tables

    def placeholder(self, column: Column) -> str:
        return self._dialect.placeholders.get(column.kind, self._dialect.placeholder)

    def encoder(self, column: Column) -> Encoder | None:
        encoder = self._dialect.encoders.get(column.kind)
        return optional(encoder) if encoder is not None and column.nullable else encoder

    def decoder(self, table: Table, names: tuple[str, ...]) -> RowDecoder:
        return row_decoder(len(names), self.decoders(table, names))

    def decoders(self, table: Table, names: tuple[str, ...]) -> list[ColumnDecoder]:
        found: list[ColumnDecoder] = []
        for place, name in enumerate(names):
            first, _, rest = name.partition(".")
            column = table.by_name[first]
            nullable = column.nullable
            if rest:
                column = self._tables[table.parent_of[first].table].by_name[rest]
                nullable = nullable or column.nullable
            decoder = self._dialect.decoders.get(column.kind)
            if decoder is not None:
                found.append((place, decoder, nullable))
        return found

    def column(self, table: Table, name: str) -> str:
        """A column, or a column path as a scalar sub-select: it leaves the plan of the query itself alone."""
        first, _, rest = name.partition(".")
        if not rest:
            return table.by_name[name].name
        parent = self._tables[table.parent_of[first].table]
        return (
            f"(SELECT parent.{parent.by_name[rest].name} FROM {parent.name} AS parent "
            f"WHERE parent.{parent.key} = {table.name}.{first})"
        )

    def selected(self, table: Table, name: str) -> str:
        """A column or column path in a list of results."""
        first, _, rest = name.partition(".")
        owner = self._tables[table.parent_of[first].table] if rest else table
        form = self._dialect.selected.get(owner.by_name[rest or first].kind)
        return self.column(table, name) if form is None else form.format(self.column(table, name))

    def key(self, table: Table, key: tuple[str, ...]) -> str:
        return " AND ".join(f"{n} = {self.placeholder(table.by_name[n])}" for n in key)

    def check_key(self, table: Table, key: tuple[str, ...]) -> None:
        if not any(set(key) == set(unique) for unique in table.unique_keys):
            raise ValueError(f"{key} is no unique key of {table.name}")

    def ref(self, shape: RefShape, lock: str = "") -> tuple[str, Binder]:
        """The value a Ref stands for. `lock` is appended to the sub-select."""
        table_name, key, name, plus = shape
        table = self._tables[table_name]
        sql = table.by_name[name].name
        if key:
            self.check_key(table, key)
            end = f" {lock}" if lock else ""
            sql = f"(SELECT {sql} FROM {table.name} WHERE {self.key(table, key)}{end})"
        if plus:
            sql = f"{sql} + {self._dialect.placeholder}"
        encoders = tuple(self.encoder(table.by_name[n]) for n in key)

        def bind(params: list[object], value: object) -> None:
            ref = cast(Ref, value)
            if encoders:
                for key_value, encode in zip(ref.key.values(), encoders, strict=True):
                    params.append(key_value if encode is None else encode(key_value))
            if plus:
                params.append(ref.plus)

        return sql, bind

    def where(
        self, table: Table, where: WhereShape, prefix: str = "", lock: str = ""
    ) -> tuple[list[str], tuple[Binder | None, ...]]:
        """The conditions and their binders. `prefix` stands before columns, `lock` behind the sub-selects of Refs."""
        conditions: list[str] = []
        binders: list[Binder | None] = []
        for name, op, shape in where:
            condition, bind = self._compare(table, name, op, shape, prefix, lock)
            conditions.append(condition)
            binders.append(bind)
        return conditions, tuple(binders)

    def _compare(
        self, table: Table, name: str, op: str, shape: ValueShape, prefix: str, lock: str
    ) -> tuple[str, Binder | None]:
        first, _, rest = name.partition(".")
        if not rest:
            return self._compare_column(table.by_name[name], f"{prefix}{name}", op, shape, lock)
        parent = self._tables[table.parent_of[first].table]
        if op in (*_PLAIN, "in") and shape is not None:
            # A semi-join lets the engine start from the parent's own index.
            condition, bind = self._compare_column(parent.by_name[rest], rest, op, shape, lock)
            return f"{prefix}{first} IN (SELECT {parent.key} FROM {parent.name} WHERE {condition})", bind
        return self._compare_column(parent.by_name[rest], self.column(table, name), op, shape, lock)

    def _compare_column(
        self, column: Column, sql: str, op: str, shape: ValueShape, lock: str
    ) -> tuple[str, Binder | None]:
        if column.kind is Kind.JSON:
            raise ValueError(f"{column.name} holds JSON documents, which no query compares")
        if shape is None:
            if op in ("=", "!="):
                return f"{sql} IS {'NOT ' if op == '!=' else ''}NULL", bind_nothing
            raise ValueError(f"{column.name} {op} None has no meaning")
        if isinstance(shape, tuple):
            if op not in (*_PLAIN, "!="):
                raise ValueError(f"{column.name} {op} Ref: only the value of a plain comparator may be a Ref")
            ref, bind = self.ref(shape, lock)
            return f"{sql} {op.replace('!=', '<>')} {ref}", bind
        mark, encoder = self.placeholder(column), self.encoder(column)
        if op == "in":
            return self._dialect.contains(sql, column.kind), self._list_binder(encoder)
        if op == "null or >":
            return f"({sql} IS NULL OR {sql} > {mark})", binder_of(encoder)
        if op == "!=":
            return f"{sql} {self._dialect.distinct} {mark}", binder_of(encoder)
        if op not in _PLAIN:
            raise ValueError(f"unknown comparator {op!r}")
        return f"{sql} {op} {mark}", binder_of(encoder)

    def _list_binder(self, encoder: Encoder | None) -> Binder:
        encode_list = self._dialect.encode_list

        def bind(params: list[object], values: object) -> None:
            items = list(cast("Sequence[object]", values))
            params.append(encode_list(items if encoder is None else [encoder(v) for v in items]))

        return bind

    def keyset(self, table: Table, order: tuple[str, ...]) -> tuple[str, tuple[Encoder | None, ...]]:
        """The condition "behind this place", and encoders of its values.

        A row value where all columns run one way: one range of the composite index. Mixed directions become
        `c1 <= ? AND (c1 < ? OR c1 = ? AND (…))`; the first part is the range, the rest decides ties.
        """
        if not order:
            raise ValueError(f"Select on {table.name} has `after` but no `order`")
        columns = [table.by_name[name.lstrip("-")] for name in order]
        signs = ["<" if name.startswith("-") else ">" for name in order]
        marks = [self.placeholder(c) for c in columns]
        encoders = [self.encoder(c) for c in columns]
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
