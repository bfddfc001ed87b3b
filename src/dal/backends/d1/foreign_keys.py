"""What a migration that wants foreign keys off would lose on D1, where they cannot be switched off.

DROP TABLE deletes the rows first, and with them the rows of children that are declared ON DELETE CASCADE (or SET NULL
changes them), also where the checks wait for the end of the batch. Rebuilding a parent table that way would empty its
children, so it is refused as long as they hold rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from dal.schema.connection import StatementError
from dal.schema.statements import tokens

_CHILDREN: Final = (
    # Cloudflare's own tables must not even be asked about.
    "WITH child AS MATERIALIZED (SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, 4) <> '_cf_') "
    "SELECT child.name, fk.on_delete FROM child, pragma_foreign_key_list(child.name) AS fk "
    "WHERE lower(fk.\"table\") = lower(?) AND fk.on_delete NOT IN ('NO ACTION', 'RESTRICT') "
    "AND lower(child.name) <> lower(?)"
)


class _Fetches(Protocol):
    async def fetch(self, sql: str, params: Sequence[object] = ()) -> Sequence[tuple[object, ...]]: ...


async def refuse_lost_children(connection: _Fetches, statements: Sequence[str]) -> None:
    """Raises StatementError for a DROP TABLE that would take rows of other tables with it."""
    for index, sql in enumerate(statements):
        table = _dropped(sql)
        if table is None:
            continue
        for child, action in await connection.fetch(_CHILDREN, (table, table)):
            name = str(child).replace('"', '""')
            if await connection.fetch(f'SELECT 1 FROM "{name}" LIMIT 1'):  # noqa: S608
                raise StatementError(
                    index,
                    f"D1 cannot switch foreign keys off: dropping {table} would change rows of {child} "
                    f"(ON DELETE {action}); rebuild {child} without that reference first, or copy its rows aside",
                )


def _dropped(sql: str) -> str | None:
    """The table that the statement drops, if it does."""
    words = [token.text for token in list(tokens(sql, "sqlite"))[:8]]
    upper = [word.upper() for word in words]
    if upper[:2] != ["DROP", "TABLE"]:
        return None
    rest = words[4:] if upper[2:4] == ["IF", "EXISTS"] else words[2:]
    if len(rest) > 2 and rest[1] == ".":
        rest = rest[2:]
    return rest[0].strip('"`[]').replace('""', '"') if rest else None
