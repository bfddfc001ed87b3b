"""The self-check of a D1 database: tries on the database itself what the library rests on (checks.py).

It writes into a scratch table of its own and into nothing else, and removes it at the end, after an error and Ctrl-C
too. What fails on its way is tried again; a check that could not be carried out to its end counts as failed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from dal.backends.d1.checks import CHECKS, Named
from dal.backends.d1.errors import Failure
from dal.backends.d1.executor import Tries
from dal.backends.d1.scratch import Disproved, Scratch
from dal.backends.d1.transport import D1Transport
from dal.errors import DalError

_T = TypeVar("_T")
_TABLE: Final = "scratch table"
_REMOVED: Final = "scratch table removed"


@dataclass(frozen=True, slots=True)
class Check:
    """What was checked, whether it is as the library needs it, and what was found."""

    check: str
    ok: bool
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfCheck:
    """checks    in the order they were made.
    requests  and rows, as D1 counts them: what it cost.
    """

    checks: tuple[Check, ...]
    requests: int
    rows_read: int
    rows_written: int

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


async def probe(
    transport: D1Transport,
    label: str,
    *,
    checks: Sequence[Named] = CHECKS,
    clock: Callable[[], float] = time.time,
    timer: Callable[[], float] = time.perf_counter,
) -> SelfCheck:
    """Makes every check over this transport, which is open."""
    usage = transport.usage
    requests, rows_read, rows_written = usage.requests, usage.rows_read, usage.rows_written
    scratch = Scratch(transport, clock=clock, timer=timer)
    try:
        done = await _all(checks, scratch, label)
    finally:
        removed = await _to_the_end(_removed(scratch, label))
    return SelfCheck(
        checks=(*done, *removed),
        requests=usage.requests - requests,
        rows_read=usage.rows_read - rows_read,
        rows_written=usage.rows_written - rows_written,
    )


async def _all(checks: Sequence[Named], scratch: Scratch, label: str) -> list[Check]:
    try:
        old = await _patiently(scratch.make, label)
    except DalError as error:
        return [Check(_TABLE, False, f"could not be made: {error.message}")]
    made = "made" + (f"; {old} that a killed run had left removed" if old else "")
    return [Check(_TABLE, True, made), *[await _checked(check, scratch, label) for check in checks]]


async def _checked(check: Named, scratch: Scratch, label: str) -> Check:
    try:
        return Check(check.name, True, await _patiently(lambda: check.run(scratch), label))
    except Disproved as finding:
        return Check(check.name, False, str(finding))
    except DalError as error:
        return Check(check.name, False, f"could not be checked: {error.message}")


async def _removed(scratch: Scratch, label: str) -> list[Check]:
    """What to say of it; nothing where it was never made."""
    if not scratch.table:
        return []
    try:
        if await _patiently(scratch.remove, label):
            return [Check(_REMOVED, True, "removed")]
        trouble = "it is still there"
    except DalError as error:
        trouble = error.message
    left = f"{scratch.table} could not be removed ({trouble}); drop it, or run this again in an hour"
    return [Check(_REMOVED, False, left)]


async def _to_the_end(work: Coroutine[Any, Any, _T]) -> _T:
    """Awaits it, also where a Ctrl-C comes just now."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _patiently(call: Callable[[], Awaitable[_T]], label: str) -> _T:
    """The call's result, tried again where that may help. Raises DalError, and what the call finds."""
    tries = Tries("self-check", label)
    while True:
        try:
            return await call()
        except Failure as failure:
            await tries.another(failure)
