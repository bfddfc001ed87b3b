"""Many processes and one chat: 1…n without a gap or a repeat, nothing lost, and readers that see a growing prefix."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dal import create_data_access
from tests.concurrency.worker import CHAT

ROOT = Path(__file__).parents[2]
#: How long all processes together may take before the test gives them up.
PATIENCE_S = 120


def together(url: str, roles: Sequence[tuple[str, int]]) -> list[list[int]]:
    """What each process printed, started at the same moment."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.concurrency.worker", url, role, f"p{place}", str(count)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for place, (role, count) in enumerate(roles)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            if worker.stdout.readline() != "ready\n":
                raise AssertionError(worker.communicate(timeout=PATIENCE_S)[1])
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        told: list[list[int]] = []
        for worker, (role, _) in zip(workers, roles, strict=True):
            output, errors = worker.communicate(timeout=PATIENCE_S)
            assert worker.returncode == 0, f"{role}: {errors[-2000:]}"
            told.append(json.loads(output))
        return told
    finally:
        for worker in workers:
            worker.kill()
            with worker:  # waits, and closes the pipes
                pass


async def prepare(url: str) -> None:
    async with create_data_access(url) as dal:
        await dal.chats.create(CHAT)
        await dal.users.create(clerk_id="counter", profile={"done": 0})


async def check(url: str, told: list[int], total: int, *, transactions: int = 0) -> None:
    """Every number was given once, and every message is there under the number its writer was told."""
    assert sorted(told) == list(range(1, total + 1))
    async with create_data_access(url) as dal:
        found = [message async for message in dal.messages.iterate(CHAT)]
        assert [message.sequence_number for message in found] == list(range(1, total + 1))
        assert len({message.content for message in found}) == total
        chat, counter = await dal.chats.get(CHAT), await dal.users.get_by_clerk_id("counter")
        assert chat is not None
        assert counter is not None
        assert chat.message_count == total
        assert counter.profile == {"done": transactions}
        for name in {message.content.split()[0] for message in found}:
            mine = [int(message.content.split()[1]) for message in found if message.content.startswith(f"{name} ")]
            assert sorted(mine) == list(range(len(mine)))


async def test_eight_processes_append_to_one_chat(shared_url: str) -> None:
    await prepare(shared_url)
    told = together(shared_url, [("append", 40)] * 8)
    assert all(len(numbers) == 40 for numbers in told)
    await check(shared_url, [number for numbers in told for number in numbers], 320)


async def test_appends_batches_transactions_and_readers_mix(shared_url: str) -> None:
    await prepare(shared_url)
    writers = [("append", 24), ("append", 24), ("many", 24), ("many", 24), ("transaction", 12), ("transaction", 12)]
    total = sum(count for _, count in writers)
    told = together(shared_url, [*writers, ("read", total), ("read", total)])
    *written, first_looks, second_looks = told
    assert first_looks[0] > 1
    assert second_looks[0] > 1
    await check(shared_url, [number for numbers in written for number in numbers], total, transactions=12)
