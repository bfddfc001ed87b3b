"""The tables of files in a file store: each has a directory within that of files, and goes through a move with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from dal.backends.file import FileStore
from dal.errors import CorruptDataError, FencedError
from dal.ops import Compare, Delete, Insert, Op, Select, Update
from dal.replica import UNITS, Gate, Replica
from dal.tables import TABLES
from dal.testing import rows

ID: Final = rows.row_id
GATES: Final = [Gate(unit, "m1", "source", "primary", 1, 2, "CAPTURE") for unit in UNITS]
RECENT: Final = Select("file_access_logs", order=("-created_at", "-id"))


async def _opened(directory: Path) -> FileStore:
    store = FileStore(directory)
    await store.open()
    return store


def _only(directory: Path, pattern: str) -> Path:
    (path,) = directory.glob(pattern)
    return path


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


async def _changed(replica: Replica) -> dict[tuple[str, int], bool]:
    """What is dirty, by table and number, and whether it is gone."""
    found = [entry for table in TABLES for entry in await replica.dirty(table, 1000)]
    return {(entry.table, rows.number_of(entry.id)): entry.row is None for entry in found}


async def test_all_of_it_is_watched_put_away_and_brought_back_together(tmp_path: Path) -> None:
    store = await _opened(tmp_path)
    made: list[Op] = [
        Insert("users", rows.user(1)),
        Insert("files", rows.file(50, 1)),
        Insert("file_permissions", rows.whole("file_permissions", 51, file_id=ID(50))),
        Insert("multipart_uploads", rows.whole("multipart_uploads", 52, user_id=ID(1))),
        Insert("multipart_parts", rows.whole("multipart_parts", 53, upload_id=ID(52), part_number=1)),
        Insert("user_quotas", rows.whole("user_quotas", 54, user_id=ID(1))),
        *(Insert("file_access_logs", rows.whole("file_access_logs", n)) for n in (55, 56)),
        *(Insert(name, rows.whole(name, 57)) for name in ("file_processing_queue", "file_contents", "storage_metrics")),
        *(Insert(name, rows.whole(name, 57)) for name in ("pricing_tiers", "cost_tracking")),
    ]
    await store.commit(made)
    replica = store.replica()
    await replica.install(GATES)
    assert sorted(path.name for path in (tmp_path / "files").iterdir() if len(path.name) > 2) == [
        *("access", "contents", "costs", "metrics", "parts", "permissions", "prices", "queue", "quotas", "uploads")
    ]

    _edit(_only(tmp_path, f"files/quotas/*/{ID(1)}.json"), max_bytes=7)
    parts = _only(tmp_path, f"files/parts/*/{ID(52)}.json")
    items: list[dict[str, Any]] = json.loads(parts.read_text())["items"]
    _edit(parts, items=[*items, items[0] | {"id": ID(58), "part_number": 2}])
    _only(tmp_path, f"files/permissions/*/{ID(50)}.json").unlink()
    day = _only(tmp_path, "files/access/*.jsonl")
    with day.open("a") as file:
        file.write(json.dumps(json.loads(day.read_text().splitlines()[0]) | {"id": ID(59)}, ensure_ascii=False) + "\n")
    assert await replica.rescan() == 6
    assert await _changed(replica) == {
        ("user_quotas", 54): False,
        ("multipart_parts", 58): False,
        ("file_permissions", 51): True,
        **{("file_access_logs", n): False for n in (55, 56, 59)},
    }

    before = await rows.everything(store)
    assert await replica.change_gate("files", expect={"role": "primary"}, change={"role": "fenced"})
    assert (tmp_path / "files").is_file()
    assert (tmp_path / "fenced" / "files" / "quotas").is_dir()
    with pytest.raises(FencedError):
        await store.commit([Update("user_quotas", {"user_id": ID(1)}, add={"taken_bytes": -1})])
    assert await rows.everything(store) == before
    await store.close()

    store = await _opened(tmp_path)
    assert await rows.everything(store) == before
    assert await store.replica().change_gate("files", expect={}, change={"role": "primary", "epoch": 1})
    await store.commit([Insert("file_access_logs", rows.whole("file_access_logs", 60))])
    await store.commit([Delete("file_access_logs", (Compare("id", "=", ID(55)),))])
    await store.close()
    assert ID(60) in day.read_text()
    assert ID(55) not in day.read_text()
    for path in (tmp_path / "cache").iterdir():
        path.unlink()
    store = await _opened(tmp_path)
    assert await rows.numbers(store, RECENT) == [60, 56, 59]
    of_id = Select("file_access_logs", (Compare("id", "=", ID(56)),))
    assert await rows.numbers(store, of_id) == [56]
    assert await rows.everything(store) == before | {
        "file_access_logs": (await rows.everything(store))["file_access_logs"]
    }
    await store.close()


async def test_a_damaged_quota_is_named_and_never_taken_for_none(tmp_path: Path) -> None:
    store = await _opened(tmp_path)
    await store.commit(
        [Insert("users", rows.user(1)), Insert("user_quotas", rows.whole("user_quotas", 2, user_id=ID(1)))]
    )
    await store.close()
    path = _only(tmp_path, "files/quotas/*/*.json")
    path.write_bytes(path.read_bytes()[:40])
    store = await _opened(tmp_path)
    (problem,) = [text for text in (await store.health()).parts["problems"] if "files/quotas/" in str(text)]  # type: ignore[union-attr]
    with pytest.raises(CorruptDataError, match=path.name):
        await store.read(Select("user_quotas", (Compare("user_id", "=", ID(1)),)))
    assert "not whole JSON" in str(problem)
    await store.close()
