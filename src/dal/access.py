"""DataAccess: the typed repositories over one store, and what belongs to all of them.

It adds nothing to what the store promises: transactions are the store's, health is the store's. It keeps two more
rules, on every backend alike. Within a task that has a transaction open, writes go through that transaction; on an
embedded store they would otherwise wait for themselves. And a transaction carries out one call at a time, the others
wait for their turn; what still waits when its block ends is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from dal.blobs.base import BlobStore
from dal.errors import ConflictError, UnsupportedError, transaction_over
from dal.files import rows
from dal.files.options import FileOptions
from dal.files.service import Files
from dal.limits import HEALTH_TIMEOUT_S, RETRY_FIRST_WAIT_S, RETRY_MAX_WAIT_S
from dal.models import Health
from dal.ops import Op, Query, Receipt, Row
from dal.repositories.audit import Audit
from dal.repositories.base import Context
from dal.repositories.chats import Chats
from dal.repositories.memory import Memory
from dal.repositories.messages import Messages
from dal.repositories.users import Users
from dal.store import Capabilities, ReadCommit, Store
from dal.values import Clock, IdMaker, check_int, new_id, now

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

T = TypeVar("T")


class Repositories:
    """The repositories over one store or one transaction. has_blobs: whether contents of files are kept."""

    def __init__(self, context: Context, *, has_blobs: bool) -> None:
        self.users = Users(context)
        self.chats = Chats(context)
        self.messages = Messages(context)
        self.memory = Memory(context)
        self.files = rows.Files(context, has_blobs=has_blobs)
        self.audit = Audit(context)


class Transaction(Repositories):
    """What `dal.transaction()` gives: the same repositories, all or nothing."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Always raises UnsupportedError: transactions do not nest."""
        raise _nested()


class DataAccess(Repositories):
    """Users, chats, messages, memory, files and the audit trail of one store.

    store   a backend, bare or in its layers.
    clock   gives the current time (aware UTC).   new_id  gives the ids of new rows (UUID text).
    blobs   where the contents of files lie; None: their rows alone.   files  what is decided about contents.
    meter   where usage of files' storage and alerts of it are shown.

    An async context manager; nothing is touched before it is opened.
    """

    files: Files

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock = now,
        new_id: IdMaker = new_id,
        blobs: BlobStore | None = None,
        files: FileOptions | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.store = store
        self._clock = clock
        self._id_maker = new_id
        self._in_transaction: set[asyncio.Task[object]] = set()
        self._retry_turn = asyncio.Lock()
        context = Context(_Outside(store, self._in_transaction), clock, new_id, store.capabilities.backend)
        self._has_blobs = blobs is not None
        super().__init__(context, has_blobs=self._has_blobs)
        self.files = Files(context, blobs, FileOptions() if files is None else files, meter)

    async def open(self) -> Self:
        """Makes the store ready; a second call does nothing.

        Raises UnavailableError, ConfigurationError or SchemaError, within the configured time.
        """
        await self.store.open()
        try:
            await self.files.open_contents()
        except BaseException:
            await self.store.close()
            raise
        return self

    async def close(self) -> None:
        """Lets go of everything, once the access log of files is written; a second call does nothing."""
        try:
            await self.files.close_contents()
        finally:
            await self.store.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def capabilities(self) -> Capabilities:
        """What this backend can do and its limits, as data."""
        return self.store.capabilities

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """All or nothing: what is written through the yielded repositories is durable together when the block ends.

        Its own writes are visible to its reads, and to nobody else before the end; an exception rolls everything back.
        Serializable: a ConflictError (retryable) at a write or at the end says that somebody was faster.
        Tasks may share it; their calls are carried out one after the other.
        Raises UnsupportedError when the same task has a transaction open, and from the repositories once it has ended.
        """
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Transaction]:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # an async context manager runs in a task
        if task in self._in_transaction:
            raise _nested()
        backend = self.capabilities.backend
        async with self.store.transaction() as store:
            inside = _Inside(store, backend)
            self._in_transaction.add(task)
            try:
                yield Transaction(Context(inside, self._clock, self._id_maker, backend), has_blobs=self._has_blobs)
            finally:
                self._in_transaction.discard(task)
                await inside.end()

    async def run_in_transaction(self, fn: Callable[[Transaction], Awaitable[T]], *, attempts: int = 5) -> T:
        """What `await fn(tx)` returns, run again from the start when the store reports a conflict.

        attempts  1..100 runs in all. The first runs at once; repeats of one process take turns, so that callers who
                  fight for one row win one after the other.
        Raises    the last ConflictError when every attempt met one; any other error at once.
        `fn` may run several times: what it does besides its transaction should bear that.
        """
        check_int("attempts", attempts, 1, 100)
        try:
            return await self._run(fn)
        except ConflictError:
            if attempts == 1:
                raise
        async with self._retry_turn:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(ConflictError),
                stop=stop_after_attempt(attempts - 1),
                wait=wait_random_exponential(RETRY_FIRST_WAIT_S, RETRY_MAX_WAIT_S),
                reraise=True,
            ):
                with attempt:
                    return await self._run(fn)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _run(self, fn: Callable[[Transaction], Awaitable[T]]) -> T:
        async with self.transaction() as tx:
            return await fn(tx)

    async def health(self) -> Health:
        """How the store is, within two seconds; never raises. `down` when closed or not answering."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S + 0.5):
                found = await self.store.health()
                problem = await self.files.contents_problem()
        except Exception as error:  # a store's bug must not take a health endpoint down
            return Health(status="down", parts={"reachable": False, "problems": [type(error).__name__]})
        if problem is None:
            return Health(status=found.status, parts=dict(found.parts))
        known = found.parts.get("problems")
        problems = [*(known if isinstance(known, list) else []), f"contents of files: {problem}"]
        status = "degraded" if found.status == "ok" else found.status
        return Health(status=status, parts={**found.parts, "problems": problems})


class _Outside:
    """The store as seen outside transactions: refuses a write of a task that has a transaction open."""

    def __init__(self, store: ReadCommit, in_transaction: set[asyncio.Task[object]]) -> None:
        self._in_transaction = in_transaction
        self._store = store

    async def read(self, query: Query) -> list[Row]:
        return await self._store.read(query)

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        if self._in_transaction and asyncio.current_task() in self._in_transaction:
            raise UnsupportedError(
                "this task has a transaction open; write through it, or after it", operation="commit"
            )
        return await self._store.commit(ops)


class _Inside:
    """A transaction's store as its repositories see it: one call at a time, and none once the block has ended."""

    def __init__(self, store: ReadCommit, backend: str) -> None:
        self._store = store
        self._backend = backend
        self._turn = asyncio.Lock()
        self._is_over = False

    async def read(self, query: Query) -> list[Row]:
        async with self._turn:
            self._check_open("read")
            return await self._store.read(query)

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        async with self._turn:
            self._check_open("commit")
            return await self._store.commit(ops)

    async def end(self) -> None:
        """Waits for the call that is under way; those behind it are refused."""
        self._is_over = True
        async with self._turn:
            pass

    def _check_open(self, operation: str) -> None:
        if self._is_over:
            raise transaction_over(operation, self._backend)


def _nested() -> UnsupportedError:
    return UnsupportedError("transactions do not nest; use the one that is open", operation="transaction")
