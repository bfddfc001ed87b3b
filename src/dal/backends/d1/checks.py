"""What the library rests on and D1's documents only imply, each as a check that could fail.

A check works on rows of its own in the scratch table, so that it may be run again after a lost answer. It gives what
it found, in words for people, or raises `Disproved`.
"""

# ruff: noqa: S608  (the only name that is put together is the scratch table's)
from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from dal.backends.d1.commits import BURNT, Commit
from dal.backends.d1.errors import Failure, meaning_of
from dal.backends.d1.scratch import Disproved, Scratch, disprove
from dal.backends.d1.wire import Entry, entries_of
from dal.backends.d1.worker import WorkerTransport
from dal.backends.sql import Statement
from dal.errors import LimitExceededError
from dal.limits import (
    D1_MAX_CLOCK_OFF_S,
    D1_MAX_COMPOUND_TERMS,
    D1_MAX_PARAMS,
    D1_MAX_SQL_BYTES,
    D1_MAX_VALUE_BYTES,
    DEGRADED_LATENCY_MS,
    MAX_INT64,
    MIN_INT64,
)

_DEFERRED: Final = Entry("PRAGMA defer_foreign_keys = on", ())
_NOWHERE: Final = -1  # the id of no row
_SAMPLES: Final = 3
_INTEGERS: Final = (2**53 + 1, -(2**53) - 1, MAX_INT64, MIN_INT64, 0)


class Named(NamedTuple):
    """A check and what it is called."""

    name: str
    run: Callable[[Scratch], Awaitable[str]]


# Batches -------------------------------------------------------------------------------------------------------------


async def atomic(scratch: Scratch) -> str:
    first, second = scratch.ids(2)
    twice = [scratch.insert(first), scratch.insert(second), scratch.insert(first)]
    if not await scratch.refused("unique", *twice):
        raise Disproved("a batch with a statement that must be refused was carried out")
    if left := await scratch.count([first, second]):
        raise Disproved(f"a refused batch left {left} of its rows behind")
    return "a refused statement undid the two before it"


async def guard(scratch: Scratch) -> str:
    there, refused_id, let_through = scratch.ids(3)

    def needing(row_id: int) -> Entry:
        sql = f"INSERT INTO {scratch.table} (ok) SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM {scratch.table} WHERE id = ?)"
        return scratch.entries(sql, row_id)[0]

    if not await scratch.refused("check", scratch.insert(refused_id), needing(_NOWHERE)):
        raise Disproved("a guard that does not hold let its batch through")
    if await scratch.count([refused_id]):
        raise Disproved("a guard refused its batch, and a row of it stayed")
    if await scratch.refused("check", scratch.insert(there), needing(there), scratch.insert(let_through)):
        raise Disproved("a guard that holds refused its batch")
    if await scratch.count([there, let_through]) != 2:
        raise Disproved("a guard that holds kept rows of its batch back")
    return "a CHECK refused the whole batch, and let it through where it held"


async def batch_id(scratch: Scratch) -> str:
    """As commits.py does it, with the scratch table in the place of its own."""
    arrived, late = scratch.ids(2)
    sent, given_up = (
        Commit([Statement(f"INSERT INTO {scratch.table} (id) VALUES (?)", (n,))]) for n in (arrived, late)
    )

    def here(entries: list[Entry]) -> list[Entry]:
        return [entry._replace(sql=entry.sql.replace("dal_commits", scratch.table)) for entry in entries]

    await scratch.send(*here(sent.entries))
    # With another row beside the id: the id alone must refuse it.
    again = [*here(sent.entries)[:1], scratch.insert(scratch.ids(1)[0])]
    if not await scratch.refused("unique", *again):
        raise Disproved("a batch that was sent twice was carried out twice")
    if (await scratch.send(*here(sent.burn)))[-1][0][0] == BURNT:
        raise Disproved("a batch that was carried out is not found by its id")
    await scratch.send(*here(given_up.burn))
    if not await scratch.refused("unique", *here(given_up.entries)) or await scratch.count([late]):
        raise Disproved("a batch was carried out after it had been given up")
    return "a batch sent twice was refused the second time; one given up came too late"


async def triggers(scratch: Scratch) -> str:
    (row,) = scratch.ids(1)
    trigger = (
        f"CREATE TRIGGER IF NOT EXISTS {scratch.table}_fires AFTER INSERT ON {scratch.table} WHEN NEW.value = 'fire' "
        f"BEGIN INSERT INTO {scratch.table} (id, value) VALUES ('fired ' || NEW.id, 'fired'); END"
    )
    await scratch.send(Entry(trigger, ()))
    usage = scratch.transport.usage
    before = usage.rows_written
    await scratch.send(scratch.insert(row, value="fire"))
    written = usage.rows_written - before
    if await scratch.count([f"fired {row}"]) != 1:
        raise Disproved("a trigger was made through the API and did not fire")
    await scratch.send(scratch.insert(scratch.ids(1)[0]))
    alone = usage.rows_written - before - written
    if written <= alone:
        raise Disproved(f"D1 counted {written} rows written with what the trigger wrote, and {alone} without")
    return f"one fired, in the batch; rows written, as D1 bills them: {written} with it, {alone} without"


# Values --------------------------------------------------------------------------------------------------------------


async def integers(scratch: Scratch) -> str:
    ids = scratch.ids(len(_INTEGERS))
    sql = f"INSERT INTO {scratch.table} (id, value) VALUES (?, ?)"
    await scratch.send(*entries_of(Statement(sql, list(zip(ids[1:], _INTEGERS[1:], strict=True)), many=True)))
    await scratch.write(sql, ids[0], _INTEGERS[0])
    found = await scratch.write(
        f"SELECT CAST(value AS TEXT), typeof(value) FROM {scratch.table} WHERE id BETWEEN ? AND ? ORDER BY id",
        ids[0],
        ids[-1],
    )
    wrong = [
        f"{given} came back as {text} ({kind})"
        for given, (text, kind) in zip(_INTEGERS, found[0], strict=True)
        if (text, kind) != (str(given), "integer")
    ]
    if wrong:
        raise Disproved("; ".join(wrong))
    return "all 64 bits came back as they went in"


async def numbers(scratch: Scratch) -> str:
    (kind,) = (await scratch.send(Entry("SELECT typeof(?1)", (7,))))[0][0]
    if kind == "real":
        return "a number binds as REAL: that is why values travel inside one JSON text"
    if kind == "integer":
        return "a number binds as INTEGER: D1 has changed; values still travel inside one JSON text"
    raise Disproved(f"a number binds as {kind}")


async def returning(scratch: Scratch) -> str:
    ids = scratch.ids(5)
    sql = f"INSERT INTO {scratch.table} (id) VALUES (?) RETURNING id"
    rows = [(n,) for n in ids]
    found = [row[0] for row in (await scratch.send(*entries_of(Statement(sql, rows, returns=True, many=True))))[0]]
    if sorted(found, key=str) != sorted(ids, key=str):
        raise Disproved(f"{len(ids)} rows were written, and {len(found)} others were returned")
    if found != ids:
        return "every row once, in another order than written (which the library does not rely on)"
    return "every row once, in the order written"


# Foreign keys --------------------------------------------------------------------------------------------------------


async def foreign_keys(scratch: Scratch) -> str:
    (orphan,) = scratch.ids(1)
    if not await scratch.refused("foreign key", scratch.insert(orphan, _NOWHERE)):
        raise Disproved("a row whose parent is not there was taken")
    return "on without asking: a row without its parent was refused"


async def deferred(scratch: Scratch) -> str:
    """Never a batch that ends with a row without its parent: D1 restarts the whole database for that."""
    child, parent, orphan = scratch.ids(3)
    try:
        await scratch.send(_DEFERRED, scratch.insert(child, parent), scratch.insert(parent))
    except Failure as failure:
        disprove(failure, "defer_foreign_keys had no effect: a row that came before its parent")
    if not await scratch.refused("foreign key", scratch.insert(orphan, _NOWHERE)):
        raise Disproved("defer_foreign_keys went on behind its batch")
    return "a row may come before its parent, in that batch only"


# Limits --------------------------------------------------------------------------------------------------------------


async def parameters(scratch: Scratch) -> str:
    def of(number: int) -> Entry:
        return Entry(f"SELECT 1 WHERE 1 IN ({', '.join('?' * number)})", [1] * number)

    return await _limit(scratch, f"{D1_MAX_PARAMS} parameters", of(D1_MAX_PARAMS), of(D1_MAX_PARAMS + 1))


async def terms(scratch: Scratch) -> str:
    def of(number: int) -> Entry:
        return Entry(" UNION ALL ".join(["SELECT 1"] * number), ())

    name = f"{D1_MAX_COMPOUND_TERMS} terms in a UNION"
    return await _limit(scratch, name, of(D1_MAX_COMPOUND_TERMS), of(D1_MAX_COMPOUND_TERMS + 1))


async def statement_bytes(scratch: Scratch) -> str:
    def of(size_bytes: int) -> Entry:
        return Entry(f"SELECT 1 /*{'x' * (size_bytes - 13)}*/", ())

    return await _limit(scratch, f"{D1_MAX_SQL_BYTES:,} bytes", of(D1_MAX_SQL_BYTES), of(D1_MAX_SQL_BYTES + 1))


async def value_bytes(scratch: Scratch) -> str:
    """Made there and thrown away: nothing so large travels or is stored."""

    def of(size_bytes: int) -> Entry:
        return Entry(f"SELECT length(hex(zeroblob({size_bytes // 2})))", ())

    return await _limit(scratch, f"{D1_MAX_VALUE_BYTES:,} bytes", of(D1_MAX_VALUE_BYTES), of(D1_MAX_VALUE_BYTES + 2))


async def _limit(scratch: Scratch, what: str, at: Entry, beyond: Entry) -> str:
    """What the library sends at most must be taken, and more be refused in words that it knows."""
    try:
        await scratch.send(at)
    except Failure as failure:
        disprove(failure, f"{what} are refused")
    try:
        await scratch.send(beyond)
    except Failure as failure:
        meaning = meaning_of(failure)
        if meaning.error is not LimitExceededError:
            disprove(failure, "more is refused, with an answer that does not name the limit")
        return f"{what} are taken, more is refused"
    return f"{what} are taken; more is too here, but is not promised"


# The way there -------------------------------------------------------------------------------------------------------


async def clock(scratch: Scratch) -> str:
    best = min([await scratch.sample() for _ in range(_SAMPLES)])
    if abs(best.ahead_s) - best.round_trip_s / 2 > D1_MAX_CLOCK_OFF_S:
        raise Disproved(
            f"this machine's clock is {best.ahead_s:+.1f} s off D1's; more than {D1_MAX_CLOCK_OFF_S:g} s spoils "
            "times, expiry and batch ids: set it by NTP"
        )
    return f"this machine's is {best.ahead_s:+.3f} s off D1's, give or take {best.round_trip_s / 2:.3f} s"


async def round_trip(scratch: Scratch) -> str:
    times_ms = sorted([(await scratch.sample()).round_trip_s * 1000 for _ in range(_SAMPLES)])
    if times_ms[0] > DEGRADED_LATENCY_MS:
        raise Disproved(f"the fastest of {_SAMPLES} requests took {times_ms[0]:,.0f} ms")
    return f"{times_ms[_SAMPLES // 2]:,.1f} ms, the median of {_SAMPLES}"


async def bookmark(scratch: Scratch) -> str:
    transport = scratch.transport
    if not isinstance(transport, WorkerTransport):
        return "not needed: the REST API answers from the primary"
    (row,) = scratch.ids(1)
    before = transport.bookmark
    await scratch.send(scratch.insert(row))
    if not transport.bookmark or transport.bookmark <= before:
        raise Disproved("the Worker's answer to a write brought no newer bookmark; is it the one that came with dal?")
    if await scratch.count([row]) != 1:
        raise Disproved("a row that was just written was not read")
    return "each write brought a newer one, and the next read saw the write"


CHECKS: Final = (
    Named("round trip", round_trip),
    Named("clock", clock),
    Named("atomic batch", atomic),
    Named("guard", guard),
    Named("batch id", batch_id),
    Named("triggers", triggers),
    Named("integers", integers),
    Named("numbers as parameters", numbers),
    Named("RETURNING", returning),
    Named("foreign keys", foreign_keys),
    Named("defer_foreign_keys", deferred),
    Named("parameters", parameters),
    Named("compound terms", terms),
    Named("statement", statement_bytes),
    Named("value", value_bytes),
    Named("bookmark", bookmark),
)
