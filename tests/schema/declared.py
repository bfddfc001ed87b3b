"""The declarations of `dal.tables` as a snapshot, so that they can be compared with what a database really holds."""

from __future__ import annotations

from typing import Final

from dal.schema.connection import EngineName
from dal.schema.inspection.objects import ColumnInfo, ForeignKeyInfo, IndexInfo, Snapshot, TableInfo, UniqueInfo
from dal.tables import TABLES, Column, Kind, Table

#: What the files make beside the declared tables, as a comparison says it.
OWN_OBJECTS: Final[dict[EngineName, list[str]]] = {
    "sqlite": [
        "table dal_commits: unexpected",
        "table dal_guard: unexpected",
        "table message_search: unexpected",
        "trigger message_search_delete on messages: unexpected",
    ],
    "postgresql": [
        "table dal_guard: unexpected",
        "table message_search: unexpected",
        "index idx_message_search_terms on message_search: unexpected",
    ],
}

_SQLITE_TYPES: Final = {Kind.INT: "INTEGER", Kind.BIGINT: "INTEGER", Kind.BOOL: "INTEGER"}
_POSTGRESQL_TYPES: Final = {
    Kind.ID: "uuid",
    Kind.TEXT: "text",
    Kind.INT: "integer",
    Kind.BIGINT: "bigint",
    Kind.BOOL: "boolean",
    Kind.TIME: "timestamp with time zone",
    Kind.JSON: "jsonb",
    Kind.IP: "inet",
}


def declared(engine: EngineName, found: Snapshot) -> Snapshot:
    """Every declared table. Defaults are not declared: they are taken from what was found."""
    return Snapshot(
        engine=engine,
        tables={name: _table(table, engine, found) for name, table in TABLES.items()},
        indexes={
            index.name: IndexInfo(table=name, parts=tuple(map(_part, index.columns)), unique=index.unique)
            for name, table in TABLES.items()
            for index in table.indexes
        },
    )


def _table(table: Table, engine: EngineName, found: Snapshot) -> TableInfo:
    keys = {name for key in table.unique_keys for name in key}
    there = found.tables[table.name].columns
    columns = {
        column.name: _column(
            column,
            engine,
            is_key=column.name in keys,
            default=there[column.name].default if column.name in there else None,
        )
        for column in table.columns
    }
    primary: tuple[str, ...] = (table.key,)
    uniques: tuple[UniqueInfo, ...] = ()
    if engine == "sqlite" and table.name == "messages":
        # The number that the full-text index points to; no column of the waist.
        columns = {"doc_id": ColumnInfo(type="INTEGER")} | columns
        primary, uniques = ("doc_id",), (UniqueInfo(columns=(table.key,)),)
    return TableInfo(
        columns=columns,
        primary_key=primary,
        uniques=uniques,
        foreign_keys=tuple(
            sorted(
                ForeignKeyInfo(
                    columns=(parent.column,),
                    table=parent.table,
                    to_columns=("id",),
                    on_delete=parent.on_delete.upper(),
                )
                for parent in table.parents
            )
        ),
    )


def _column(column: Column, engine: EngineName, *, is_key: bool, default: str | None) -> ColumnInfo:
    if engine == "sqlite":
        return ColumnInfo(type=_SQLITE_TYPES.get(column.kind, "TEXT"), nullable=column.nullable, default=default)
    kind = _POSTGRESQL_TYPES[column.kind]
    return ColumnInfo(
        type=kind if column.max_chars is None else f"character varying({column.max_chars})",
        nullable=column.nullable,
        default=default,
        collation="C" if column.kind is Kind.TEXT and is_key else "",
    )


def _part(column: str) -> str:
    return f"{column[1:]} DESC" if column.startswith("-") else column
