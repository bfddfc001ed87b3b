"""A live move in a database of these tests, and writers that know nothing of it: plain psycopg, in plain SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, LiteralString, TypeAlias
from uuid import UUID

import psycopg

from dal.replica import UNITS, Gate, Role
from dal.values import new_id

Connection: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]
MOVE: Final = "move-1"
#: What a role needs that moves tables which it does not own.
MOVER: Final[LiteralString] = (
    "GRANT CREATE ON SCHEMA public TO {role}; "
    "GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON ALL TABLES IN SCHEMA public TO {role}"
)
#: What is in the registry of a table, by id.
REGISTRY: Final = "SELECT pk::text, ver, deleted, state, hash FROM dal_sync WHERE entity = %s"
ADD_USER: Final = (
    "INSERT INTO users (id, clerk_id, created_at, updated_at) VALUES (%s, %s, now(), now()) ON CONFLICT DO NOTHING"
)


def gates(role: Role = "primary", *, move: str = MOVE, units: Sequence[str] = tuple(UNITS)) -> list[Gate]:
    """A gate for each unit, as the source of a move has them at its start, or with another role as its target."""
    if role == "primary":
        return [Gate(unit, move, "source", role, 1, 1, "CAPTURE") for unit in units]
    return [Gate(unit, move, "target", role, 0, 2, "CAPTURE") for unit in units]


async def connect(url: str, *, autocommit: bool = True) -> Connection:
    return await psycopg.AsyncConnection.connect(url, autocommit=autocommit)


async def add_user(connection: Connection, id_: str | None = None) -> str:
    made = id_ or new_id()
    await connection.execute(ADD_USER, (made, made))
    return made


async def rows(connection: Connection, sql: str, *params: object) -> list[tuple[Any, ...]]:
    return await (await connection.execute(sql.encode(), params or None)).fetchall()


async def registry(connection: Connection, table: str) -> dict[str, tuple[int, int, int, int | None]]:
    """Version, deleted, state and hash of each key of the table."""
    return {
        str(UUID(pk)): (ver, gone, state, hash_)
        for pk, ver, gone, state, hash_ in await rows(connection, REGISTRY, table)
    }
