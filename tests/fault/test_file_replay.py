"""A crash while documents are ahead of the journal's position: the journal is replayed over rows that are later."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path

import pytest

from dal.backends.file import FileStore, faults
from dal.ops import Compare, Delete, Insert, Op, Select, Update
from dal.testing import rows

LONG = "x" * 10_000
KEY = Select("chat_sessions", (Compare("chat_id", "=", "again"),), columns=("id",))


async def test_a_chat_made_anew_under_a_deleted_ones_key_outlives_a_crash_in_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed = tmp_path / "crashed"

    def copy(reached: str) -> None:
        if reached == "checkpoint.indexing" and not crashed.exists():
            shutil.copytree(tmp_path / "store", crashed)

    store = FileStore(tmp_path / "store")
    await store.open()
    await store.commit([Insert("chat_sessions", rows.chat(1, chat_id="again"))])
    await store.commit([Update("chat_sessions", {"id": rows.row_id(1)}, {"title": "once"})])
    await store.commit([Delete("chat_sessions", (Compare("id", "=", rows.row_id(1)),))])
    await store.commit([Insert("chat_sessions", rows.chat(2, chat_id="again"))])
    monkeypatch.setattr(faults, "hook", copy)
    await store.close()
    monkeypatch.undo()

    for look in range(2):
        again = FileStore(crashed)
        await again.open()
        assert await again.read(KEY) == [(rows.row_id(2),)]
        await again.commit([Update("chat_sessions", {"chat_id": "again"}, {"title": f"look {look}"})])
        await again.close()


class Behind:
    """A store whose documents hold more than the segments that were settled with them, and a copy as a crash leaves it.

    A checkpoint takes up what waits in whole segments, and writes its documents as they are by then.
    """

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = FileStore(directory / "store", segment_bytes=len(LONG))
        self.crashed = directory / "crashed"
        self._monkeypatch = monkeypatch
        self._is_held, self._may_go_on, self._is_copied = threading.Event(), threading.Event(), threading.Event()

    def _stop(self, reached: str) -> None:
        if reached != "checkpoint.indexed" or self._is_copied.is_set():
            return
        if not self._is_held.is_set():
            self._is_held.set()
            self._may_go_on.wait(60)
        else:
            shutil.copytree(self.store._layout.root, self.crashed)
            self._is_copied.set()

    async def write(self, settled: Op, *later: Op) -> None:
        """Writes these while a checkpoint is under way; the next one settles the first of them, and finds all."""
        await self.store.close()
        await self.store.open()
        self._monkeypatch.setattr(faults, "hook", self._stop)
        await self.store.commit([Insert("users", rows.user(8, profile={"is": LONG}))])  # fills a segment
        assert await asyncio.to_thread(self._is_held.wait, 60)
        await self.store.commit([settled, Insert("users", rows.user(9, profile={"is": LONG}))])  # and another
        for op in later:
            await self.store.commit([op])
        self._may_go_on.set()
        assert await asyncio.to_thread(self._is_copied.wait, 60)
        await self.store.close()
        self._monkeypatch.undo()


@pytest.fixture
def behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Behind:
    return Behind(tmp_path, monkeypatch)


@pytest.mark.parametrize(("gone", "heir"), [(1, 2), (2, 1)], ids=["the heir's document is read first", "and last"])
async def test_a_deleted_user_whose_key_another_took_over_stays_gone_after_a_crash(
    gone: int, heir: int, behind: Behind
) -> None:
    await behind.store.open()
    users = [rows.user(gone, clerk_id="taken over"), rows.user(heir)]
    await behind.store.commit([Insert("users", row) for row in users])
    await behind.write(
        Update("users", {"id": rows.row_id(heir)}, {"name": "heir"}),
        Delete("users", (Compare("id", "=", rows.row_id(gone)),)),
        Update("users", {"id": rows.row_id(heir)}, {"clerk_id": "taken over"}),
    )

    again = FileStore(behind.crashed)
    await again.open()
    there = [rows.row_id(heir), rows.row_id(8), rows.row_id(9)]
    assert await again.read(Select("users", columns=("id",), order=("id",))) == [(row_id,) for row_id in there]
    assert (await again.health()).parts["damaged"] == []
    await again.close()
    assert sorted(path.stem for path in behind.crashed.glob("users/*/*.json")) == there


@pytest.mark.parametrize(("was", "now"), [("one", "two"), ("two", "one")])
async def test_a_chat_that_took_over_the_key_of_a_deleted_one_is_there_once_after_a_crash(
    was: str, now: str, behind: Behind
) -> None:
    await behind.store.open()
    chats = [rows.chat(1, chat_id=was), rows.chat(2, chat_id=now)]
    await behind.store.commit([Insert("chat_sessions", row) for row in chats])
    await behind.store.commit(rows.append(3, 1))
    await behind.write(
        Update("chat_sessions", {"id": rows.row_id(2)}, {"title": "about to go"}),
        Delete("chat_sessions", (Compare("id", "=", rows.row_id(2)),)),
        Update("chat_sessions", {"id": rows.row_id(1)}, {"chat_id": now}),
    )

    again = FileStore(behind.crashed)
    await again.open()
    for _ in range(2):
        assert await again.read(Select("chat_sessions", columns=("id", "chat_id"))) == [(rows.row_id(1), now)]
        assert await again.read(Select("messages", columns=("id",))) == [(rows.row_id(3),)]
        assert (await again.health()).parts["damaged"] == []
        await again.close()
        assert [path.stem for path in behind.crashed.glob("chats/*/*.json*")] == [now] * 2
        await again.open()
    await again.close()
