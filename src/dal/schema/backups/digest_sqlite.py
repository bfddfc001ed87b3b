"""Content digests of SQLite and D1, which have no hash function: rows are read in pages along the key and hashed here.

A page ends before its values would fill the memory. Text that is not valid UTF-8, which SQLite stores as it comes, is
hashed by its bytes: such a page is read again with its texts as blobs. D1 answers in JSON, which has neither blobs nor
whole numbers beyond 2**53 and writes 1.0 as 1: there the values come as texts that say their type. The digest of a
database is the same on D1 and in a SQLite file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dal.errors import DalError, UnavailableError
from dal.schema.backups.digest import LEFT_OUT, TableDigest, finish
from dal.schema.backups.identity import is_d1
from dal.schema.connection import Reader

_PAGE_ROWS: Final = 2000
_PAGE_BYTES: Final = 4 * 1024 * 1024
#: `sqlite_sequence` is content: it says which numbers AUTOINCREMENT gives next. Hosted D1 keeps `_cf_…` for itself.
_TABLES: Final = """SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'shadow')
AND (name = 'sqlite_sequence' OR substr(name, 1, 7) <> 'sqlite_') AND substr(name, 1, 4) <> '_cf_' ORDER BY name"""
_NOT_STORED: Final = (1, 2)  # a hidden column of a virtual table; a generated column that is not stored
_MODULUS: Final = 2**256


@dataclass(frozen=True, slots=True)
class _Table:
    """A table to read.

    key  expressions that order its rows without ties, each compared byte for byte; none: rows are counted off.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


async def table_digests(reader: Reader) -> dict[str, TableDigest]:
    """See `content_digests`."""
    found = {}
    # On D1 nobody can write the shadow tables, so a restore makes them anew: there a virtual table counts by its rows.
    tables = _TABLES.replace("'shadow'", "'virtual'") if is_d1(reader) else _TABLES
    for name, without_rowid in await reader.fetch(tables):
        if name not in LEFT_OUT:
            found[str(name)] = await _digest(reader, await _describe(reader, str(name), bool(without_rowid)))
    return found


async def _describe(reader: Reader, name: str, without_rowid: bool) -> _Table:
    rows = await reader.fetch("SELECT name, pk, hidden FROM pragma_table_xinfo(?)", (name,))
    columns = tuple(sorted(str(column) for column, _, hidden in rows if hidden not in _NOT_STORED))
    if without_rowid:
        ranked = sorted((int(str(rank)), str(column)) for column, rank, _ in rows if rank)
        # The key's own collation may hold 'a' and 'A' to be one; compared as bytes, no two keys are.
        return _Table(name, columns, tuple(f"{_quote(column)} COLLATE BINARY" for _, column in ranked))
    taken = {column.lower() for column in columns}
    free = [alias for alias in ("rowid", "_rowid_", "oid") if alias not in taken]
    return _Table(name, columns, tuple(free[:1]))


async def _digest(reader: Reader, table: _Table) -> TableDigest:
    rows = total = 0
    after: Sequence[object] | None = None
    while True:
        size = await _page_rows(reader, table, after, rows)
        page = await _page(reader, table, after, rows, size)
        for row in page:
            values = row[len(table.key) :]
            total += int.from_bytes(hashlib.sha256(ascii(values).encode("ascii")).digest(), "big")
        rows += len(page)
        if len(page) < size:
            return finish(table.columns, rows, [total % _MODULUS])
        after = page[-1][: len(table.key)]


async def _page_rows(reader: Reader, table: _Table, after: Sequence[object] | None, seen: int) -> int:
    """How many of the next rows fit into a page; at least one. Only this number leaves the database."""
    size = " + ".join(f"ifnull(length(CAST({_quote(column)} AS BLOB)), 0)" for column in table.columns) or "0"
    where, order, limit, params = _after(table, after, seen, _PAGE_ROWS)
    ((fitting, found),) = await reader.fetch(
        f"SELECT count(*) FILTER (WHERE total <= {_PAGE_BYTES}), count(*) FROM (SELECT sum(size) OVER "  # noqa: S608
        f"(ROWS UNBOUNDED PRECEDING) AS total FROM (SELECT {size} AS size FROM {_quote(table.name)} {where}{order}"
        f"{limit}))",
        params,
    )
    # All of them fit: ask for one page full, and a short answer is the end.
    return _PAGE_ROWS if fitting == found else max(int(str(fitting)), 1)


async def _page(
    reader: Reader, table: _Table, after: Sequence[object] | None, seen: int, size: int
) -> list[tuple[object, ...]]:
    where, order, limit, params = _after(table, after, seen, size)
    names = [*table.key, *(_quote(column) for column in table.columns)]
    tail = f" FROM {_quote(table.name)} {where}{order}{limit}"
    if is_d1(reader):
        tagged = await reader.fetch(f"SELECT {', '.join(map(_tagged, names))}{tail}", params)
        return [tuple(map(_untagged, row)) for row in tagged]
    try:
        return list(await reader.fetch(f"SELECT {', '.join(names) or '1'}{tail}", params))
    except UnavailableError:
        raise
    except DalError:
        # A text that Python cannot read; anything else fails again.
        as_bytes = ", ".join(
            f"typeof({name}), CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) ELSE {name} END"
            for name in names
        )
        rows = await reader.fetch(f"SELECT {as_bytes}{tail}", params)
        return [tuple(_text(row[n], row[n + 1]) for n in range(0, len(row), 2)) for row in rows]


def _after(
    table: _Table, after: Sequence[object] | None, seen: int, size: int
) -> tuple[str, str, str, tuple[object, ...]]:
    """WHERE, ORDER BY and LIMIT of the page behind a key, and their parameters."""
    order = f" ORDER BY {', '.join(table.key)}" if table.key else ""
    limit = f" LIMIT {size}" if table.key else f" LIMIT {size} OFFSET {seen}"
    if after is None or not table.key:
        return "", order, limit, ()
    params = tuple(map(_bindable, after))
    marks = ["CAST(? AS TEXT)" if param is not value else "?" for param, value in zip(params, after, strict=True)]
    return f"WHERE ({', '.join(table.key)}) > ({', '.join(marks)})", order, limit, params


def _text(kind: object, value: object) -> object:
    """The value; bytes of a text that are no UTF-8 become lone surrogates, which valid text never holds."""
    return value.decode("utf-8", "surrogateescape") if kind == "text" and isinstance(value, bytes) else value


def _tagged(name: str) -> str:
    """The value with a letter for its type; a real number alone stays a number."""
    return (
        f"CASE typeof({name}) WHEN 'integer' THEN 'i' || {name} WHEN 'text' THEN 't' || {name} "
        f"WHEN 'blob' THEN 'b' || hex({name}) ELSE {name} END"
    )


def _untagged(value: object) -> object:
    if not isinstance(value, str):
        return float(value) if isinstance(value, int) else value
    kind, rest = value[0], value[1:]
    return int(rest) if kind == "i" else bytes.fromhex(rest) if kind == "b" else rest


def _bindable(value: object) -> object:
    """The value itself; the bytes of a text that no driver takes."""
    if isinstance(value, str) and not value.isascii():
        encoded = value.encode("utf-8", "surrogateescape")
        return value if encoded == value.encode("utf-8", "replace") else encoded
    return value


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
