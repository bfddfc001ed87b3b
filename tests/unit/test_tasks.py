"""A task that is to end does, also where it loses a cancellation on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

import pytest

from dal import tasks
from dal.blobs.counted import Counted
from dal.files import recording
from dal.files.recording import UsageRecorder
from dal.repositories.storage_metrics import StorageMetrics
from dal.tasks import end
from dal.values import now


async def test_a_task_that_takes_no_notice_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "CANCEL_AGAIN_S", 0.0)
    told = 0

    async def deaf() -> None:
        nonlocal told
        while told < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told += 1

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await end(task)
    assert told == 3


async def test_what_a_task_has_failed_with_is_left_in_it() -> None:
    async def fails() -> None:
        raise RuntimeError("its own affair")

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await end(task)
    assert isinstance(task.exception(), RuntimeError)


async def test_a_recorder_that_waits_for_a_connection_in_that_moment_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "CANCEL_AGAIN_S", 0.01)
    monkeypatch.setattr(recording, "USAGE_FLUSH_S", 0.0)
    asked, free = asyncio.Event(), asyncio.Event()

    class Metrics:
        async def add(self, counts: Mapping[str, int], *, period: str) -> None:
            if not asked.is_set():
                asked.set()
                await asyncio.wait_for(free.wait(), 60)  # as a pool of connections does

    class Store:
        provider = "r2"

        def take(self) -> dict[str, int]:
            return {"class_a": 1}

    recorder = UsageRecorder(cast(StorageMetrics, Metrics()), [cast(Counted, Store())], now)
    recorder.start()
    await asked.wait()
    await asyncio.sleep(0)  # the wait begins
    free.set()
    await asyncio.sleep(0)  # the wait has ended, and nobody was told of it yet
    async with asyncio.timeout(10):
        await recorder.close()
