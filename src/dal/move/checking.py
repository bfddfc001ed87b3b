"""Whether two stores hold the same, and if not, which rows differ and how.

Any two stores can be compared, while both are written to, in a move or not: `deep` reads every row of both sides. In a
move `quick` compares the registries instead, and `tail` only what was copied since rows were last found equal. What
seems to differ is watched before it is reported (dal.move.watching), so a row on its way is no difference; an error of
a store ends the check and is never taken for the end of its data.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from random import Random
from time import monotonic
from typing import Final, TypeAlias

from dal.errors import InvalidInputError, UnsupportedError
from dal.limits import CHECK_PAUSE_S
from dal.move import registries
from dal.move.check_report import CheckProgress, CheckReport, Mode, Place, TableResult
from dal.move.differences import Difference, Roles
from dal.move.orphans import Orphans
from dal.move.stores import Stores
from dal.move.walking import Pages, sample, walk
from dal.move.watching import Settled, Sleep, Timer, Watch
from dal.replica import UNIT_OF, UNITS
from dal.store import Store
from dal.tables import TABLES, Table
from dal.values import Clock, now

OnProgress: TypeAlias = Callable[[CheckProgress], None]
OnDifference: TypeAlias = Callable[[Difference], None]

EVERY_UNIT: Final = tuple(UNITS)


async def check(
    source: Store,
    target: Store,
    *,
    mode: Mode = "deep",
    units: Collection[str] = EVERY_UNIT,
    sampled: int | None = None,
    max_seconds: float | None = None,
    resume: CheckReport | None = None,
    mark: bool = False,
    random: Random | None = None,
    pause_s: float = CHECK_PAUSE_S,
    on_progress: OnProgress | None = None,
    on_difference: OnDifference | None = None,
    clock: Clock = now,
    timer: Timer = monotonic,
    sleep: Sleep = asyncio.sleep,
) -> CheckReport:
    """Compares two open stores: bare backends, for layers hide whether they are in a move.

    units          what is compared, by the names of UNITS.
    sampled        about so many rows of each table, at random places; deep only.
    max_seconds    stop soon after that and say where; `resume`, with the report, goes on from there. Deep only.
    mark           what was found equal counts as checked, and `tail` passes it over; it is written to the primary.
    pause_s        between two looks at a row that seems to differ.
    on_difference  is given every difference; the report keeps a few of each kind.
    Raises         UnsupportedError: `quick` or `tail` on stores that are in no move.  CorruptDataError: a stored value
                   cannot be understood.  UnavailableError: a store did not answer, again and again.
    """
    if unknown := [unit for unit in units if unit not in UNITS]:
        raise InvalidInputError(f"{', '.join(unknown)}: no such unit; there are {', '.join(UNITS)}")
    if not units:
        raise InvalidInputError(f"no unit to compare; there are {', '.join(UNITS)}")
    if mode != "deep" and (sampled is not None or max_seconds is not None or resume is not None):
        raise InvalidInputError(f"{mode}: only a deep check is sampled, bounded in time or resumed")
    stores = await Stores.of(source, target)
    watch = Watch(stores.readers, stores.roles, pause_s=pause_s, timer=timer, sleep=sleep)
    report = resume or CheckReport(mode=mode, began=clock(), sampled=sampled)
    report.in_move = tuple(unit for unit in UNITS if any(UNIT_OF[name] == unit for name in stores.moving))
    work = _Check(stores, report, watch, on_progress, on_difference)
    tables = [table for table in TABLES.values() if UNIT_OF[table.name] in units]
    began = timer() - report.seconds
    if mode == "deep":
        deep = _Deep(work, sampled, random or Random(), mark=mark)  # noqa: S311
        await deep.run(tables, math.inf if max_seconds is None else timer() + max_seconds)
    else:
        await _Registries(work, mode, mark=mark).run(tables)
    await work.settle(wait=True)
    report.damage = {"source": await stores.source.damage(), "target": await stores.target.damage()}
    report.seconds = timer() - began
    return report


class _Check:
    """What all modes share: the report as it grows, and the rows that are watched."""

    def __init__(
        self,
        stores: Stores,
        report: CheckReport,
        watch: Watch,
        on_progress: OnProgress | None,
        on_difference: OnDifference | None,
    ) -> None:
        self.stores = stores
        self.report = report
        self.watch = watch
        self._on_progress = on_progress
        self._on_difference = on_difference

    @property
    def shows_progress(self) -> bool:
        return self._on_progress is not None

    def result(self, table: Table) -> TableResult:
        return self.report.tables.setdefault(table.name, TableResult())

    def add(self, difference: Difference) -> None:
        self.report.tables.setdefault(difference.table, TableResult()).add(difference)
        if self._on_difference is not None:
            self._on_difference(difference)

    async def settle(self, *, wait: bool) -> None:
        """Takes in what became of the rows that were watched."""
        settled: dict[str, Settled] = await self.watch.settle(wait=wait)
        for name, found in settled.items():
            result = self.report.tables[name]
            result.equal += found.equal
            result.pending += found.pending
            for difference in found.differences:
                self.add(difference)

    def progress(self, table: Table, total: int) -> None:
        if self._on_progress is not None:
            result = self.result(table)
            rows = max(result.source, result.target)
            self._on_progress(
                CheckProgress(table.name, rows, max(total, rows), self.report.differences, self.watch.waiting)
            )


class _Deep:
    """Every row of both sides, or a sample of them, table by table: parents before their children."""

    def __init__(
        self,
        check: _Check,
        sampled: int | None,
        random: Random,
        *,
        mark: bool,
    ) -> None:
        self._check = check
        self._sampled = sampled
        self._random = random
        self._mark = mark
        self._orphans = (Orphans(check.stores.source), Orphans(check.stores.target))

    async def run(self, tables: list[Table], deadline: float) -> None:
        """Compares the tables until the timer shows `deadline`; the report then says where it stopped."""
        report = self._check.report
        resumed, report.stopped, report.total = report.stopped, None, None
        names = [table.name for table in tables]
        if resumed is not None and resumed.table not in names:
            raise InvalidInputError(f"{resumed.table}: the check stopped in this table; ask for its unit again")
        for table in tables[0 if resumed is None else names.index(resumed.table) :]:
            after = resumed.after if resumed is not None and resumed.table == table.name else ""
            report.stopped = await self._table(table, after, deadline)
            if report.stopped is not None:
                report.total = sum([await self._rows_of(table) for table in tables])
                return

    async def _table(self, table: Table, after: str, deadline: float) -> Place | None:
        """Compares the table; where it stopped, if time was up."""
        check, result = self._check, self._check.result(table)
        source, target = check.stores.readers(table)
        total = max(await source.count(table), await target.count(table)) if check.shows_progress else 0
        stopped: Place | None = None
        async with aclosing(self._pages(table, after)) as all_pages:
            async for pages in all_pages:
                await self._compare(table, result, pages)
                check.progress(table, total)
                if check.watch.timer() >= deadline:
                    stopped = Place(table.name, pages.last)
                    break
        await self._confirm_orphans(table)
        return stopped

    async def _rows_of(self, table: Table) -> int:
        source, target = self._check.stores.readers(table)
        return await source.count(table) + await target.count(table)

    def _pages(self, table: Table, after: str) -> AsyncGenerator[Pages, None]:
        source, target = self._check.stores.readers(table)
        if self._sampled is None:
            return walk(source, target, table, after)
        return sample(source, target, table, self._sampled, self._random)

    async def _compare(self, table: Table, result: TableResult, pages: Pages) -> None:
        check = self._check
        equal, suspects = pages.compare(table)
        result.source += len(pages.source.rows)
        result.target += len(pages.target.rows)
        result.equal += equal
        for row_id in suspects:
            check.watch.add(table, row_id)
        for orphans, page in zip(self._orphans, (pages.source, pages.target), strict=True):
            await orphans.look(table, page.rows)
        if self._mark:
            await self._mark_equal(table, pages, frozenset(suspects))
        await check.settle(wait=check.watch.is_full)

    async def _mark_equal(self, table: Table, pages: Pages, suspects: Collection[str]) -> None:
        """Marks what both registries say the same of, where the rows are equal or gone."""
        roles = (await self._check.stores.roles()).get(table.name)
        if roles is None:
            return
        source, target = self._check.stores.replicas(table)
        primary, replica = (source, target) if roles.primary == "source" else (target, source)
        async with aclosing(registries.tail(primary, replica, table, pages.after, pages.last)) as parts:
            async for part in parts:
                equal = {row_id: version for row_id, version in part.versions.items() if row_id not in suspects}
                await primary.replica.mark_checked(table.name, equal)

    async def _confirm_orphans(self, table: Table) -> None:
        if any(orphans.any for orphans in self._orphans):
            await self._check.watch.pause()
        for orphans in self._orphans:
            for difference in await orphans.confirmed(table):
                self._check.add(difference)


class _Registries:
    """What the registries say of rows, against each other."""

    def __init__(self, check: _Check, mode: Mode, *, mark: bool) -> None:
        self._check = check
        self._mode = mode
        self._mark = mark

    async def run(self, tables: list[Table]) -> None:
        roles = await self._check.stores.roles()
        for table in tables:
            if table.name not in roles:
                raise UnsupportedError(
                    f"{table.name}: a {self._mode} check compares registries, which only stores in one move have; "
                    "use a deep check, or name the units that are in the move",
                    operation="check",
                )
        backlogs = [await replica.backlog() for replica in self._check.stores.by_side().values()]
        for table in tables:
            ours, theirs = (backlog[table.name] for backlog in backlogs)
            await self._table(table, roles[table.name], ours.dirty + theirs.dirty, max(ours.entries, theirs.entries))

    async def _table(self, table: Table, roles: Roles, dirty: int, entries: int) -> None:
        check, result = self._check, self._check.result(table)
        source, target = check.stores.replicas(table)
        is_reversed = roles.primary == "target"
        primary, replica = (target, source) if is_reversed else (source, target)
        if self._mode == "quick":
            found = registries.quick(primary, replica, table)
            if not roles.is_backfilled:
                check.report.unseen[table.name] = "the backfill is under way: rows without an entry are not seen"
        else:
            found = registries.tail(primary, replica, table)
            result.pending += dirty  # it has no eye for them, and they may be anything
        if not entries:
            return
        async with aclosing(found) as parts:
            async for part in parts:
                result.source += part.replica if is_reversed else part.primary
                result.target += part.primary if is_reversed else part.replica
                result.equal += part.equal
                for row_id in part.suspects:
                    check.watch.add(table, row_id)
                if self._mark and self._mode == "tail":
                    await primary.replica.mark_checked(table.name, part.versions)
                await check.settle(wait=check.watch.is_full)
                check.progress(table, entries)
