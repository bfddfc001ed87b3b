"""Content digests computed inside PostgreSQL: one aggregate a table, whose memory does not grow with the table.

Values are hashed in their binary wire form, which no setting of the session changes (time zone, date style, precision)
and which keeps 1.0 and 1.00 apart. Types whose wire form holds object ids, which a restore changes, or that have none
(composite types, arrays of a schema's own types, regclass and its kind) are hashed as text, under fixed settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final, NamedTuple, cast

from dal.schema.backups.digest import LEFT_OUT, TableDigest, finish
from dal.schema.connection import Reader

#: Below it are the object ids of PostgreSQL's own types, the same in every database.
_FIRST_OWN_OID: Final = 16384

_COLUMNS: Final = f"""
SELECT n.nspname::text, (n.nspname = current_schema())::int, c.relname::text,
       quote_ident(n.nspname) || '.' || quote_ident(c.relname), a.attname::text, quote_ident(a.attname),
       format_type(a.atttypid, a.atttypmod), t.typsend::regproc::text,
       (CASE WHEN t.typsend::oid = 0 OR t.oid::regtype::text LIKE 'reg%' THEN 0
             WHEN t.typsend = 'pg_catalog.record_send(record)'::regprocedure::oid THEN 0
             WHEN t.typsend = 'pg_catalog.array_send(anyarray)'::regprocedure::oid
             THEN (t.typelem BETWEEN 1 AND {_FIRST_OWN_OID - 1} AND t.typelem::regtype::text NOT LIKE 'reg%')::int
             ELSE 1 END)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                  WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY n.nspname, c.relname, a.attname COLLATE "C"
"""  # noqa: S608
#: As a condition that does not depend on the row, it is evaluated once, before the first row is read.
_FIXED_SETTINGS: Final = """WHERE (SELECT count(set_config(name, value, true)) FROM (VALUES
('TimeZone', 'UTC'), ('DateStyle', 'ISO, YMD'), ('IntervalStyle', 'postgres'), ('extra_float_digits', '1'),
('bytea_output', 'hex')) AS settings(name, value)) > 0"""


class _Column(NamedTuple):
    schema: str
    is_current: int
    table: str
    quoted_table: str
    name: str | None  # None: the table has no column at all
    quoted: str
    type: str
    send: str
    has_wire_form: int


async def table_digests(reader: Reader) -> dict[str, TableDigest]:
    """See `content_digests`."""
    columns = [_Column(*cast("tuple[str, int, str, str, str, str, str, str, int]", row)) for row in await _rows(reader)]
    found = {}
    for _, group in groupby(columns, key=lambda column: (column.schema, column.table)):
        table = list(group)
        if table[0].table in LEFT_OUT:
            continue
        name = table[0].table if table[0].is_current else f'"{table[0].schema}"."{table[0].table}"'
        found[name] = await _digest(reader, table)
    return dict(sorted(found.items()))


async def _rows(reader: Reader) -> Sequence[tuple[object, ...]]:
    return await reader.fetch(_COLUMNS)


async def _digest(reader: Reader, table: list[_Column]) -> TableDigest:
    columns = [column for column in table if column.name is not None]
    # A row of byte strings: its own wire form frames each of them with its length, and tells NULL from empty.
    values = ", ".join(
        f"{column.send}({column.quoted})" if column.has_wire_form else f"textsend({column.quoted}::text)"
        for column in columns
    )
    settings = "" if all(column.has_wire_form for column in columns) else _FIXED_SETTINGS
    # OFFSET 0 keeps the planner from computing the hash once for each use of it.
    sql = f"""
SELECT count(*)::text, coalesce(sum(('x' || substr(h, 1, 16))::bit(64)::bigint), 0)::text,
       coalesce(sum(('x' || substr(h, 17, 16))::bit(64)::bigint), 0)::text
FROM (SELECT encode(sha256(record_send(ROW({values}))), 'hex') AS h FROM ONLY {table[0].quoted_table} {settings}
      OFFSET 0) AS hashes"""  # noqa: S608
    ((rows, *sums),) = await reader.fetch(sql)
    names = [f"{column.name} {column.type}" for column in columns]
    return finish(names, int(str(rows)), [int(str(value)) for value in sums])
