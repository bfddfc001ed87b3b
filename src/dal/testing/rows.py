"""Valid rows to begin from: each builder gives every column of its table, the caller names what matters to the test.

Everything is derived from a small number, so that a failing test reads the same on every run and on every store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from dal.errors import ConflictError
from dal.ops import Insert, Op, Receipt, Ref, Row, Select, Update, Value
from dal.store import ReadCommit
from dal.table import VERSION
from dal.tables import TABLES, Column, Kind

START: Final = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def row_id(number: int) -> str:
    """The UUID text that stands for this number; ids sort as their numbers do."""
    return f"01900000-0000-7000-8000-{number:012x}"


def moment(number: int) -> datetime:
    """So many seconds after START."""
    return START + timedelta(seconds=number)


def user(number: int, **changes: Value) -> dict[str, Value]:
    """A user with nothing but an id."""
    row: dict[str, Value] = {
        "id": row_id(number),
        "clerk_id": None,
        "email": None,
        "name": None,
        "profile": {},
        "preferences": {},
        "status": "active",
        "created_at": moment(number),
        "updated_at": moment(number),
        "last_active_at": None,
        "version": 1,
    }
    return row | changes


def chat(number: int, **changes: Value) -> dict[str, Value]:
    """A chat of nobody, `chat-<number>`, without messages."""
    row: dict[str, Value] = {
        "id": row_id(number),
        "chat_id": f"chat-{number}",
        "user_id": None,
        "title": None,
        "profile": "general",
        "metadata": {},
        "status": "active",
        "message_count": 0,
        "created_at": moment(number),
        "updated_at": moment(number),
        "last_message_at": None,
        "last_activity_at": moment(number),
        "version": 1,
    }
    return row | changes


def message(number: int, chat_number: int, **changes: Value | Ref) -> dict[str, Value | Ref]:
    """A message of that chat; its sequence number is its own number unless given."""
    row: dict[str, Value | Ref] = {
        "id": row_id(number),
        "chat_session_id": row_id(chat_number),
        "role": "user",
        "content": f"message {number}",
        "metadata": {},
        "sequence_number": number,
        "token_count": None,
        "abuse_flagged": False,
        "created_at": moment(number),
        "version": 1,
    }
    return row | changes


def memory(number: int, user_number: int, **changes: Value) -> dict[str, Value]:
    """An item of that user's memory: type `fact`, key `key-<number>`."""
    row: dict[str, Value] = {
        "id": row_id(number),
        "user_id": row_id(user_number),
        "memory_type": "fact",
        "key": f"key-{number}",
        "value": number,
        "expires_at": None,
        "created_at": moment(number),
        "updated_at": moment(number),
        "version": 1,
    }
    return row | changes


def file(number: int, user_number: int, **changes: Value) -> dict[str, Value]:
    """A file of that user, stored under `files/<number>`."""
    row: dict[str, Value] = {
        "id": row_id(number),
        "user_id": row_id(user_number),
        "filename": f"{number}.txt",
        "storage_key": f"files/{number}",
        "mime_type": "text/plain",
        "file_size": number,
        "checksum": None,
        "metadata": {},
        "status": "active",
        "created_at": moment(number),
        "updated_at": moment(number),
        "version": 1,
    }
    return row | changes


def log(number: int, **changes: Value) -> dict[str, Value]:
    """An audit event that refers to nothing."""
    row: dict[str, Value] = {
        "id": row_id(number),
        "action": "test",
        "user_id": None,
        "entity_type": None,
        "entity_id": None,
        "level": "info",
        "message": None,
        "context": {},
        "trace_id": None,
        "ip_address": None,
        "user_agent": None,
        "request_uri": None,
        "created_at": moment(number),
    }
    return row | changes


def whole(table: str, number: int, **changes: Value) -> dict[str, Value]:
    """A row of any table with something in every column; what refers to a parent is the caller's to give."""
    row = {column.name: 1 if column is VERSION else _filled(column, number) for column in TABLES[table].columns}
    return row | changes


def _filled(column: Column, number: int) -> Value:
    match column.kind:
        case Kind.ID:
            return row_id(number)
        case Kind.TEXT:
            return f"{column.name}-{number}"[: column.max_chars]
        case Kind.TIME:
            return moment(number)
        case Kind.JSON:
            return {"n": [number, None, "✓"]}
        case Kind.BOOL:
            return True
        case Kind.IP:
            return "2001:db8::1"
        case Kind.INT:
            return 2**31 - 1 - number
        case Kind.BIGINT:
            return 2**63 - 1 - number


def append(number: int, chat_number: int, **changes: Value) -> list[Update | Insert]:
    """The batch that adds a message to a chat: the chat's count is raised, and is the message's sequence number."""
    key: dict[str, Value] = {"id": row_id(chat_number)}
    sequence = Ref("chat_sessions", key, "message_count")
    row = message(number, chat_number, **changes) | {"sequence_number": sequence}
    return [
        Update("chat_sessions", key, set={"last_activity_at": moment(number)}, add={"message_count": 1, "version": 1}),
        Insert("messages", row, returning=("sequence_number",)),
    ]


def number_of(identifier: Value) -> int:
    """The number that `row_id` was given."""
    return int(str(identifier)[-12:], 16)


async def numbers(store: ReadCommit, query: Select) -> list[int]:
    """The numbers of the rows a query finds, in its order."""
    return [number_of(row[0]) for row in await store.read(query._replace(columns=("id",)))]


async def commit_in_the_end(store: ReadCommit, ops: Sequence[Op]) -> Receipt:
    """The receipt of a commit that is made again when the store reports a conflict that repeating can end."""
    while True:
        try:
            return await store.commit(ops)
        except ConflictError as error:
            assert error.retryable, "a conflict of the engine's must say that repeating can help"


async def everything(store: ReadCommit, tables: Iterable[str] = TABLES) -> dict[str, list[Row]]:
    """Every row of every table, or of these, by id: what a refused batch must leave as it was."""
    return {name: await store.read(Select(name, order=("id",))) for name in tables}
