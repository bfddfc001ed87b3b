"""Batches side by side: how many, which never, and what becomes of the others when one fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dal.importing.lanes import Lanes

Work = Callable[[], Awaitable[None]]


class Stage:
    """Pieces of work that end when they are told to."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.ended: list[str] = []
        self.cancelled: list[str] = []
        self._gates: dict[str, asyncio.Event] = {}

    def work(self, name: str, error: Exception | None = None) -> Work:
        gate = self._gates[name] = asyncio.Event()

        async def run() -> None:
            self.running.append(name)
            try:
                await gate.wait()
            except asyncio.CancelledError:
                self.cancelled.append(name)
                raise
            finally:
                self.running.remove(name)
            if error is not None:
                raise error
            self.ended.append(name)

        return run

    def let_end(self, name: str) -> None:
        self._gates[name].set()


async def is_stuck(task: asyncio.Task[None]) -> bool:
    for _ in range(10):
        await asyncio.sleep(0)
    return not task.done()


async def test_no_more_than_the_width_run_at_once() -> None:
    stage = Stage()
    async with Lanes(2) as lanes:
        await lanes.start(stage.work("a"), {"a"})
        await lanes.start(stage.work("b"), {"b"})
        third = asyncio.create_task(lanes.start(stage.work("c"), {"c"}))
        assert await is_stuck(third)
        assert stage.running == ["a", "b"]
        stage.let_end("b")
        await third
        assert stage.running == ["a", "c"]
        for name in "ac":
            stage.let_end(name)
    assert stage.ended == ["b", "a", "c"]


async def test_work_that_shares_a_key_waits_for_the_other() -> None:
    stage = Stage()
    async with Lanes(5) as lanes:
        await lanes.start(stage.work("a"), {"x", "y"})
        await lanes.start(stage.work("b"), {"z"})
        await lanes.wait_for({"other"})
        waiting = asyncio.create_task(lanes.wait_for({"y"}))
        assert await is_stuck(waiting)
        stage.let_end("b")
        assert await is_stuck(waiting)
        stage.let_end("a")
        await waiting
    assert stage.ended == ["b", "a"]


async def test_an_error_comes_out_and_the_others_are_cancelled_and_over() -> None:
    stage = Stage()
    with pytest.raises(RuntimeError, match="broken"):
        async with Lanes(2) as lanes:
            await lanes.start(stage.work("a", RuntimeError("broken")), {"a"})
            await lanes.start(stage.work("b"), {"b"})
            stage.let_end("a")
            await lanes.start(stage.work("c"), {"c"})
    assert stage.cancelled == ["b"]
    assert stage.running == []


async def test_an_error_of_the_last_one_is_not_lost() -> None:
    stage = Stage()
    with pytest.raises(RuntimeError, match="broken"):
        async with Lanes(2) as lanes:
            await lanes.start(stage.work("a", RuntimeError("broken")), {"a"})
            stage.let_end("a")


async def test_cancelling_the_caller_cancels_all_of_it() -> None:
    stage = Stage()

    async def caller() -> None:
        async with Lanes(2) as lanes:
            await lanes.start(stage.work("a"), {"a"})
            await lanes.wait_for({"a"})

    task = asyncio.create_task(caller())
    assert await is_stuck(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.cancelled == ["a"]
    assert stage.running == []
