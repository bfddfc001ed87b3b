"""What a refused batch says: table, key and parent by name, never a content."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.rows import append, message_insert

from dal.backends.sql import Statement, Step, Violation
from dal.backends.sql.refusal import refusal
from dal.backends.sqlite import sqlite_store
from dal.errors import AlreadyExistsError, ConflictError, DalError, InvalidInputError, MissingReferenceError
from dal.ops import Compare, Guard, Insert, Op, Ref, Select, Update, Upsert
from dal.store import Store
from dal.testing import rows

SECRET = "what the user wrote"
RENAME = Update("users", {"id": rows.row_id(1)}, {"name": "changed"})
USER = Insert("users", rows.user(2, clerk_id="ada"))


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = sqlite_store(tmp_path / "dal.db")
    await opened.open()
    await opened.commit([Insert("users", rows.user(1, clerk_id="grace")), Insert("chat_sessions", rows.chat(1))])
    yield opened
    await opened.close()


MISSING_CHAT = Ref("chat_sessions", {"chat_id": "nowhere"}, "id")
CASES: list[tuple[list[Op], type[DalError], str]] = [
    ([Insert("users", rows.user(1))], AlreadyExistsError, f"users[id='{rows.row_id(1)}'] already exists"),
    ([Insert("users", rows.user(3, clerk_id="grace"))], AlreadyExistsError, "users[clerk_id='grace'] already exists"),
    (
        [USER, Update("users", {"id": rows.row_id(2)}, {"clerk_id": "grace"})],
        AlreadyExistsError,
        "users[clerk_id='grace'] already exists",
    ),
    (
        [Insert("chat_sessions", rows.chat(2, chat_id="chat-1", title=SECRET))],
        AlreadyExistsError,
        "chat_sessions[chat_id='chat-1'] already exists",
    ),
    (
        [Insert("users", rows.user(n)) for n in (7, 8, 1)],
        AlreadyExistsError,
        "users: one of 3 rows holds a key that is already taken",
    ),
    (
        [Insert("user_memory", rows.memory(1, 9, value=SECRET))],
        MissingReferenceError,
        f"user_memory.user_id refers to users[id='{rows.row_id(9)}'], which is not there",
    ),
    (
        [Upsert("user_memory", rows.memory(1, 9), ("user_id", "memory_type", "key"), ("value",))],
        MissingReferenceError,
        f"user_memory.user_id refers to users[id='{rows.row_id(9)}'], which is not there",
    ),
    (
        append(1, {"chat_id": "nowhere"}),
        MissingReferenceError,
        "messages: refers to chat_sessions[chat_id='nowhere'], which is not there",
    ),
    (
        [message_insert(1, {"chat_id": "nowhere"})],
        MissingReferenceError,
        "messages: refers to chat_sessions[chat_id='nowhere'], which is not there",
    ),
    (
        [Insert("chat_sessions", {**rows.chat(2), "user_id": Ref("users", {"clerk_id": "nobody"}, "id")})],
        MissingReferenceError,
        "chat_sessions: refers to users[clerk_id='nobody'], which is not there",
    ),
    (
        [Guard("chat_sessions", {"chat_id": "chat-1"}, {"version": 6})],
        ConflictError,
        "chat_sessions[chat_id='chat-1'] is not at version=6; read it again and retry",
    ),
    (
        [Guard("chat_sessions", {"chat_id": "nowhere"})],
        ConflictError,
        "chat_sessions[chat_id='nowhere'] is not there; read it again and retry",
    ),
    (
        [
            Guard(
                "user_quotas",
                {"user_id": "u"},
                {"version": 3},
                (
                    Compare("taken_files", "<", 7),
                    Compare("taken_bytes", "<=", Ref("user_quotas", {"user_id": "u"}, "max_bytes", -5)),
                ),
            )
        ],
        ConflictError,
        "user_quotas[user_id='u'] is not at version=3 and taken_files < 7 and "
        "taken_bytes <= user_quotas[user_id='u'].max_bytes - 5; read it again and retry",
    ),
    (
        [Insert("users", rows.user(2, status=None))],
        InvalidInputError,
        "users: a column that must not be null got none",
    ),
]


@pytest.mark.parametrize(("ops", "error", "message"), CASES, ids=[f"{c[1].__name__}-{n}" for n, c in enumerate(CASES)])
async def test_a_refusal_names_table_and_key(store: Store, ops: list[Op], error: type[DalError], message: str) -> None:
    with pytest.raises(error) as refused:
        await store.commit([RENAME, *ops])
    assert refused.value.message == message
    assert (refused.value.operation, refused.value.backend, refused.value.outcome) == (
        "commit",
        "sqlite",
        "not_applied",
    )
    assert refused.value.__cause__ is not None or error is MissingReferenceError
    assert SECRET not in str(refused.value)
    assert await store.read(Select("users", columns=("name",))) == [(None,)]


@pytest.mark.parametrize(
    ("kind", "ops", "error"),
    [
        ("check", [USER, Guard("users", {"id": "x"})], ConflictError),
        ("unique", [Guard("users", {"id": "x"}), USER], AlreadyExistsError),
        ("foreign key", [Insert("user_memory", rows.memory(1, 9)), USER], MissingReferenceError),
        ("not null", [USER, message_insert(1, {"chat_id": "nowhere"})], MissingReferenceError),
    ],
)
def test_without_a_place_the_likeliest_operation_is_named(kind: str, ops: list[Op], error: type[DalError]) -> None:
    steps = [Step(Statement("…"), n, n + 1) for n in range(len(ops))]
    found = refusal(Violation(kind), ops, steps, "other")  # type: ignore[arg-type]
    assert type(found) is error
    assert found.backend == "other"


def test_a_constraint_that_the_engine_names_tells_the_key() -> None:
    steps = [Step(Statement("…"), 0, 1)]
    by_index = refusal(Violation("unique", statement=0, constraint="idx_users_clerk_id"), [USER], steps, "postgresql")
    assert by_index.message == "users[clerk_id='ada'] already exists"
    by_key = refusal(Violation("unique", statement=0, constraint="users_pkey"), [USER], steps, "postgresql")
    assert by_key.message == f"users[id='{rows.row_id(2)}'] already exists"
