"""The records: frozen, typed, serialisable, with UTC times, on every backend."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

import dal as library
from dal import DataAccess, NewMessage
from dal.store import Store

FIELDS = {
    "User": "id clerk_id email name profile preferences status created_at updated_at last_active_at version",
    "ChatSession": "id chat_id user_id title profile metadata status message_count created_at updated_at "
    "last_message_at version",
    "Message": "id chat_id role content metadata sequence_number token_count abuse_flagged created_at version",
    "MemoryItem": "id user_id memory_type key value expires_at created_at updated_at version",
    "FileRecord": "id user_id filename storage_key mime_type file_size checksum metadata status created_at updated_at "
    "version",
    "AuditEvent": "id action user_id entity_type entity_id level message context trace_id ip_address user_agent "
    "request_uri created_at",
    "NewMessage": "role content metadata token_count id created_at",
    "SearchHit": "message snippet",
    "Page": "items next",
    "Health": "status parts",
}


async def one_of_each(dal: DataAccess) -> list[BaseModel]:
    """A record of every kind, read back from the store."""
    user = await dal.users.create(clerk_id="c", profile={"a": [1, None]})
    await dal.users.touch(user.id)
    await dal.chats.create("c", user_id=user.id, metadata={"b": 1.5})
    message = await dal.messages.add("c", "user", "hello", token_count=1)
    await dal.memory.set(user.id, "t", "k", [1], ttl=60)
    await dal.files.create(user.id, "f", storage_key="s", file_size=1)
    await dal.audit.record("login", ip_address="192.0.2.1")
    found = [
        await dal.users.get(user.id),
        await dal.chats.get("c"),
        await dal.messages.get(message.id),
        *await dal.messages.history("c"),
        await dal.memory.get_item(user.id, "t", "k"),
        await dal.files.get_by_storage_key("s"),
        *(await dal.audit.list()).items,
        *(await dal.messages.search("hello")).items,
        await dal.users.list(),
        await dal.chats.list(),
        await dal.files.list(),
        await dal.audit.list(),
        await dal.messages.search("hello"),
        await dal.health(),
    ]
    return [record for record in found if record is not None]


def test_records_have_the_fields_of_the_contract() -> None:
    for name, fields in FIELDS.items():
        model = getattr(library, name)
        assert list(model.model_fields) == fields.split(), name


async def test_records_are_frozen(dal: DataAccess) -> None:
    for record in await one_of_each(dal):
        for field in type(record).model_fields:
            with pytest.raises(ValidationError):
                setattr(record, field, None)


async def test_records_survive_json_and_validation(dal: DataAccess) -> None:
    for record in await one_of_each(dal):
        model = type(record)
        again = model.model_validate_json(record.model_dump_json())
        assert again == record
        assert model.model_validate(record.model_dump()) == record
        assert TypeAdapter(model).validate_python(record) == record
        assert set(record.model_dump()) == set(model.model_fields)
        assert record.model_copy() == record
        json.loads(record.model_dump_json())
        assert repr(record).startswith(model.__name__)


def _times(value: object) -> list[datetime]:
    if isinstance(value, datetime):
        return [value]
    if isinstance(value, BaseModel):
        return [time for field in type(value).model_fields for time in _times(getattr(value, field))]
    if isinstance(value, list):
        return [time for item in value for time in _times(item)]
    return []


async def test_times_are_aware_in_utc_with_microseconds(dal: DataAccess) -> None:
    times = _times(await one_of_each(dal))
    assert len(times) > 15
    for time in times:
        assert time.utcoffset() == timedelta(0)
        assert time.tzinfo is UTC
    assert any(time.microsecond % 1000 for time in times)


@pytest.fixture
async def real(store: Store) -> AsyncIterator[DataAccess]:
    """With the clock and the ids that applications get."""
    async with DataAccess(store) as made:
        yield made


async def test_ids_are_uuids_of_version_7_in_ascending_order(real: DataAccess) -> None:
    await real.chats.create("c")
    added = await real.messages.add_many("c", [NewMessage("user", "x")] * 20)
    ids = [message.id for message in added] + [(await real.users.create()).id for _ in range(3)]
    assert ids == sorted(ids)
    for text in ids:
        assert UUID(text).version == 7
        assert str(UUID(text)) == text


async def test_times_are_those_of_the_clock_on_the_wall(real: DataAccess) -> None:
    before = datetime.now(UTC)
    user = await real.users.create()
    assert before <= user.created_at <= datetime.now(UTC)
    found = await real.users.get(user.id)
    assert found == user


async def test_a_version_starts_at_one_and_grows_with_every_change(dal: DataAccess) -> None:
    user = await dal.users.create()
    chat = await dal.chats.create("c")
    file = await dal.files.create(user.id, "f", storage_key="s", file_size=1)
    item = await dal.memory.set(user.id, "t", "k", 0)
    message = await dal.messages.add("c", "user", "x")
    assert {record.version for record in (user, chat, file, item, message)} == {1}
    for expected in (2, 3, 4):
        assert (await dal.users.update(user.id, name="same")).version == expected
        assert (await dal.files.update(file.id, status="same")).version == expected
        assert (await dal.memory.set(user.id, "t", "k", 0)).version == expected
        assert (await dal.messages.flag(message.id)).version == expected
        assert (await dal.chats.update("c", title="same")).version == expected + 1, "the message was a change too"
