"""What the tables hold, in one short digest a table: equal exactly when the rows are, whatever order they lie in.

A backup keeps the digests of its moment, and a restore is compared with them table by table. Every row is hashed with
SHA-256 over its exact values (NULL, '' and '0' differ, so do 1, '1' and 1.0, a text and a blob of its bytes), the
hashes are added up, and the sum is hashed with the number of rows and the names of the columns. A sum does not care for
order and, unlike XOR, counts a row that is there twice. It guards against accidents, not against forgers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dal.schema.connection import Reader

#: Changes when the digest of the same rows would; digests of different methods cannot be compared.
METHOD: Final = "rows-sha256-sum/1"
#: Rows that come and go while a migration runs: who holds the lock is not content.
LEFT_OUT: Final = frozenset({"dal_migration_lock"})


@dataclass(frozen=True, slots=True)
class TableDigest:
    """The content of one table.

    rows    how many there are.
    digest  64 hexadecimal digits.
    """

    rows: int
    digest: str


async def content_digests(reader: Reader) -> dict[str, TableDigest]:
    """The digest of every table by its name, in order of names.

    Tables  all of the database, ledgers and SQLite's `sqlite_sequence` included; PostgreSQL's outside the current
            schema as `"schema"."table"`. Left out are the lock of this tool, what an engine keeps for itself
            (statistics), PostgreSQL's temporary and foreign tables, what belongs to extensions, materialized views,
            sequences and large objects, and SQLite's virtual tables: their shadow tables, which hold the rows, count.
    Moment  one table is read after the other. Only `Connection.dump` shows a Reader of a single moment; elsewhere
            nobody else should write meanwhile.
    Cost    every row is read. PostgreSQL computes inside the database, about 2 µs a row and 0.3 µs a column, and
            answers with one line a table. SQLite has no hash function: its rows come in pages of at most 2,000 rows and
            4 MB (one row may be larger), about 10 µs a row, so memory stays bounded however large the table is.
    """
    if reader.engine == "postgresql":
        from dal.schema.backups.digest_postgresql import table_digests
    else:
        from dal.schema.backups.digest_sqlite import table_digests
    return await table_digests(reader)


@dataclass(frozen=True, slots=True)
class Difference:
    """A table whose content is not what it was: `expected` or `found` is None where the table is missing there."""

    table: str
    expected: TableDigest | None
    found: TableDigest | None

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.table}: missing"
        if self.expected is None:
            return f"{self.table}: unexpected, {self.found.rows} rows"
        if self.expected.rows != self.found.rows:
            return f"{self.table}: {self.found.rows} rows instead of {self.expected.rows}"
        return f"{self.table}: {self.found.rows} rows, with other content"


def compare_digests(expected: dict[str, TableDigest], found: dict[str, TableDigest]) -> list[Difference]:
    """The tables that differ, in order of names; none: the content is the same."""
    return [
        Difference(name, expected.get(name), found.get(name))
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]


def finish(columns: Sequence[str], rows: int, sums: Sequence[int]) -> TableDigest:
    """The digest of a table from the sums of its rows' hashes."""
    text = ascii((METHOD, tuple(columns), rows, tuple(sums)))
    return TableDigest(rows, hashlib.sha256(text.encode("ascii")).hexdigest())
