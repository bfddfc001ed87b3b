"""Copies of a move applied to a SQL store: only what is newer, all of it or nothing, in one transaction.

The registry takes the new versions first, in the same batch as the rows, and a guard refuses the batch where another
applier was faster; so whoever reads a version reads the rows that belong to it. What a unique key or a missing parent
refuses is looked up afterwards: exchanged among the rows that came, or named, for the caller to bring along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dal.backends import replication
from dal.backends.sql.dialect import Executor, Step, Violation
from dal.backends.sql.registry import Registry, RegistrySql, table_of
from dal.backends.sql.search import SEARCHED
from dal.errors import ConflictError
from dal.limits import APPLY_TRIES
from dal.ops import Op
from dal.replica import Applied, Entry, Key, is_first


class Copies:
    """Applies entries over one executor.

    plan         the store's, the search index included.
    is_searched  whether there is a search index now.
    """

    def __init__(
        self,
        executor: Executor,
        registry: Registry,
        sql: RegistrySql,
        plan: Callable[[Sequence[Op]], list[Step]],
        is_searched: Callable[[], bool],
        backend: str,
    ) -> None:
        self._executor = executor
        self._registry = registry
        self._sql = sql
        self._plan = plan
        self._is_searched = is_searched
        self._backend = backend

    async def apply(self, entries: Sequence[Entry]) -> Applied:
        """See `dal.replica`. Raises ConflictError (retryable) where others were faster each time."""
        if await self._load(entries):
            return Applied(entries)
        replacing, parked = False, frozenset[Key]()
        for _ in range(APPLY_TRIES):
            versions = await self._versions(entries)
            won = replication.winners(entries, versions)
            if not won:
                return Applied()
            ops = replication.operations(won, known=versions.keys(), replacing=replacing, parked=parked)
            try:
                await self._carry_out(won, ops)
            except Violation as violation:
                if violation.kind == "check":
                    continue  # another applier had something newer
                holders, blockers = await self._in_the_way(won, violation)
                if blockers:
                    return Applied(blockers=tuple(blockers))
                # Rows that hold each other's keys are all here; or a row was there that the registry did not know.
                replacing, parked = True, parked | holders
            else:
                return Applied(won)
        raise ConflictError(
            "apply: other writers were faster each time; try again",
            operation="apply",
            backend=self._backend,
            retryable=True,
        )

    async def _load(self, entries: Sequence[Entry]) -> bool:
        """Registers and inserts rows without asking before, where they seem to be new, as all are in a backfill but for
        accidents; whether it did."""
        load = self._sql.load
        if load is None or not entries:
            return False
        _, _, versions, rows, _, _ = zip(*entries, strict=True)
        if None in rows or not all(map(is_first, set(versions))):
            return False
        if self._is_searched() and any(entry.table == SEARCHED.name for entry in entries):
            return False  # their terms go with them
        loaded = self._registry.loaded(replication.winners(entries, {}), load)
        try:
            await self._executor.batch([*self._sql.mark, *loaded, *self._sql.unmark])
        except Violation:
            return False  # some is there, or another row is in the way: nothing was written; the usual way finds out
        return True

    async def _versions(self, entries: Sequence[Entry]) -> dict[Key, int]:
        if not entries:
            return {}
        rows = await self._executor.fetch(self._registry.versions(entries))
        return {Key(str(table), str(id_)): version for table, id_, version in rows if isinstance(version, int)}

    async def _carry_out(self, won: Sequence[Entry], ops: Sequence[Op]) -> None:
        # No operation of a copy refers to another row's value, so no statement is linked to another by its place.
        rows = self._sql.bulk([step.statement for step in self._plan(ops)])
        await self._executor.batch([*self._sql.mark, *self._registry.applied(won), *rows, *self._sql.unmark])

    async def _in_the_way(self, won: Sequence[Entry], violation: Violation) -> tuple[set[Key], list[Key]]:
        """Winners whose rows hold unique keys of other winners, and keys whose present state must come along."""
        if violation.kind == "foreign key":
            wanted = replication.parents(won)
            return set(), replication.missing(wanted, await self._present(list(wanted)), won)
        holders = await self._holders(won)
        keys = {entry.key for entry in won}
        return holders & keys, sorted((holders - keys) | replication.rivals(won))

    async def _holders(self, won: Sequence[Entry]) -> set[Key]:
        found: set[Key] = set()
        for (table, columns), claims in replication.claims(won).items():
            rows = [(key.id, *values) for key, values in claims]
            for (id_,) in await self._executor.fetch(self._registry.holders(table_of(table), columns, rows)):
                found.add(Key(table, str(id_)))
        return found

    async def _present(self, keys: Sequence[Key]) -> set[Key]:
        found: set[Key] = set()
        for table in dict.fromkeys(key.table for key in keys):
            ids = [key.id for key in keys if key.table == table]
            for (id_,) in await self._executor.fetch(self._registry.present(table_of(table), ids)):
                found.add(Key(table, str(id_)))
        return found
