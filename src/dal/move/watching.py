"""Rows that seemed to differ, watched until they are equal or surely are not.

A difference between two live stores may be a row on its way, or two reads of different moments. So a pair that differs
is read again after a pause, the primary's side first, and counts as different only when it was seen twice without any
change, and in a move only when nobody has yet to copy it. What keeps changing is pending in the end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from itertools import groupby
from time import monotonic
from typing import NamedTuple, TypeAlias

from dal.limits import CHECK_LOOKS, CHECK_PAGE_ROWS, CHECK_PAUSE_S, CHECK_WATCHED_ROWS
from dal.move.canonical import digest
from dal.move.differences import Difference, Roles, is_in_flight, judge
from dal.move.reading import Reader
from dal.replica import Entry
from dal.tables import TABLES, Table

Sleep: TypeAlias = Callable[[float], Awaitable[None]]
Timer: TypeAlias = Callable[[], float]
#: Versions and contents of both sides of a pair.
_Seen: TypeAlias = tuple[int, bytes | None, int, bytes | None]


class Settled(NamedTuple):
    """What became of rows that were watched."""

    equal: int = 0
    pending: int = 0
    differences: tuple[Difference, ...] = ()


class _Watched(NamedTuple):
    table: str
    id: str
    seen: _Seen | None
    looks: int
    due: float


class Watch:
    """The rows of one check that are under suspicion.

    roles  of each table's unit, asked before every look; without an entry the table is in no move.
    """

    def __init__(
        self,
        readers: Callable[[Table], tuple[Reader, Reader]],
        roles: Callable[[], Awaitable[Mapping[str, Roles]]],
        *,
        pause_s: float = CHECK_PAUSE_S,
        timer: Timer = monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._readers = readers
        self._roles = roles
        self._pause_s = pause_s
        self.timer = timer
        self._sleep = sleep
        self._waiting: deque[_Watched] = deque()  # by the time they are due, for the pause is the same for all

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= CHECK_WATCHED_ROWS

    def add(self, table: Table, row_id: str) -> None:
        """Takes in a row that may differ: it is looked at soon, and again after a pause."""
        self._waiting.append(_Watched(table.name, row_id, None, 0, self.timer()))

    async def pause(self) -> None:
        """Waits as long as between two looks."""
        await self._sleep(self._pause_s)

    async def settle(self, *, wait: bool) -> dict[str, Settled]:
        """Looks again at the rows that are due; with `wait`, until none is left. What became of them, by table."""
        settled: dict[str, Settled] = {}
        while self._waiting:
            delay_s = self._waiting[0].due - self.timer()
            if delay_s > 0:
                if not wait:
                    break
                await self._sleep(delay_s)
                continue
            for table, found in (await self._look_at(self._due())).items():
                before = settled.get(table, Settled())
                settled[table] = Settled(
                    before.equal + found.equal,
                    before.pending + found.pending,
                    before.differences + found.differences,
                )
        return settled

    def _due(self) -> list[_Watched]:
        now = self.timer()
        due: list[_Watched] = []
        while self._waiting and self._waiting[0].due <= now and len(due) < CHECK_PAGE_ROWS:
            due.append(self._waiting.popleft())
        return due

    async def _look_at(self, due: list[_Watched]) -> dict[str, Settled]:
        roles = await self._roles()
        settled: dict[str, Settled] = {}
        for name, group in groupby(sorted(due, key=_table_of), key=_table_of):
            settled[name] = await self._look_at_table(TABLES[name], list(group), roles.get(name))
        return settled

    async def _look_at_table(self, table: Table, watched: list[_Watched], roles: Roles | None) -> Settled:
        source, target = self._readers(table)
        ids = [row.id for row in watched]
        if roles is not None and roles.primary == "target":
            theirs = await target.look(table, ids)
            ours = await source.look(table, ids)
        else:
            ours = await source.look(table, ids)
            theirs = await target.look(table, ids)
        equal = pending = 0
        differences: list[Difference] = []
        for row in watched:
            left, right = ours[row.id], theirs[row.id]
            verdict = judge(table, roles, left, right)
            if verdict == "equal":
                equal += 1
                continue
            seen = _seen(table, left, right)
            if verdict != "pending" and seen == row.seen:
                differences.append(verdict)
            elif row.looks + 1 >= CHECK_LOOKS or (verdict == "pending" and self._is_hopeless(roles, left, right)):
                pending += 1
            else:
                self._waiting.append(row._replace(seen=seen, looks=row.looks + 1, due=self.timer() + self._pause_s))
        return Settled(equal, pending, tuple(differences))

    def _is_hopeless(self, roles: Roles | None, source: Entry, target: Entry) -> bool:
        """Whether it is no use to wait for a copy: the backfill is not there yet, or far too many rows wait."""
        if roles is None:
            return False
        primary, replica = (source, target) if roles.primary == "source" else (target, source)
        return is_in_flight(roles, primary, replica) and (self.is_full or not roles.is_backfilled)


def _seen(table: Table, source: Entry, target: Entry) -> _Seen:
    ours = None if source.row is None else digest(table, source.row)
    theirs = None if target.row is None else digest(table, target.row)
    return source.version, ours, target.version, theirs


def _table_of(watched: _Watched) -> str:
    return watched.table
