"""The line file of a chat whose key changes, on its way to its new name: never missed, and never left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Iterator
from itertools import combinations_with_replacement
from pathlib import Path

import pytest

from dal.backends.file import FileStore, faults, linerows
from dal.backends.file.image import Image
from dal.backends.file.index import Index
from dal.backends.file.layout import Layout
from dal.backends.file.lines import LineFile
from dal.backends.file.registry import Registry
from dal.backends.file.registry_files import RegistryFiles
from dal.backends.rows import Change, encode
from dal.ops import Compare, Count, Delete, Insert, Update
from dal.tables import CHAT_SESSIONS
from dal.testing import rows

#: A checkpoint moves the file twice: before a reader's first look, its second, … or after all of them.
MOMENTS = list(combinations_with_replacement(range(4), 2))


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    yield
    faults.hook = None


@pytest.mark.parametrize("moments", MOMENTS, ids=str)
def test_a_reader_finds_the_messages_whenever_a_checkpoint_moves_them(
    moments: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    layout.prepare(create=True)
    image = Image(layout, Index(layout.index), Registry(RegistryFiles(layout, 1.0).file))
    for key in ("earlier", "present"):
        row = encode(CHAT_SESSIONS, rows.chat(1, chat_id=key))
        image.apply([Change("chat_sessions", rows.row_id(1), row)])
    stations = [layout.messages("earlier"), layout.moving_messages(rows.row_id(1)), layout.messages("present")]
    for path in stations:
        path.parent.mkdir(parents=True, exist_ok=True)
    stations[0].write_text(f'{{"chat_session_id":"{rows.row_id(1)}"}}\n')
    looks = 0

    class WatchedFile(LineFile):
        def __init__(self, path: Path) -> None:
            nonlocal looks
            for moment, source, target in zip(moments, stations, stations[1:], strict=False):
                if moment == looks:
                    source.rename(target)
            looks += 1
            super().__init__(path)

    monkeypatch.setattr(linerows, "LineFile", WatchedFile)
    file = image.messages.open(rows.row_id(1))
    assert file is not None
    file.__exit__()
    image.index.close()


async def test_messages_deleted_while_their_file_was_on_its_way_are_deleted_for_good(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    await store.open()
    await store.commit([Insert("chat_sessions", rows.chat(1))])
    await store.commit(rows.append(2, 1))
    await store.close()

    is_cut_short = threading.Event()

    def cut_short(point: str) -> None:
        if point == "checkpoint.moving":
            is_cut_short.set()
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    await store.open()
    faults.hook = cut_short
    await store.commit([Update("chat_sessions", {"id": rows.row_id(1)}, {"chat_id": "renamed"})])
    await store.close()
    assert len(list((tmp_path / "store/chats/moving").iterdir())) == 1
    is_cut_short.clear()
    await store.open()
    assert await asyncio.to_thread(is_cut_short.wait, 60), "opening begins the checkpoint again"
    await store.commit([Delete("chat_sessions", (Compare("id", "=", rows.row_id(1)),))])
    faults.hook = None
    await store.close()
    assert list((tmp_path / "store/chats/moving").iterdir()) == []
    await store.open()
    await store.commit([Insert("chat_sessions", rows.chat(1))])
    await store.commit([Update("chat_sessions", {"id": rows.row_id(1)}, {"chat_id": "renamed"})])
    assert await store.read(Count("messages")) == [(0,)]
    await store.close()
