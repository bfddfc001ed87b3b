"""Indexes that PostgreSQL builds CONCURRENTLY: what a build that was cancelled or killed has left.

Such a build leaves an index that is there by name and not valid; CREATE INDEX … IF NOT EXISTS then does nothing for
good. So before each build one of that name is looked for, and dropped when it is invalid and nobody is building it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from dal.schema.connection import Connection, StatementError
from dal.schema.statements import Statement, Token, tokens

_FIND: Final = (
    "SELECT format('%%I.%%I', n.nspname, c.relname), i.indisvalid::text, "
    "EXISTS (SELECT 1 FROM pg_catalog.pg_stat_progress_create_index p WHERE p.index_relid = c.oid)::text "
    "FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid "
    "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
)
#: An index stands in its table's schema, whatever the search path says.
_OF_TABLE: Final = _FIND + "WHERE i.indrelid = to_regclass(%s) AND c.relname = (parse_ident(%s)::name[])[1]"
_BY_NAME: Final = _FIND + "WHERE c.oid = to_regclass(%s)"


class Concurrently(NamedTuple):
    """A statement that builds or drops an index CONCURRENTLY: names as written, quotes and schema included."""

    verb: str
    name: str
    table: str


async def clear_invalid(connection: Connection, statement: Statement) -> None:
    """Drops the invalid index that an earlier build of this statement has left."""
    found = read(statement) if connection.engine == "postgresql" else None
    if found is None or found.verb != "CREATE":
        return
    rows = await connection.fetch(_OF_TABLE, (found.table, found.name))
    if not rows or rows[0][1] == "true":
        return
    name, _, building = rows[0]
    if building == "true":
        raise StatementError(None, f"another session is building {name}", kind="busy")
    await connection.run_alone(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


async def is_done(connection: Connection, statement: Statement) -> bool:
    """Whether a statement whose answer never came has done its work."""
    found = read(statement) if connection.engine == "postgresql" else None
    if found is None:
        return False
    if found.verb == "DROP":
        return not await connection.fetch(_BY_NAME, (found.name,))
    rows = await connection.fetch(_OF_TABLE, (found.table, found.name))
    return bool(rows) and rows[0][1] == "true"


def read(statement: Statement) -> Concurrently | None:
    """The names in CREATE [UNIQUE] INDEX CONCURRENTLY [IF NOT EXISTS] name ON [ONLY] table, and in DROP INDEX
    CONCURRENTLY [IF EXISTS] name; None for any other statement, and where the index has no name or are several."""
    found = list(tokens(statement.sql, "postgresql"))
    place = _skip(found, 0, "CREATE") or _skip(found, 0, "DROP")
    verb = found[0].text.upper() if place else ""
    place = _skip(found, place, "UNIQUE") or place
    place = _skip(found, place, "INDEX", "CONCURRENTLY")
    if not place:
        return None
    place = _skip(found, place, "IF", "NOT", "EXISTS") or _skip(found, place, "IF", "EXISTS") or place
    index, place = _name(found, place)
    if verb == "DROP":
        return None if place < len(found) and found[place].says(",") else Concurrently(verb, index, "")
    place = _skip(found, place, "ON")
    if not place or index.upper() == "ON":
        return None
    table, _ = _name(found, _skip(found, place, "ONLY") or place)
    return Concurrently(verb, index, table)


def _skip(found: list[Token], place: int, *words: str) -> int:
    """The place behind these words; 0 where they do not stand there."""
    there = found[place : place + len(words)]
    matches = len(there) == len(words) and all(token.says(word) for token, word in zip(there, words, strict=True))
    return place + len(words) if matches else 0


def _name(found: list[Token], place: int) -> tuple[str, int]:
    """A name, qualified or not, as written, and the place behind it."""
    parts = ""
    while place < len(found):
        parts += found[place].text
        place += 1
        if not (place < len(found) and (found[place].says(".") or parts.endswith("."))):
            break
    return parts, place
