"""Shadow reads: some of an application's reads are asked of the replica too, in the background, and compared.

A difference counts only when it stays: rows whose versions differ, or that were not copied yet, are on their way.
Results are added up in the notes of the unit's gate, where `dal move status` shows them. A read that is compared costs
its caller nothing; when SHADOW_READS are being compared, the next ones are not.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final

from dal.errors import DalError
from dal.limits import SHADOW_READS, SHADOW_REPORT_EVERY_S, SHADOW_SETTLE_S, SHADOW_TRIES
from dal.move.canonical import canonical, canonical_document
from dal.move.routes import Routes
from dal.move.sides import Side, Sides, other
from dal.ops import JsonValue, Query, Row, Select
from dal.replica import UNIT_OF, Replica
from dal.store import Store
from dal.tables import TABLES

_LOG: Final = logging.getLogger("dal.move")


class Shadow:
    """Compares reads of one instance.

    store_at  an open store by its side.   sides  the replicas.   dice  decides which reads are compared.
    """

    def __init__(
        self,
        routes: Routes,
        store_at: Callable[[Side], Awaitable[Store]],
        sides: Callable[[], Awaitable[Sides]],
        *,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._routes = routes
        self._store_at = store_at
        self._sides = sides
        self._dice = dice
        self._tasks: set[asyncio.Task[None]] = set()
        self._counts: dict[str, list[int]] = {}
        self._reported_at = monotonic()

    def note(self, query: Query, rows: Sequence[Row]) -> None:
        """Remembers a read and its answer; compares it, if the unit's gate and the dice say so."""
        gates = self._routes.now(UNIT_OF[query.table])
        if gates is None or not gates.source.shadow_percent or gates.primary is None:
            return
        if self._dice() * 100 >= gates.source.shadow_percent or len(self._tasks) >= SHADOW_READS:
            return
        task = asyncio.get_running_loop().create_task(self._compare(query, list(rows), gates.primary))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def _compare(self, query: Query, rows: list[Row], side: Side) -> None:
        unit = UNIT_OF[query.table]
        counts = self._counts.setdefault(unit, [0, 0, 0])
        primary, replica = await self._store_at(side), await self._store_at(other(side))
        sides = await self._sides()
        for _ in range(SHADOW_TRIES):
            there = await replica.read(query)
            if _form(query, rows) == _form(query, there):
                counts[0] += 1
                break
            before = rows
            if await self._is_settled(query, rows, there, sides, side):
                # What was read so far is of different moments. It differs if it still does, and the primary's answer
                # has not changed from before this look to after it.
                there = await replica.read(query)
                rows = await primary.read(query)
                if _form(query, rows) == _form(query, before) != _form(query, there):
                    counts[0] += 1
                    counts[1] += 1
                    _LOG.warning("shadow read: %s differs between the stores; run dal check", query.table)
                    break
            await asyncio.sleep(SHADOW_SETTLE_S)
            if self._routes.holder(unit) != side:
                break  # switched meanwhile: the roles are no longer what they were
            rows = await primary.read(query)
        else:
            counts[2] += 1  # its rows changed all the time
        if monotonic() - self._reported_at > SHADOW_REPORT_EVERY_S:
            await self.report()

    async def _is_settled(
        self, query: Query, rows: Sequence[Row], there: Sequence[Row], sides: Sides, side: Side
    ) -> bool:
        """Whether nothing that the answers speak of is on its way: what differs then is a difference."""
        primary, replica = sides.at(side), sides.at(other(side))
        if not isinstance(query, Select) or query.columns:
            return not await primary.dirty(query.table, 1)
        ids = list(dict.fromkeys(str(row[0]) for row in (*rows, *there)))
        return await _same_versions(primary, replica, query.table, ids) and not await primary.dirty(query.table, 1)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, DalError):
            _LOG.error("a shadow read failed", exc_info=error)

    async def report(self) -> None:
        """Adds what was counted since the last report to the notes of each unit's gate."""
        self._reported_at = monotonic()
        store = (await self._sides()).source
        for unit, counts in self._counts.items():
            if not any(counts):
                continue
            gate = (await store.gates()).get(unit)
            if gate is None:
                continue
            notes: dict[str, JsonValue] = json.loads(gate.notes)
            before = notes.get("shadow")
            sums = before if isinstance(before, dict) else {}
            names = ("compared", "different", "unsettled")
            notes["shadow"] = {name: _number(sums.get(name)) + counts[place] for place, name in enumerate(names)}
            if await store.change_gate(
                unit, expect={"notes": gate.notes}, change={"notes": json.dumps(notes, sort_keys=True)}
            ):
                self._counts[unit] = [0, 0, 0]

    async def close(self) -> None:
        """Ends comparisons under way and reports what there is."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if any(any(counts) for counts in self._counts.values()):
            with suppress(DalError):
                await self.report()


async def _same_versions(primary: Replica, replica: Replica, table: str, ids: Sequence[str]) -> bool:
    ours = {entry.id: entry.version for entry in await primary.registered(table, ids)}
    theirs = {entry.id: entry.version for entry in await replica.registered(table, ids)}
    return ours == theirs


def _form(query: Query, rows: Sequence[Row]) -> list[bytes]:
    """An answer as it compares: by content, and by order where the query asks for one."""
    if isinstance(query, Select) and not query.columns:
        table = TABLES[query.table]
        found = [canonical(table, row) for row in rows]
    else:
        found = [canonical_document([str(value) for value in row]) for row in rows]
    return found if not isinstance(query, Select) or query.order else sorted(found)


def _number(value: JsonValue) -> int:
    return value if isinstance(value, int) else 0
