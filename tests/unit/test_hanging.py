"""A test that hangs says what its tasks wait for, through coroutines and asynchronous generators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO

from tests import hanging


async def test_what_a_task_waits_for_is_shown_from_its_outermost_frame_to_its_innermost() -> None:
    reached = asyncio.Event()

    async def waits() -> None:
        reached.set()
        await asyncio.Event().wait()

    @asynccontextmanager
    async def entered() -> AsyncIterator[None]:
        await waits()
        yield

    async def outermost() -> None:
        async with entered():
            raise AssertionError("it never gets here")

    task = asyncio.create_task(outermost(), name="the one that hangs")
    await reached.wait()

    out = StringIO()
    hanging.show_tasks(out)

    shown = out.getvalue().partition("the one that hangs")[2]
    places = [shown.index(f", in {name}\n") for name in ("outermost", "entered", "waits")]
    assert places == sorted(places)
    task.cancel()


def test_out_of_a_loop_nothing_is_shown() -> None:
    out = StringIO()

    hanging.show_tasks(out)

    assert not out.getvalue()
