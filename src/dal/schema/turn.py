"""A runner's turn: the ledger's tables are there, the lock is held, and what interrupts the work does not end it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter

from dal.errors import DalError, DalTimeoutError, SchemaError, UnavailableError
from dal.limits import SCHEMA_BUSY_WAIT_S, SCHEMA_LOCK_WAIT_S, SCHEMA_RESUMPTIONS
from dal.schema import ledger, lock
from dal.schema.connection import Connection, StatementError
from dal.schema.lock import Lease, LeaseLostError
from dal.schema.patience import is_busy, patiently
from dal.schema.progress import OnProgress, Progress, ignore
from dal.schema.running import LostAnswerError


async def under_lock(
    connection: Connection,
    work: Callable[[Lease, str | None], Awaitable[None]],
    *,
    on_progress: OnProgress = ignore,
    wait_s: float | None = None,
) -> None:
    """Does the work under the lock, and again when the lock or an answer was lost meanwhile. The work must begin by
    reading the ledger; it is given the name of the file whose answer was lost."""
    waiting = Waiting(on_progress)
    await _make_tables(connection, SCHEMA_BUSY_WAIT_S if wait_s is None else wait_s, waiting)
    limit_s = SCHEMA_LOCK_WAIT_S if wait_s is None else wait_s
    former, interruptions, lost = "", 0, ""
    while True:
        try:
            async with lock.held(connection, wait_s=limit_s, on_wait=waiting.tell, former=former) as lease:
                former = lease.owner
                await work(lease, lost or None)
                return
        except (LeaseLostError, LostAnswerError) as error:
            interruptions += 1
            if isinstance(error, LostAnswerError):
                lost = error.name
            if interruptions > SCHEMA_RESUMPTIONS:
                raise _given_up(connection, error) from error
        except UnavailableError as error:
            if lost:  # what was sent then may have happened, whatever failed since
                error.outcome = "unknown"
            raise


class Waiting:
    """Tells of waiting that belongs to no file."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._started = perf_counter()

    def tell(self, reason: str) -> None:
        elapsed_ms = round((perf_counter() - self._started) * 1000)
        self._on_progress(Progress(name="", statement=0, of=0, elapsed_ms=elapsed_ms, phase="waiting", detail=reason))

    async def meanwhile(self, reason: str) -> None:
        self.tell(reason)


def _given_up(connection: Connection, error: LeaseLostError | LostAnswerError) -> DalError:
    if isinstance(error, LostAnswerError):
        return error.error
    return DalTimeoutError(
        f"{connection.address}: other runners took the lock {SCHEMA_RESUMPTIONS} times; try again when they are done",
        operation="schema.lock",
    )


async def _make_tables(connection: Connection, wait_s: float, waiting: Waiting) -> None:
    """The ledger's tables, where one is missing: a role that may not create any can still use them."""
    again = False

    async def make() -> None:
        nonlocal again
        if ledger.is_whole(connection.engine, (await ledger.read(connection)).tables):
            return
        try:
            await connection.run(ledger.creation(connection.engine))
        except StatementError as error:
            # PostgreSQL's IF NOT EXISTS is not safe against a twin, and fails in several ways. Each of them waits for
            # the twin's end, so by now its tables are there; where they are not, the second failure is the true one.
            if again or is_busy(error):
                raise
        except UnavailableError as error:
            if again or error.outcome != "unknown":
                raise
        else:
            return
        again = True
        await make()

    try:
        await patiently(make, wait_s=wait_s, meanwhile=waiting.meanwhile)
    except StatementError as error:
        message = f"{connection.address}: the ledger's tables cannot be made: {error.reason}"
        if is_busy(error):
            raise DalTimeoutError(message, operation="schema.up") from error
        raise SchemaError(message, operation="schema.up") from error
