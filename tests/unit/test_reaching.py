"""Who waits for an event that a task is to set learns what the task has failed with, and does not wait for ever."""

from __future__ import annotations

import asyncio

import pytest

from dal.testing.reaching import reached


async def test_an_event_that_work_sets_is_waited_for_and_the_work_goes_on() -> None:
    event, go_on = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        await asyncio.sleep(0)
        event.set()
        await go_on.wait()
        return "done"

    working = asyncio.create_task(work())
    await reached(event, working)
    assert not working.done()
    go_on.set()
    assert await working == "done"


async def test_an_event_that_nobody_sets_any_more_is_not_waited_for() -> None:
    async def fails() -> None:
        raise RuntimeError("a deadline has passed")

    async def ends() -> None:
        pass

    with pytest.raises(RuntimeError, match="a deadline"):
        await reached(asyncio.Event(), asyncio.create_task(fails()))
    with pytest.raises(AssertionError, match="without that"):
        await reached(asyncio.Event(), asyncio.create_task(ends()))
