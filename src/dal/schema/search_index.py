"""The library's search index as a migration that comes and goes: taken out for an export, made again, and mended.

It is an optional file of the library's set, so the ledger always says the truth: dropped, it is pending like a file
that was left out. What is in the index is the store's business (`SearchIndex` in dal.store).
"""

from __future__ import annotations

from typing import Final

from dal.errors import SchemaError
from dal.schema.apply import down, up
from dal.schema.connection import Connection, EngineName, Run, StatementError
from dal.schema.files import library_set
from dal.schema.status import status

SEARCH_FILE: Final = "0002_search.sql"
_PRESENT: Final[dict[EngineName, str]] = {
    "sqlite": "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'message_search'",
    "postgresql": "SELECT 1 WHERE to_regclass('message_search') IS NOT NULL",
}
_REMAINS: Final[dict[EngineName, str]] = {
    "sqlite": "DROP TRIGGER IF EXISTS message_search_delete",
    "postgresql": "DROP TABLE IF EXISTS message_search",
}


async def drop_search_index(connection: Connection) -> bool:
    """Takes the index out of the database, with its trigger and its place in the ledger; False where there was none.

    No row of a user is lost. Stores that are open go on without search. Raises as `down`.
    """
    await _require_usable(connection)
    return bool(await down(connection, only=SEARCH_FILE))


async def make_search_index(connection: Connection) -> bool:
    """Makes an empty index where there is none; False where there is one. Raises as `up`.

    One whose table was dropped by hand is made again too, and the trigger that was left over with it.
    """
    await _require_usable(connection)
    # Nothing else that is pending: another optional file may have been left out on purpose.
    set_ = library_set(connection.engine)
    others = [m.name for m in set_.migrations if m.directives.optional and m.name != SEARCH_FILE]
    if await up(connection, to=SEARCH_FILE, leave_out=others):
        return True
    if await connection.fetch(_PRESENT[connection.engine]):
        return False
    migration = set_.get(SEARCH_FILE)
    assert migration is not None  # noqa: S101  # it ships with the library
    again: list[Run] = [(_REMAINS[connection.engine], ()), *((s.sql, ()) for s in migration.statements)]
    try:
        await connection.run(again)
    except StatementError as error:
        raise SchemaError(
            f"{connection.address}: the search index could not be made again: {error.reason}", operation="search"
        ) from error
    return True


async def _require_usable(connection: Connection) -> None:
    """Raises SchemaError: what is missing here is more than a search index."""
    (await status(connection)).require_usable()
