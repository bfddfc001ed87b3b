"""The store that an application sees during a move: each unit's calls go to the store that the unit lives on.

It changes sides by itself when a unit is switched: a write that meets a fence waits and goes to the new primary, so the
application sees a slow call and no error. Instances with and without it may run side by side at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from time import monotonic
from typing import Final, Literal

from dal.errors import (
    ConfigurationError,
    DalError,
    FencedError,
    MissingReferenceError,
    UnavailableError,
    UnsupportedError,
)
from dal.limits import FENCED_WAIT_S, HEALTH_TIMEOUT_S, PUSH_WAIT_S
from dal.move.push import Pusher, keys_of
from dal.move.routes import Routes
from dal.move.shadow import Shadow
from dal.move.sides import Side, Sides, other
from dal.ops import Compare, Delete, Guard, Insert, JsonValue, Op, Query, Receipt, Ref, Row, Select, Upsert
from dal.replica import UNIT_OF, Gate, Key, Movable, Replica
from dal.store import Capabilities, ReadCommit, SearchIndex, Store, StoreHealth
from dal.tables import CHILDREN, TABLES

_SEARCHED_UNIT: Final = "chats"
#: How often the rows that a write refers to are copied from the other side for it.
_BRING_TRIES: Final = 3


class Router:
    """A Store over the source and the target of a move.

    source, target              as calls go to them, in their layers.
    source_backend, target_backend  the bare stores: what a move speaks to.
    The source is opened with the router; the target when a move is on, and if it does not answer then, calls of units
    that live on the source go on.
    """

    def __init__(self, source: Store, target: Store, *, source_backend: Store, target_backend: Store) -> None:
        for name, backend in (("source", source_backend), ("target", target_backend)):
            if not isinstance(backend, Movable):
                raise ConfigurationError(f"the {name}: {backend.capabilities.backend} cannot take part in a move")
        self._stores: Mapping[Side, Store] = {"source": source, "target": target}
        self._backends: Mapping[Side, Store] = {"source": source_backend, "target": target_backend}
        self._replicas: dict[Side, Replica] = {}
        self._opening = asyncio.Lock()
        self._is_open = False
        self._is_target_open = False
        self._routes = Routes(self._source_gates, self._sides)
        self._pusher = Pusher(self._routes, self._sides)
        self._shadow = Shadow(self._routes, self._at, self._sides)

    @property
    def capabilities(self) -> Capabilities:
        """What both sides can do: a row that only one of them could hold is refused from the start."""
        source, target = self._stores["source"].capabilities, self._stores["target"].capabilities
        here = self._stores[self._routes.holder(_SEARCHED_UNIT)].capabilities
        return replace(
            here,
            max_text_bytes=min(source.max_text_bytes, target.max_text_bytes),
            max_batch_ops=min(source.max_batch_ops, target.max_batch_ops),
            interactive_transactions=source.interactive_transactions and target.interactive_transactions,
        )

    # -- opening and closing

    async def open(self) -> None:
        await self._stores["source"].open()
        self._is_open = True
        try:
            await self._routes.read_again()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        self._is_open = False
        await self._pusher.close()
        await self._shadow.close()
        await self._routes.close()
        async with self._opening:
            if self._is_target_open:
                self._is_target_open = False
                await self._stores["target"].close()
        await self._stores["source"].close()

    async def _at(self, side: Side) -> Store:
        if not self._is_open:
            raise UnavailableError("the store is not open; call open() first", operation="open", retryable=False)
        if side == "target" and not self._is_target_open:
            async with self._opening:
                if not self._is_target_open:
                    await self._stores["target"].open()
                    self._is_target_open = True
        return self._stores[side]

    async def _source_gates(self) -> Mapping[str, Gate]:
        return await self._replica("source").gates()

    async def _sides(self) -> Sides:
        await self._at("target")
        return Sides(self._replica("source"), self._replica("target"))

    def _replica(self, side: Side) -> Replica:
        if side not in self._replicas:
            backend = self._backends[side]
            assert isinstance(backend, Movable)  # noqa: S101  # checked when the router was made
            self._replicas[side] = backend.replica()
        return self._replicas[side]

    # -- the waist

    async def read(self, query: Query) -> list[Row]:
        side = await self._routes.for_read(UNIT_OF[query.table])
        rows = await (await self._at(side)).read(query)
        if self._routes.is_moving:
            self._shadow.note(query, rows)
        return rows

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        if not ops:
            return Receipt((), ())
        deadline = monotonic() + FENCED_WAIT_S
        brought = 0
        while True:
            side = await self._side_of(ops)
            try:
                receipt = await (await self._at(side)).commit(ops)
            except FencedError:
                # The unit's own fence, or that of a unit whose rows a delete would take along.
                if monotonic() > deadline:
                    raise
                await self._routes.read_again()
                await self._routes.take_back_overdue()
            except MissingReferenceError as error:
                parents = self._parents_elsewhere(ops, side)
                if not parents:
                    raise
                if brought == _BRING_TRIES:
                    await self._require_known(parents, side, error)
                    raise
                brought += 1
                await self._pusher.push(parents)
            else:
                await self._committed(ops)
                return receipt

    async def _side_of(self, ops: Sequence[Op]) -> Side:
        """The one side that takes all of these; waits while their unit is fenced."""
        sides = {unit: await self._routes.for_write(unit) for unit in _units_of(ops)}
        if len(set(sides.values())) > 1:
            raise _apart(sides)
        return next(iter(sides.values()))

    async def _committed(self, ops: Sequence[Op]) -> None:
        if not self._routes.is_moving:
            return
        orphans = [key for op in ops if type(op) is Delete and self._reaches_over(op.table) for key in keys_of([op])]
        if orphans:
            # Rows that go with these live on the other side: they go before the call returns, if that side answers.
            with suppress(DalError, TimeoutError):
                async with asyncio.timeout(PUSH_WAIT_S):
                    await self._pusher.push(orphans)
        self._pusher.note(ops)

    def _reaches_over(self, table: str) -> bool:
        """Whether rows of tables below this one live on another side than it does."""
        here = self._routes.holder(UNIT_OF[table])
        return any(self._routes.holder(UNIT_OF[child.name]) != here for child, _ in CHILDREN[table])

    def _parents_elsewhere(self, ops: Sequence[Op], side: Side) -> list[Key]:
        """The rows that these refer to and that live on the other side: this one may not have their copies yet."""
        return [
            Key(parent.table, value)
            for op in ops
            if isinstance(op, Insert | Upsert)
            for parent in TABLES[op.table].parents
            if self._routes.holder(UNIT_OF[parent.table]) != side and isinstance(value := op.row[parent.column], str)
        ]

    async def _require_known(self, parents: Sequence[Key], side: Side, refusal: MissingReferenceError) -> None:
        """Raises UnavailableError where one of these lives and was not copied: it changes again and again, or this side
        takes no copies. Else the refusal is right."""
        for key in parents:
            query = Select(key.table, (Compare("id", "=", key.id),), columns=("id",))
            if await (await self._at(other(side))).read(query) and not await (await self._at(side)).read(query):
                raise UnavailableError(
                    f"{key.table}['{key.id}']: the {side}, where a row that refers to it is to be written, could not "
                    f"be given its copy from the {other(side)}; try again",
                    operation="commit",
                ) from refusal

    def transaction(self) -> AbstractAsyncContextManager[ReadCommit]:
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[ReadCommit]:
        async with AsyncExitStack() as stack:
            routed = _RoutedTransaction(self, stack)
            yield routed
        if routed.written:
            await self._committed(routed.written)

    # -- health and the search index

    async def health(self) -> StoreHealth:
        found = await self._stores["source"].health()
        if not self._is_open or (not self._routes.is_moving and not self._is_target_open):
            return found
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                target = await (await self._at("target")).health()
        except (DalError, TimeoutError):
            target = StoreHealth(status="down", parts={"reachable": False, "problems": ["the target does not answer"]})
        lives = {side for unit in UNIT_OF.values() for side in [self._routes.holder(unit)]}
        reports: dict[Side, StoreHealth] = {"source": found, "target": target}
        status: Literal["ok", "degraded", "down"] = "ok"
        for side, report in reports.items():
            if report.status == "down":
                status = "down" if side in lives else "degraded" if status == "ok" else status
            elif report.status == "degraded" and status == "ok":
                status = "degraded"
        parts: dict[str, JsonValue] = dict(reports[self._routes.holder(_SEARCHED_UNIT)].parts)
        parts["move"] = {unit: self._unit_health(unit) for unit in dict.fromkeys(UNIT_OF.values())}
        parts["source"], parts["target"] = dict(found.parts), dict(target.parts)
        return StoreHealth(status=status, parts=parts)

    def _unit_health(self, unit: str) -> JsonValue:
        gates = self._routes.now(unit)
        return {"primary": self._routes.holder(unit), "phase": "" if gates is None else gates.phase}

    async def index_pending(self, *, limit: int = 1000) -> int:
        return await (await self._search_index()).index_pending(limit=limit)

    async def drop_search(self) -> None:
        await (await self._search_index()).drop_search()

    async def _search_index(self) -> SearchIndex:
        store = await self._at(await self._routes.for_read(_SEARCHED_UNIT))
        if isinstance(store, SearchIndex):
            return store
        raise UnsupportedError("this store keeps no search index; nothing needs to be done", operation="search index")


class _RoutedTransaction:
    """A transaction on the side that its first call asks for."""

    def __init__(self, router: Router, stack: AsyncExitStack) -> None:
        self._router = router
        self._stack = stack
        self._side: Side | None = None
        self._units: set[str] = set()
        self._inner: ReadCommit | None = None
        self.written: list[Op] = []

    async def read(self, query: Query) -> list[Row]:
        return await (await self._on({UNIT_OF[query.table]})).read(query)

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        if not ops:
            return Receipt((), ())
        receipt = await (await self._on({*_units_of(ops)})).commit(ops)
        self.written += ops
        return receipt

    async def _on(self, units: set[str]) -> ReadCommit:
        new = {unit: await self._router._routes.for_write(unit) for unit in sorted(units - self._units)}
        side = self._side if self._side is not None else next(iter(new.values()))
        if any(found != side for found in new.values()):
            raise _apart({**dict.fromkeys(sorted(self._units), side), **new})
        self._units |= new.keys()
        if self._inner is None:
            self._side = side
            store = await self._router._at(side)
            self._inner = await self._stack.enter_async_context(store.transaction())
        return self._inner


def _units_of(ops: Sequence[Op]) -> dict[str, None]:
    """The units that operations are about, and those whose rows their guards compare with."""
    tables = dict.fromkeys(op.table for op in ops)
    for op in ops:
        if type(op) is Guard:
            tables.update(dict.fromkeys(c.value.table for c in op.where if type(c.value) is Ref))
    return dict.fromkeys(UNIT_OF[table] for table in tables)


def _apart(sides: Mapping[str, Side]) -> UnsupportedError:
    where = ", ".join(f"{unit} on the {side}" for unit, side in sides.items())
    return UnsupportedError(
        f"units of one transaction live on different stores ({where}) until the move has switched them all; "
        "write them one after the other",
        operation="transaction",
    )
