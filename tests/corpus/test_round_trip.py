"""Real conversations go into every backend and read back equal through the public API, to the last message.

The expectation is made here from the source with the standard library, not with the importer's own parser.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dal import DataAccess, create_data_access
from dal.importing import ImportReport, import_file
from dal.ops import Count
from tests.subjects import url_of

BACKENDS = ["memory", "file", "sqlite", "postgresql"]


@pytest.fixture
def url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(backend, request, tmp_path)


@pytest.fixture
async def dal(url: str) -> AsyncIterator[DataAccess]:
    async with create_data_access(url) as opened:
        yield opened


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["sample_a", "sample_a_permissive"])
async def test_a_sample_reads_back_equal(dal: DataAccess, corpus_directory: Path, name: str) -> None:
    await check(dal, corpus_directory / f"{name}.jsonl.gz", counted(corpus_directory, name))


@pytest.mark.corpus
@pytest.mark.parametrize("backend", BACKENDS[1:])
async def test_the_whole_corpus_reads_back_equal(
    dal: DataAccess, corpus_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = await check(dal, corpus_directory / "corpus_a.jsonl.gz", counted(corpus_directory, "corpus_a"))
    with capsys.disabled():
        print(
            f"\n{dal.capabilities.backend}: {report.messages:,} messages, rows in {report.load_s:.1f} s "
            f"({report.messages_per_s:,.0f}/s), index in {report.index_s:.1f} s"
        )


@pytest.mark.parametrize("backend", BACKENDS)
async def test_user_memory_reads_back_equal(dal: DataAccess, corpus_directory: Path) -> None:
    path = corpus_directory / "corpus_a_user_memory.jsonl.gz"
    report = await import_file(dal, path)
    assert (report.refused, report.unchanged) == (0, 0)
    for persona in source(path):
        user = await dal.users.get_by_clerk_id(persona["user"])
        assert user is not None
        found: dict[str, dict[str, object]] = {}
        for item in await dal.memory.list(user.id):
            found.setdefault(item.memory_type, {})[item.key] = item.value
        facts = {f"{number:04d}": fact for number, fact in enumerate(persona["facts"], 1)}
        assert found.pop("import") == {"source": persona["source"]}
        assert found.pop("facts") == facts
        assert found == {name: value for name, value in persona.items() if isinstance(value, dict) and value}


async def check(dal: DataAccess, path: Path, counted: dict[str, int]) -> ImportReport:
    """Imports the file and compares every chat and message with the source."""
    report = await import_file(dal, path)
    assert (report.refused, report.unchanged, report.grown) == (0, 0, 0)
    assert (report.users, report.chats, report.messages) == (
        counted["users"],
        counted["conversations"],
        counted["messages"],
    )
    keys: dict[str, str] = {}
    for conversation in source(path):
        chat = await dal.chats.get(conversation["chat_id"])
        assert chat is not None
        assert chat.user_id is not None
        if chat.user_id not in keys:
            user = await dal.users.get(chat.user_id)
            assert user is not None
            assert user.clerk_id is not None
            keys[chat.user_id] = user.clerk_id
        assert keys[chat.user_id] == conversation["user"]
        assert chat.title == conversation["title"]
        provenance = chat.metadata.pop("import")
        assert isinstance(provenance, dict)
        assert provenance["source"] == conversation["source"]
        assert chat.metadata == conversation["metadata"]
        messages = [m async for m in dal.messages.iterate(conversation["chat_id"])]
        assert len(messages) == len(conversation["messages"]) == chat.message_count
        for number, (message, said) in enumerate(zip(messages, conversation["messages"], strict=True), 1):
            assert (message.sequence_number, message.role, message.content) == (number, said["role"], said["content"])
            if said["at"] is None:
                assert message.metadata.pop("import") == {"at": None}
            else:
                assert message.created_at == datetime.fromisoformat(said["at"]).replace(tzinfo=UTC)
            assert message.metadata == said["metadata"]
    assert await dal.store.read(Count("messages")) == [(counted["messages"],)]
    again = await import_file(dal, path)
    assert (again.rows, again.unchanged, again.indexed) == (0, counted["conversations"], 0)
    return report


def source(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield json.loads(line)


def counted(directory: Path, name: str) -> dict[str, int]:
    counts: dict[str, int] = json.loads((directory / f"{name}.stats.json").read_text())["ALL"]
    return counts
