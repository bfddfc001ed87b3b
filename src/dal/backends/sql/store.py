"""The Store over any SQL engine: compiles queries and operations, hands statements to the executor, settles receipts.

It promises what `dal.store` says. It holds no connection and keeps no order of its own: atomicity, durability and
waiting are the executor's, and a broken constraint comes back as `Violation` to be told in the words of the operations.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from dal import schema
from dal.backends.sql.compiler import Compiler
from dal.backends.sql.dialect import Dialect, Executor, Session, Statement, Step, Violation
from dal.backends.sql.refusal import name_clash, refusal
from dal.backends.sql.search import SEARCHED, index_pending, index_steps, read_search
from dal.errors import ConflictError, DalError, SchemaError, UnavailableError, UnsupportedError
from dal.limits import DEGRADED_LATENCY_MS, HEALTH_TIMEOUT_S
from dal.ops import Op, Query, Receipt, Row, Search, Select
from dal.schema.connection import EngineName
from dal.store import Capabilities, ReadCommit, Stored, StoreHealth

if TYPE_CHECKING:
    from dal.replica import Replica

    MakeReplica = Callable[
        [Executor, Compiler, Callable[[Sequence[Op]], list[Step]], Callable[[], bool]],
        Replica,
    ]


class SqlStore:
    """A store on one SQL database.

    capabilities  as the engine would have them with every migration applied; `search` is taken back at opening where
                  the index is not there.
    address       what messages call the database: a path, or a URL without its password.
    schema_connection  opens the database for migrations, apart from the executor.
    auto_migrate  True: bring the schema up at opening. None: only in a database without any table. False: never.
    make_replica  makes the moves' side of the store, from its executor, its compiler, its way of planning a batch, and
                  whether it has a search index at that moment.
    """

    def __init__(
        self,
        executor: Executor,
        dialect: Dialect,
        capabilities: Capabilities,
        *,
        address: str,
        schema_connection: Callable[[], AbstractAsyncContextManager[schema.Connection]],
        auto_migrate: bool | None = False,
        make_replica: MakeReplica | None = None,
    ) -> None:
        self._executor = executor
        self._compiler = Compiler(dialect)
        self._full_capabilities = capabilities
        self._capabilities = capabilities
        self._address = address
        self._schema_connection = schema_connection
        self._auto_migrate = auto_migrate
        self._make_replica = make_replica
        self._session = _SqlSession(executor, self._compiler, capabilities)
        self._opening = asyncio.Lock()
        self._opened = False
        self._schema = ""
        self._pending_after: str | None = None

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    # Opening and closing ---------------------------------------------------------------------------------------------

    async def open(self) -> None:
        async with self._opening:
            if self._opened:
                return
            await self._executor.open()
            try:
                await self._check_schema()
                await self._look_for_search()
            except BaseException as error:
                if isinstance(error, DalError):  # of the schema engine, which does not know whose database it looks at
                    error.backend = error.backend or self._capabilities.backend
                await self._executor.close()
                raise
            self._opened = True

    async def _check_schema(self) -> None:
        reader = _SchemaReader(self._executor, self._compiler.dialect.engine, self._address)
        status = await schema.status(reader)
        wanted = self._auto_migrate or (self._auto_migrate is None and status.empty)
        if wanted and status.pending and not status.newer:
            # Alone in the database: nothing of this store waits on, or is waited for by, what a migration does.
            await self._executor.close()
            async with self._schema_connection() as connection:
                await schema.up(connection)
            await self._executor.open()
            status = await schema.status(reader)
        status.require_usable()
        self._schema = status.version

    async def close(self) -> None:
        async with self._opening:
            self._opened = False
            await self._executor.close()

    # The waist -------------------------------------------------------------------------------------------------------

    async def read(self, query: Query) -> list[Row]:
        self._check_open("read")
        if isinstance(query, Search) and not self._capabilities.search:
            await self._look_for_search()  # somebody may have made it since
        try:
            return await self._session.read(query)
        except SchemaError as error:
            if not isinstance(query, Search) or not await self._has_lost_search(error):
                raise
        return await self._session.read(query)

    async def read_stored(self, query: Select) -> Stored:
        """The rows as the driver gives them. See `dal.store.StoredRows`."""
        self._check_open("read")
        statement, _ = self._compiler.select(query)
        return Stored(await self._executor.fetch(statement), self._compiler.decoders_of(query))

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        self._check_open("commit")
        try:
            return await self._session.commit(ops)
        except SchemaError as error:
            if not await self._has_lost_search(error):
                raise
        return await self._session.commit(ops)

    def transaction(self) -> AbstractAsyncContextManager[ReadCommit]:
        self._check_open("transaction")
        return self._watched_transaction()

    @asynccontextmanager
    async def _watched_transaction(self) -> AsyncIterator[ReadCommit]:
        try:
            async with self._transaction() as session:
                yield session
        except SchemaError as error:
            if not await self._has_lost_search(error):
                raise
            raise ConflictError(
                "the search index was dropped meanwhile; run the transaction again",
                operation="commit",
                backend=self._capabilities.backend,
                retryable=True,
            ) from error

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[ReadCommit]:
        async with self._executor.transaction() as session:
            yield _SqlSession(session, self._compiler, self._capabilities)

    def _check_open(self, operation: str) -> None:
        if not self._opened:
            raise UnavailableError(
                f"{self._address} is not open; call open() first",
                operation=operation,
                backend=self._capabilities.backend,
                retryable=False,
            )

    async def health(self) -> StoreHealth:
        if not self._opened:
            return StoreHealth(status="down", parts={"reachable": False, "problems": ["the store is not open"]})
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                started = perf_counter()
                await self._executor.fetch(Statement("SELECT 1", (), returns=True))
                latency_ms = (perf_counter() - started) * 1000
                parts, problems = await self._executor.health()
        except Exception as error:
            # What a driver says may hold an address or a user: only our own words are shown.
            reason = str(error) if isinstance(error, DalError) else "the database did not answer"
            return StoreHealth(status="down", parts={"reachable": False, "problems": [reason]})
        if latency_ms > DEGRADED_LATENCY_MS:
            problems.append(f"a trivial query took {latency_ms:.0f} ms")
        return StoreHealth(
            status="degraded" if problems else "ok",
            parts={
                "reachable": True,
                "schema": self._schema,
                "latency_ms": round(latency_ms, 3),
                **parts,
                "problems": list(problems),
            },
        )

    def replica(self) -> Replica:
        """The moves' side of this store. See `dal.replica`."""
        if self._make_replica is None:
            raise UnsupportedError(
                f"{self._address}: live moves do not know this store",
                operation="replica",
                backend=self._capabilities.backend,
            )
        # The session is another one when the search index has come or gone.
        return self._make_replica(
            self._executor,
            self._compiler,
            lambda ops: self._session.plan(ops),
            lambda: self._capabilities.search,
        )

    # The search index ------------------------------------------------------------------------------------------------

    async def index_pending(self, *, limit: int = 1000) -> int:
        """Indexes up to `limit` rows that are not in the search index; 0 means it is whole. See `dal.store`."""
        self._check_search("index_pending")
        # Rows before this place were seen already: without it, each call would pass all of them again.
        count, last = await index_pending(self._executor, self._compiler, self._pending_after, limit)
        if count == 0 and self._pending_after is not None:
            count, last = await index_pending(self._executor, self._compiler, None, limit)
            if count == 0 and (settle := self._compiler.dialect.search.settle):
                await self._executor.batch([Statement(sql, []) for sql in settle])
        self._pending_after = last
        return count

    async def drop_search(self) -> None:
        """Empties the search index. See `dal.store`."""
        self._check_search("drop_search")
        self._pending_after = None
        await self._executor.batch([Statement(sql) for sql in self._compiler.dialect.search.clear])

    async def _look_for_search(self) -> None:
        """Takes note of whether the index is there now."""
        present = await self._executor.fetch(Statement(self._compiler.dialect.search.present, (), returns=True))
        self._capabilities = replace(self._full_capabilities, search=bool(present))
        self._session = _SqlSession(self._executor, self._compiler, self._capabilities)

    async def _has_lost_search(self, error: SchemaError) -> bool:
        """Whether something was refused because the index was dropped since: it may be tried again, without."""
        if not self._capabilities.search or error.outcome != "not_applied":
            return False
        await self._look_for_search()
        return not self._capabilities.search

    def _check_search(self, operation: str) -> None:
        self._check_open(operation)
        _require_search(self._capabilities, operation)


class _SqlSession:
    """Reads and commits, on the executor itself or inside one of its transactions."""

    def __init__(self, session: Session, compiler: Compiler, capabilities: Capabilities) -> None:
        self._session = session
        self._compiler = compiler
        self._capabilities = capabilities

    async def read(self, query: Query) -> list[Row]:
        if isinstance(query, Select):
            statement, read = self._compiler.select(query)
        elif isinstance(query, Search):
            _require_search(self._capabilities, "read")
            return await read_search(self._session, self._compiler, query)
        else:
            statement, read = self._compiler.total(query)
        return read.decode(await self._session.fetch(statement))

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        if not ops:
            return Receipt((), ())
        steps = self.plan(ops)
        statements = [step.statement for step in steps]
        try:
            results = await self._session.batch(statements)
        except Violation as violation:
            await name_clash(violation, ops, steps, self.read)
            raise refusal(violation, ops, steps, self._capabilities.backend) from violation.__cause__
        settled: list[tuple[int, Row | None]] = []
        for step, result in zip(steps, results, strict=True):
            if step.settle is not None:
                settled += step.settle(result, step.statement.params)
        counts, rows = zip(*settled, strict=True)
        return Receipt(counts, rows)

    def plan(self, ops: Sequence[Op]) -> list[Step]:
        """The statements of a batch, those that feed the search index included."""
        dialect = self._compiler.dialect
        if not self._capabilities.search or all(op.table != SEARCHED.name for op in ops):
            return dialect.plan(ops, self._compiler)
        if dialect.plan_searched is not None:
            return dialect.plan_searched(ops, self._compiler)
        return [*dialect.plan(ops, self._compiler), *index_steps(ops, self._compiler)]


class _SchemaReader:
    """An executor as `dal.schema` sees one that it only looks at."""

    def __init__(self, session: Session, engine: EngineName, address: str) -> None:
        self._session = session
        self._engine: EngineName = engine
        self._address = address

    @property
    def engine(self) -> EngineName:
        return self._engine

    @property
    def address(self) -> str:
        return self._address

    async def fetch(self, sql: str, params: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        return await self._session.fetch(Statement(sql, params, returns=True))


def _require_search(capabilities: Capabilities, operation: str) -> None:
    if not capabilities.search:
        raise UnsupportedError(
            "this database has no search index: `dal search rebuild` makes it",
            operation=operation,
            backend=capabilities.backend,
        )
