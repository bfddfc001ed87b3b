"""An instance's own changes, carried to the replica at once: a hint that keeps the lag short, never a promise.

Keys of rows that this instance wrote are collected and copied in the background, the way the mover copies, for a fifth
of the time at most. Nobody waits for it: whatever is not pushed, because the replica is down or the queue is full,
stays dirty and the mover does it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final

from dal.errors import DalError
from dal.limits import MOVE_BATCH_ROWS, PUSH_MAX_PAUSE_S, PUSH_PAUSE_S, PUSH_QUEUE_KEYS, PUSH_REST
from dal.move.relay import copy_keys
from dal.move.routes import Routes
from dal.move.sides import SIDES, Sides, other
from dal.ops import Compare, Delete, Insert, Op, Update, Upsert
from dal.replica import UNIT_OF, UNITS, Key

_LOG: Final = logging.getLogger("dal.move")


class Pusher:
    """Copies the keys it is given, in batches, one at a time."""

    def __init__(self, routes: Routes, sides: Callable[[], Awaitable[Sides]]) -> None:
        self._routes = routes
        self._sides = sides
        self._keys: dict[Key, None] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, ops: Sequence[Op]) -> None:
        """Remembers what these operations, which were committed, have changed."""
        if len(self._keys) < PUSH_QUEUE_KEYS:
            self._keys.update(dict.fromkeys(keys_of(ops)))
        if self._keys and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._push_all())
            self._task.add_done_callback(self._ended)

    async def push(self, keys: Iterable[Key]) -> None:
        """Copies these rows now, from wherever they live to the other side. Raises errors of dal.errors."""
        sides = await self._sides()
        wanted = list(keys)
        for side in SIDES:
            here = [key for key in wanted if self._routes.holder(UNIT_OF[key.table]) == side]
            if here:
                units = frozenset(unit for unit in UNITS if self._routes.holder(unit) == side)
                await copy_keys(sides.at(side), sides.at(other(side)), here, units)

    async def _push_all(self) -> None:
        while self._keys:
            batch = list(self._keys)[:MOVE_BATCH_ROWS]
            for key in batch:
                del self._keys[key]
            began = monotonic()
            await self.push(batch)
            # What is written meanwhile shares the next copy, and writers that come thick and fast are not held up.
            took_s = monotonic() - began
            await asyncio.sleep(min(max(PUSH_PAUSE_S, took_s * PUSH_REST), PUSH_MAX_PAUSE_S))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._keys.clear()
            if not isinstance(error, DalError):
                _LOG.error("pushing changes to the replica failed", exc_info=error)

    async def close(self) -> None:
        """Stops; what was not pushed is the mover's."""
        self._keys.clear()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError, DalError):
                await self._task


def keys_of(ops: Sequence[Op]) -> list[Key]:
    """The rows that operations name by their id. Those named otherwise are left to the mover."""
    keys: list[Key] = []
    for op in ops:
        match op:
            case Insert() | Upsert():
                found = op.row.get("id")
            case Update():
                found = op.key.get("id")
            case Delete(where=(Compare(column="id", op="=", value=value), *_)):
                found = value  # type: ignore[assignment]
            case _:
                found = None
        if isinstance(found, str):
            keys.append(Key(op.table, found))
    return keys
