"""The moves' side of a store on SQL: the registry, the gates, and copies under versions, over the store's executor.

Copies are carried out by the store's own planner as ordinary operations, so the search index follows, and the engine's
ways of writing many rows are used. How the registry is kept by triggers, and how a role is enforced, is the engine's:
it makes a subclass with what `install`, `uninstall` and a change of role take there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from dal.backends.sql.compiler import Compiler
from dal.backends.sql.copies import Copies
from dal.backends.sql.dialect import Executor, Result, Statement, Step
from dal.backends.sql.registry import Registry, RegistrySql, table_of
from dal.errors import SchemaError
from dal.ops import Op, Value
from dal.replica import Applied, Backlog, Bucket, Copied, Entry, Gate, Registered, Unregistered, by_first
from dal.store import Stored
from dal.tables import TABLES


class SqlReplica(ABC):
    """A Replica over one executor.

    plan         the store's: operations to statements, the search index included.
    is_searched  whether there is a search index now.
    """

    def __init__(
        self,
        executor: Executor,
        compiler: Compiler,
        sql: RegistrySql,
        plan: Callable[[Sequence[Op]], list[Step]],
        is_searched: Callable[[], bool],
        backend: str,
    ) -> None:
        self._executor = executor
        self._sql = sql
        self._registry = Registry(compiler, sql)
        self._copies = Copies(executor, self._registry, sql, plan, is_searched, backend)
        self._backend = backend

    # The move itself -------------------------------------------------------------------------------------------------

    @abstractmethod
    async def install(self, gates: Sequence[Gate]) -> None: ...

    @abstractmethod
    async def uninstall(self, *, keep_fence: bool) -> None: ...

    async def gates(self) -> Mapping[str, Gate]:
        try:
            rows = await self._executor.fetch(self._registry.gates())
        except SchemaError:
            if not await self._is_installed():
                return {}
            rows = await self._executor.fetch(self._registry.gates())  # they came between the two looks
        return {str(row[0]): Gate(*row) for row in rows}  # type: ignore[arg-type]

    async def change_gate(self, unit: str, *, expect: Mapping[str, Value], change: Mapping[str, Value]) -> bool:
        statements = self._registry.change_gate(unit, expect, change)
        batch = self._executor.batch if "role" not in change else self._batch_at_once
        return bool((await batch(statements))[-1].rows)

    async def _batch_at_once(self, statements: Sequence[Statement]) -> Sequence[Result]:
        """A batch that waits for writers no longer than FENCE_LOCK_TIMEOUT_S."""
        return await self._executor.batch(statements)

    async def _is_installed(self) -> bool:
        return bool(await self._executor.fetch(Statement(self._sql.installed, (), returns=True)))

    # The registry ----------------------------------------------------------------------------------------------------

    async def seed(self, table: str, after: str, limit: int) -> str:
        rows = (await self._executor.batch(self._registry.seed(table_of(table), after, limit)))[-1].rows
        return str(rows[0][0]) if rows and rows[0][1] == limit else ""

    async def unregistered(self, table: str, after: str, limit: int) -> Unregistered:
        rows = await self._executor.fetch(self._registry.unregistered(table_of(table), after, limit))
        return self._registry.decode_unregistered(table_of(table), rows, limit)

    async def dirty(self, table: str, limit: int) -> list[Entry]:
        return await self._entries(table, self._registry.dirty(table_of(table), limit))

    async def entries(self, table: str, ids: Sequence[str]) -> list[Entry]:
        return await self._entries(table, self._registry.entries(table_of(table), ids)) if ids else []

    async def stored(self, table: str, ids: Sequence[str]) -> Stored:
        rows = await self._executor.fetch(self._registry.stored(table_of(table), ids)) if ids else []
        return Stored(rows, self._registry.decoders(table_of(table)))

    async def _entries(self, table: str, statement: Statement) -> list[Entry]:
        return self._registry.decode_entries(table_of(table), await self._executor.fetch(statement))

    async def acknowledge(self, copied: Sequence[Copied]) -> None:
        first, later = by_first(copied)
        if first:
            await self._executor.batch(self._registry.register(first))
        if later:
            await self._executor.batch([self._registry.acknowledge(later)])

    async def tables_with(self, state: Literal["dirty", "copied"]) -> frozenset[str]:
        ((*found,),) = await self._executor.fetch(self._registry.tables_with(state))
        return frozenset(name for name, is_there in zip(TABLES, found, strict=True) if is_there)

    async def backlog(self) -> Mapping[str, Backlog]:
        rows = await self._executor.fetch(self._registry.backlog())
        found = {str(name): Backlog(*counts) for name, *counts in rows}  # type: ignore[arg-type]
        return {name: found.get(name, Backlog(0, 0, 0)) for name in TABLES}

    async def raise_versions(self, table: str, ids: Sequence[str]) -> int:
        distinct = sorted(set(ids))
        if distinct:
            await self._executor.batch(self._registry.raise_versions(table_of(table), distinct))
        return len(distinct)

    async def rescan(self) -> int:
        """0: a database's triggers see every writer."""
        return 0

    # Copies ----------------------------------------------------------------------------------------------------------

    async def apply(self, entries: Sequence[Entry]) -> Applied:
        return await self._copies.apply(entries)

    # Checking --------------------------------------------------------------------------------------------------------

    async def total(self, table: str) -> Bucket:
        ((name, *sums),) = await self._executor.fetch(self._registry.total(table_of(table)))
        return Bucket(name, *sums)  # type: ignore[arg-type]

    async def digest(self, table: str) -> list[Bucket]:
        rows = await self._executor.fetch(self._registry.digest(table_of(table)))
        return [Bucket(*row) for row in rows]  # type: ignore[arg-type]

    async def bucket(self, table: str, buckets: Sequence[str]) -> list[Registered]:
        return await self._registered(table, self._registry.bucket(table_of(table), buckets))

    async def registered(self, table: str, ids: Sequence[str]) -> list[Registered]:
        return await self._registered(table, self._registry.registered(table_of(table), ids)) if ids else []

    async def copied(self, table: str, after: str, limit: int) -> list[Registered]:
        return await self._registered(table, self._registry.copied(table_of(table), after, limit))

    async def _registered(self, table: str, statement: Statement) -> list[Registered]:
        return self._registry.decode_registered(table_of(table), await self._executor.fetch(statement))

    async def mark_checked(self, table: str, versions: Mapping[str, int]) -> None:
        if versions:
            await self._executor.batch([self._registry.mark_checked(table_of(table), versions)])

    # What a plan and a cutover ask -----------------------------------------------------------------------------------

    @abstractmethod
    async def oldest_writer_s(self) -> float: ...

    @abstractmethod
    async def obstacles(self) -> list[str]: ...
