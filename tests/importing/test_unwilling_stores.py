"""Stores that refuse a record, lose an answer, are busy, or go away in the middle of an import."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from dal import ConflictError, DataAccess, LimitExceededError, UnavailableError
from dal.backends.memory import MemoryStore
from dal.importing import ImportReport, import_file
from dal.layers.base import Layer
from dal.ops import Insert, Op, Receipt
from tests.importing.sources import conversation, write

CHATS = 30
BATCH_ROWS = 10


class Unwilling(Layer):
    """A store whose commits meet what the test thinks of."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.before: Callable[[Sequence[Op]], None] = lambda _ops: None
        self.after: Callable[[Sequence[Op]], None] = lambda _ops: None

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        self.before(ops)
        receipt = await self.inner.commit(ops)
        self.after(ops)
        return receipt


@pytest.fixture
def store() -> Unwilling:
    return Unwilling()


@pytest_asyncio.fixture
async def dal(store: Unwilling) -> AsyncIterator[DataAccess]:
    async with DataAccess(store) as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "f", [conversation(f"c-{n}", "one", "two", user=f"u{n % 4}") for n in range(CHATS)])


def speaks_of(ops: Sequence[Op], chat_id: str) -> bool:
    return any(type(op) is Insert and op.row.get("chat_id") == chat_id for op in ops)


async def is_whole(dal: DataAccess, *, without: Sequence[str] = ()) -> None:
    for n in range(CHATS):
        chat = await dal.chats.get(f"c-{n}")
        assert (chat is None) == (f"c-{n}" in without)
        if chat is not None:
            assert [m.content for m in await dal.messages.history(f"c-{n}")] == ["one", "two"]


def figures(report: ImportReport) -> tuple[int, int, int, int]:
    return report.chats, report.messages, report.unchanged, report.refused


async def test_a_record_that_the_store_refuses_is_named_and_takes_no_other_with_it(
    dal: DataAccess, store: Unwilling, source: Path
) -> None:
    def refuse(ops: Sequence[Op]) -> None:
        if speaks_of(ops, "c-7"):
            raise LimitExceededError("messages.content: too long for this backend")

    store.before = refuse
    report = await import_file(dal, source, batch_rows=BATCH_ROWS)
    assert figures(report) == (CHATS - 1, 2 * (CHATS - 1), 0, 1)
    (refusal,) = report.refusals
    assert (refusal.line, refusal.chat_id, refusal.user) == (8, "c-7", "u3")
    assert refusal.reason == "LimitExceededError: messages.content: too long for this backend"
    await is_whole(dal, without=["c-7"])


async def test_a_lost_answer_is_looked_into_and_nothing_is_written_twice(
    dal: DataAccess, store: Unwilling, source: Path
) -> None:
    lost: list[int] = []

    def lose(ops: Sequence[Op]) -> None:
        if speaks_of(ops, "c-7") and not lost:
            lost.append(len(ops))
            raise UnavailableError("the connection was cut", outcome="unknown")

    store.after = lose
    report = await import_file(dal, source, batch_rows=BATCH_ROWS)
    assert lost
    assert report.refused == 0
    assert report.chats + report.unchanged == CHATS
    await is_whole(dal)


async def test_a_store_that_is_busy_is_asked_again(dal: DataAccess, store: Unwilling, source: Path) -> None:
    busy = [ConflictError("serialization failure", retryable=True), UnavailableError("no connection free")]

    def be_busy(ops: Sequence[Op]) -> None:
        if speaks_of(ops, "c-7") and busy:
            raise busy.pop()

    store.before = be_busy
    assert figures(await import_file(dal, source, batch_rows=BATCH_ROWS)) == (CHATS, 2 * CHATS, 0, 0)
    assert not busy
    await is_whole(dal)


async def test_a_store_that_went_away_ends_the_import_and_a_second_run_goes_on(
    dal: DataAccess, store: Unwilling, source: Path
) -> None:
    def be_gone(ops: Sequence[Op]) -> None:
        if speaks_of(ops, "c-7"):
            raise UnavailableError("the server is gone", retryable=False)

    store.before = be_gone
    with pytest.raises(UnavailableError, match="gone"):
        await import_file(dal, source, batch_rows=BATCH_ROWS)
    written = len((await dal.chats.list(limit=1000)).items)
    assert 0 < written < CHATS
    store.before = lambda _ops: None
    report = await import_file(dal, source, batch_rows=BATCH_ROWS)
    assert figures(report) == (CHATS - written, 2 * (CHATS - written), written, 0)
    await is_whole(dal)


async def test_a_chat_made_by_somebody_else_meanwhile_is_compared_not_overwritten(
    dal: DataAccess, store: Unwilling, source: Path
) -> None:
    inner = DataAccess(store.inner)
    raced: list[str] = []

    async def race() -> None:
        await inner.chats.create("c-7")
        await inner.messages.add("c-7", "user", "somebody else's")

    commit = store.commit

    async def commit_late(ops: Sequence[Op]) -> Receipt:
        if speaks_of(ops, "c-7") and not raced:
            raced.append("c-7")
            await race()
        return await commit(ops)

    store.commit = commit_late  # type: ignore[method-assign]
    report = await import_file(dal, source, batch_rows=BATCH_ROWS)
    assert figures(report) == (CHATS - 1, 2 * (CHATS - 1), 0, 1)
    assert "message 1 differs" in report.refusals[0].reason
    assert [m.content for m in await dal.messages.history("c-7")] == ["somebody else's"]
