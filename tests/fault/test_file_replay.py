"""A crash while documents are ahead of the journal's position: the journal is replayed over rows that are later."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dal.backends.file import FileStore, faults
from dal.ops import Compare, Delete, Insert, Select, Update
from dal.testing import rows

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
