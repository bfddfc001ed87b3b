"""The backfill: what was there when the move began, copied in the order of ids, and how many rows go at a time.

A row that has no entry in the registry has not changed since. It is copied at the lowest version of the epoch, and its
entry made when the copy is acknowledged, unless somebody has changed the row by then. Two pages are under way at a
time, but the gate's cursor goes on behind rows that have an entry only, so a mover that dies leaves nothing out, and
what it did twice does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from time import monotonic

from dal.limits import (
    MOVE_BACKFILL_S,
    MOVE_BATCH_S,
    MOVE_COPIES,
    MOVE_MIN_BATCH_ROWS,
    MOVE_READ_BYTES,
)
from dal.move.relay import CopyResult, copy
from dal.move.sides import Sides, UnitGates, read_gates
from dal.ops import Value
from dal.replica import TABLE_ORDER, UNIT_OF, UNITS, Gate, Unregistered


class Pace:
    """How many rows a copy takes at the moment: few at first, and fewer where they are large or the stores suffer."""

    def __init__(self, most_rows: int) -> None:
        self._most_rows = most_rows
        self.rows = max(1, most_rows // MOVE_COPIES)

    @property
    def page_rows(self) -> int:
        """How many are read at a time."""
        return MOVE_COPIES * self.rows

    def is_too_much(self, result: CopyResult, took_s: float) -> bool:
        """Whether a page of copies was larger, or took longer, than it should."""
        return took_s > MOVE_COPIES * MOVE_BATCH_S or result.size_bytes > MOVE_READ_BYTES

    def slow_down(self) -> None:
        self.rows = max(MOVE_MIN_BATCH_ROWS, self.rows // 2)

    def speed_up(self, factor: float) -> None:
        self.rows = min(self._most_rows, int(self.rows * factor) + 1)


class Backfill:
    """The backfill of one mover.

    copied  rows copied by table, to be added to.
    """

    def __init__(self, sides: Sides, pace: Pace, copied: dict[str, int]) -> None:
        self._sides = sides
        self._pace = pace
        self._copied = copied

    async def go_on(self, gates: Mapping[str, UnitGates]) -> bool:
        """Copies the next rows, parents first, for MOVE_BACKFILL_S; whether there is a backfill to go on with."""
        units = frozenset(unit for unit, found in gates.items() if found.holder == "source")
        until = monotonic() + MOVE_BACKFILL_S
        is_on = False
        for table in TABLE_ORDER:
            found = gates.get(UNIT_OF[table])
            if found is None or found.source.phase != "BACKFILL" or found.primary != "source":
                continue
            at, _, after = found.source.cursor.partition(":")
            tables = UNITS[found.source.unit]
            if at and tables.index(table) < tables.index(at):
                continue
            is_on = True
            if not await self._table(table, found.source, after if at == table else "", units, until):
                break
            gates = await read_gates(self._sides)
        return is_on

    async def _table(self, table: str, gate: Gate, after: str, units: frozenset[str], until: float) -> bool:
        """Copies the table from this id on; whether it came to the end of it in time. While a page is copied, the next
        one is begun and the one behind that is read: neither store waits for the other."""
        passing = asyncio.ensure_future(_now(gate.cursor))
        ahead = self._read(table, after)
        try:
            while True:
                page = await ahead
                before, passing = passing, asyncio.create_task(self._pass(gate, table, page, after, units, passing))
                is_last = not page.last or monotonic() >= until
                if not is_last:
                    ahead = self._read(table, page.last)
                if await before is None or is_last:
                    return await passing is not None and not page.last
                after = page.last
        finally:
            for task in (ahead, passing):
                task.cancel()
            await asyncio.gather(ahead, passing, return_exceptions=True)

    def _read(self, table: str, after: str) -> asyncio.Task[Unregistered]:
        return asyncio.create_task(self._sides.source.unregistered(table, after, self._pace.page_rows))

    async def _pass(
        self,
        gate: Gate,
        table: str,
        page: Unregistered,
        after: str,
        units: frozenset[str],
        before: Awaitable[str | None],
    ) -> str | None:
        """Copies a page, and moves the cursor behind it once it is behind the page before; the cursor as it is then,
        None where another mover has moved it."""
        await self._page(table, page, after, units)
        cursor = await before
        return None if cursor is None else await self._move_cursor(gate, table, cursor, page.last)

    async def _page(self, table: str, page: Unregistered, after: str, units: frozenset[str]) -> None:
        """Copies a page; what of it could not be copied is registered as dirty."""
        started = monotonic()
        result = await copy(self._sides.source, self._sides.target, page.entries, units, rows=self._pace.rows)
        self._copied[table] = self._copied.get(table, 0) + result.copied
        took_s = monotonic() - started
        if self._pace.is_too_much(result, took_s):
            self._pace.slow_down()
        elif took_s < MOVE_BATCH_S:
            self._pace.speed_up(2)
        # Rows that were in the way are counted too; whatever was blocked by them has an entry by now.
        is_left = result.overtaken or result.stuck or result.refused or result.different
        is_whole = result.copied >= len(page.entries) and not is_left
        while not is_whole:
            after = await self._sides.source.seed(table, after, len(page.entries))
            is_whole = not after or bool(page.last and after >= page.last)

    async def _move_cursor(self, gate: Gate, table: str, cursor: str, last: str) -> str | None:
        """Saves how far the backfill has come; the cursor as it is now, None where another mover has moved it."""
        tables = UNITS[gate.unit]
        if last:
            change: dict[str, Value] = {"cursor": f"{table}:{last}"}
        elif table != tables[-1]:
            change = {"cursor": f"{tables[tables.index(table) + 1]}:"}
        else:
            change = {"cursor": "", "phase": "SYNC"}
        expect: dict[str, Value] = {"phase": "BACKFILL", "cursor": cursor}
        is_moved = await self._sides.source.change_gate(gate.unit, expect=expect, change=change)
        return str(change["cursor"]) if is_moved else None


async def _now(cursor: str | None) -> str | None:
    return cursor
