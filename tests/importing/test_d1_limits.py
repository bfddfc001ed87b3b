"""Importing into D1: what is beyond its limits is refused by name, the rest goes in, in few requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from dal import Settings, create_data_access
from dal.importing import import_file
from dal.limits import D1_MAX_REQUEST_BYTES, D1_MAX_VALUE_BYTES
from tests.engines.d1 import D1Database, D1Engine
from tests.importing.sources import Fields, conversation, message, write


@pytest.fixture
def database(d1_engine: D1Engine, d1_schema: list[str]) -> D1Database:
    made = d1_engine.create_database()
    d1_engine.query(made, *d1_schema)
    return made


def _settings(database: D1Database) -> Settings:
    return Settings(d1_api_base=database.base, d1_api_token=database.token)


def _said(chat_id: str, *texts: str) -> Fields:
    return {**conversation(chat_id), "messages": [message(text) for text in texts]}


async def test_a_value_beyond_the_limit_is_refused_and_one_at_it_goes_in(database: D1Database, tmp_path: Path) -> None:
    most = (D1_MAX_VALUE_BYTES - 2_000) // len("鶏".encode())
    path = write(
        tmp_path / "source",
        [
            conversation("before", "a", "b"),
            _said("at", "鶏" * most),
            _said("text", "鶏" * (most + 1_000)),
            conversation("metadata", "a", metadata={"k": "v" * D1_MAX_VALUE_BYTES}),
            conversation("after", "c"),
        ],
    )
    async with create_data_access(database.url, settings=_settings(database)) as dal:
        report = await import_file(dal, path)
        there = [chat for chat in ("before", "at", "text", "metadata", "after") if await dal.chats.get(chat)]
        stored = (await dal.messages.history("at"))[0].content

    assert there == ["before", "at", "after"]
    assert [(refusal.line, refusal.chat_id) for refusal in report.refusals] == [(3, "text"), (4, "metadata")]
    assert all(f"D1 takes {D1_MAX_VALUE_BYTES}" in refusal.reason for refusal in report.refusals)
    assert stored == "鶏" * most


async def test_a_conversation_beyond_one_request_is_refused_whole(database: D1Database, tmp_path: Path) -> None:
    texts = ["y" * 1_000_000] * (D1_MAX_REQUEST_BYTES // 1_000_000 + 1)
    path = write(tmp_path / "source", [_said("long", *texts), conversation("after", "c")])
    async with create_data_access(database.url, settings=_settings(database)) as dal:
        report = await import_file(dal, path)

        assert await dal.chats.get("long") is None
        assert await dal.messages.count("after") == 1
    assert [refusal.chat_id for refusal in report.refusals] == ["long"]
    assert f"the API takes {D1_MAX_REQUEST_BYTES}" in report.refusals[0].reason


async def test_an_import_takes_few_requests(d1_engine: D1Engine, database: D1Database, tmp_path: Path) -> None:
    path = write(tmp_path / "source", [conversation(f"c-{n}", *["text"] * 20) for n in range(100)])
    async with create_data_access(database.url, settings=_settings(database)) as dal:
        before = d1_engine.requests(database)
        report = await import_file(dal, path)
        sent = d1_engine.requests(database) - before

    assert report.messages == report.indexed == 2_000
    # Chats looked up, user looked up and made, one commit, one page indexed, and two looks that found no more.
    assert sent == 8
