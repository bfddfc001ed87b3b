"""Threads for work that waits for a disk: results, errors, cancellation, and nothing that is held on to."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from dal.blobs.threads import Threads

_LONG_S = 20.0


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    threads = Threads(3)
    yield threads
    await threads.close()


class Thing:
    """Something that can be seen to be gone."""


async def test_results_and_errors_come_back(threads: Threads) -> None:
    assert await threads.run(divmod, 7, 2) == (3, 1)
    assert await threads.run(int, "ff", base=16) == 255
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 1, 0)
    assert await threads.run(threading.get_ident) != threading.get_ident()


async def test_so_many_calls_run_at_once_and_no_more(threads: Threads) -> None:
    together, names = threading.Barrier(3), set()

    def meet() -> None:
        together.wait(_LONG_S)
        names.add(threading.current_thread())

    await asyncio.gather(*(threads.run(meet) for _ in range(9)))
    assert len(names) == 3


async def test_one_call_after_the_other_takes_one_thread(threads: Threads) -> None:
    assert len({await threads.run(threading.get_ident) for _ in range(20)}) == 1


async def test_a_cancelled_call_ends_when_its_thread_has(threads: Threads) -> None:
    begun, may_end, has_ended = threading.Event(), threading.Event(), False

    def work() -> None:
        nonlocal has_ended
        begun.set()
        may_end.wait(_LONG_S)
        has_ended = True

    task = asyncio.create_task(threads.run(work))
    await asyncio.sleep(0)
    assert begun.wait(_LONG_S)
    for _ in range(2):  # impatience does not help
        task.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert has_ended


async def test_closing_waits_for_what_is_under_way_and_what_comes_later_begins_afresh(threads: Threads) -> None:
    begun, may_end, order = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        may_end.wait(_LONG_S)
        order.append("work")

    async def close() -> None:
        await threads.close()
        order.append("closed")

    working = asyncio.create_task(threads.run(work))
    await asyncio.sleep(0)
    assert begun.wait(_LONG_S)
    closing = asyncio.create_task(close())
    for _ in range(3):
        await asyncio.sleep(0)
    may_end.set()
    await asyncio.gather(working, closing)
    assert order == ["work", "closed"]
    assert await threads.run(int, "7") == 7


async def test_threads_end_with_their_owner() -> None:
    threads = Threads(3)
    thread = await threads.run(threading.current_thread)
    del threads
    thread.join(_LONG_S)
    assert not thread.is_alive()


async def test_nothing_of_a_call_is_held_on_to(threads: Threads) -> None:
    def fail(thing: Thing) -> None:
        raise LookupError(thing)

    gc.disable()
    try:
        for function in (id, fail):
            thing, gone = Thing(), threading.Event()
            weakref.finalize(thing, gone.set)
            with suppress(LookupError):
                await threads.run(function, thing)
            del thing
            assert gone.wait(_LONG_S), "the thread, which waits for the next call, holds the last one"
    finally:
        gc.enable()
