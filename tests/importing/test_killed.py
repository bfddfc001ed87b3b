"""An import killed with SIGKILL again and again, and then run to its end: nothing lost, nothing twice, nothing half."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from dal import DataAccess, create_data_access
from dal.importing import import_file
from dal.ops import JsonValue
from tests.importing.sources import conversation, write

KILLS = 12
CHATS = 150
BATCH_ROWS = 40


def source(path: Path) -> tuple[Path, dict[str, list[str]]]:
    chooser = random.Random(7)
    texts = {
        f"c-{n}": [f"{n} {m} 鶏肉 " + "x" * chooser.randrange(500) for m in range(1 + n % 9)] for n in range(CHATS)
    }
    records: list[JsonValue | bytes] = [conversation(c, *t, user=f"u{len(t)}") for c, t in texts.items()]
    return write(path, records), texts


def run_and_kill(url: str, path: Path, after_batches: int, delay_s: float) -> int:
    """Starts the import and kills it a moment after so many batches with something new: messages acknowledged."""
    written = news = 0
    timer: threading.Timer | None = None
    with subprocess.Popen(
        [sys.executable, "-m", "tests.importing.child", url, str(path), str(BATCH_ROWS)],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            phase, _, count = line.strip().partition(" ")
            if phase == "load":
                news += int(count) > written
                written = int(count)
            if news == after_batches and timer is None:
                timer = threading.Timer(delay_s, process.kill)
                timer.start()
    if timer is not None:
        timer.cancel()
        timer.join()
    return written


async def stored(dal: DataAccess, chat_ids: Sequence[str]) -> dict[str, list[str]]:
    """The chats that are there with their messages' texts, numbers checked."""
    found: dict[str, list[str]] = {}
    for chat_id in chat_ids:
        chat = await dal.chats.get(chat_id)
        if chat is not None:
            messages = [m async for m in dal.messages.iterate(chat_id)]
            assert [m.sequence_number for m in messages] == list(range(1, chat.message_count + 1))
            found[chat_id] = [m.content for m in messages]
    return found


async def test_an_import_killed_at_any_time_leaves_whole_conversations_and_goes_on(
    backend: str, url: str, tmp_path: Path
) -> None:
    if backend == "memory":
        pytest.skip("a store in memory does not outlive its process")
    path, texts = source(tmp_path / "source")
    chooser = random.Random()
    seed = chooser.randrange(2**32)
    print(f"seed {seed}")
    chooser.seed(seed)
    acknowledged = 0
    for _ in range(KILLS):
        acknowledged += run_and_kill(url, path, chooser.randint(1, 3), chooser.uniform(0, 0.03))
        async with create_data_access(url) as dal:
            found = await stored(dal, list(texts))
        assert all(found[chat_id] == texts[chat_id] for chat_id in found), "half a conversation"
        assert sum(map(len, found.values())) >= acknowledged, "an acknowledged message is lost"
    async with create_data_access(url) as dal:
        last = await import_file(dal, path)
        assert last.refused == 0
        assert last.chats + last.unchanged == CHATS
        assert await stored(dal, list(texts)) == texts
        assert len((await dal.users.list(limit=100)).items) == 9
        assert len((await dal.messages.search("肉", limit=1000)).items) == sum(map(len, texts.values()))
