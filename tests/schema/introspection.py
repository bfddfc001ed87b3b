"""What a database really holds, in one form for every engine, so that it can be compared with the declarations."""

from __future__ import annotations

from typing import Final, NamedTuple

from dal.schema import Connection
from dal.tables import Kind, Table

#: Tables of the library's own, beside the declared ones.
OWN_TABLES: Final = {
    "sqlite": frozenset({"dal_commits", "dal_guard", "message_search"}),
    "postgresql": frozenset({"dal_guard", "message_search"}),
}
LEDGER_TABLES: Final = frozenset({"d1_migrations", "dal_migrations", "dal_migration_details", "dal_migration_lock"})

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


class FoundTable(NamedTuple):
    """columns: name to (type, nullable). indexes: name to (columns, `-` before a descending one; unique).
    parents: column to (table, action of a delete). collations: of text columns, PostgreSQL only."""

    columns: dict[str, tuple[str, bool]]
    primary_key: tuple[str, ...]
    indexes: dict[str, tuple[tuple[str, ...], bool]]
    parents: dict[str, tuple[str, str]]
    collations: dict[str, str]


def declared(table: Table, engine: str) -> FoundTable:
    """The declaration in the same form."""
    columns: dict[str, tuple[str, bool]] = {}
    collations: dict[str, str] = {}
    keys = {name for key in table.unique_keys for name in key}
    for column in table.columns:
        if engine == "sqlite":
            kind = _SQLITE_TYPES.get(column.kind, "TEXT")
        else:
            kind = _POSTGRESQL_TYPES[column.kind]
            if column.max_chars is not None:
                kind = f"character varying({column.max_chars})"
            if column.kind is Kind.TEXT:
                collations[column.name] = "C" if column.name in keys else "default"
        columns[column.name] = (kind, column.nullable)
    return FoundTable(
        columns,
        (table.key,),
        {index.name: (index.columns, index.unique) for index in table.indexes},
        {parent.column: (parent.table, parent.on_delete) for parent in table.parents},
        collations,
    )


async def tables(connection: Connection) -> dict[str, FoundTable]:
    """Every table but the ledger's, by name."""
    return await (_sqlite(connection) if connection.engine == "sqlite" else _postgresql(connection))


async def _sqlite(connection: Connection) -> dict[str, FoundTable]:
    found: dict[str, FoundTable] = {}
    rows = await connection.fetch("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
    for (name,) in rows:
        if name in LEDGER_TABLES or str(name).startswith("message_search_"):
            continue
        info = await connection.fetch('SELECT name, type, "notnull", pk FROM pragma_table_info(?)', (name,))
        indexes: dict[str, tuple[tuple[str, ...], bool]] = {}
        unique: list[tuple[str, ...]] = []
        for index, is_unique, origin in await connection.fetch(
            'SELECT name, "unique", origin FROM pragma_index_list(?)', (name,)
        ):
            parts = await connection.fetch(
                'SELECT name, "desc" FROM pragma_index_xinfo(?) WHERE key ORDER BY seqno', (index,)
            )
            columns = tuple(f"-{column}" if descends else str(column) for column, descends in parts)
            if origin == "c":
                indexes[str(index)] = (columns, bool(is_unique))
            else:
                unique.append(columns)
        parents = {
            str(column): (str(parent), str(action).lower())
            for column, parent, action in await connection.fetch(
                'SELECT "from", "table", on_delete FROM pragma_foreign_key_list(?)', (name,)
            )
        }
        found[str(name)] = FoundTable(
            {str(column): (str(kind), not notnull) for column, kind, notnull, _ in info},
            unique[0] if unique else (),
            indexes,
            parents,
            {},
        )
    return found


async def _postgresql(connection: Connection) -> dict[str, FoundTable]:
    found: dict[str, FoundTable] = {}
    rows = await connection.fetch("SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()")
    for (name,) in rows:
        if name in LEDGER_TABLES:
            continue
        columns = await connection.fetch(
            "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), (NOT a.attnotnull)::text, c.collname::text "
            "FROM pg_attribute a LEFT JOIN pg_collation c ON c.oid = a.attcollation "
            "WHERE a.attrelid = %s::text::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            (name,),
        )
        parts = await connection.fetch(
            "SELECT c.relname::text, i.indisprimary::text, i.indisunique::text, a.attname::text, "
            "((i.indoption[k.place - 1] & 1) = 1)::text "
            "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
            "CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place) "
            "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number "
            "WHERE i.indrelid = %s::text::regclass AND i.indisvalid ORDER BY c.relname, k.place",
            (name,),
        )
        primary: tuple[str, ...] = ()
        indexes: dict[str, tuple[tuple[str, ...], bool]] = {}
        for index, is_primary, is_unique, column, descends in parts:
            part = f"-{column}" if descends == "true" else str(column)
            if is_primary == "true":
                primary = (*primary, part)
            else:
                indexes[str(index)] = ((*indexes.get(str(index), ((), False))[0], part), is_unique == "true")
        parents = await connection.fetch(
            "SELECT a.attname::text, p.relname::text, c.confdeltype::text FROM pg_constraint c "
            "JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1] "
            "JOIN pg_class p ON p.oid = c.confrelid WHERE c.contype = 'f' AND c.conrelid = %s::text::regclass",
            (name,),
        )
        found[str(name)] = FoundTable(
            {str(column): (str(kind), nullable == "true") for column, kind, nullable, _ in columns},
            primary,
            indexes,
            {str(c): (str(p), {"c": "cascade", "n": "set null"}.get(str(a), str(a))) for c, p, a in parents},
            {str(column): str(collation) for column, _, _, collation in columns if collation is not None},
        )
    return found
