"""A table of the self-check's own: made, asked about, and removed, whatever happens in between.

Its name says what it is and when it was made by D1's clock, so that one that a killed run has left behind is found and
dropped by a later run. One table holds everything a check needs; what hangs on it goes with it.
"""

# ruff: noqa: S608  (the only name that is put together is the scratch table's)
from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final, NamedTuple, NoReturn

from dal.backends.d1.errors import Failure, broken_constraint, meaning_of
from dal.backends.d1.transport import D1Transport, Rows
from dal.backends.d1.wire import Entry, body_of, entries_of
from dal.backends.sql import Statement
from dal.limits import CLOSE_TIMEOUT_S, SCRATCH_LIFETIME_S

_NAME: Final = re.compile(r"dal_doctor_(\d{10,})_[0-9a-f]{16}")
#: Seconds since 1970 by D1's clock, with a fraction.
NOW: Final = Entry("SELECT (julianday('now') - 2440587.5) * 86400.0", ())
_TABLES: Final = Entry(r"SELECT name FROM sqlite_master WHERE name LIKE 'dal\_doctor\_%' ESCAPE '\' ORDER BY name", ())


class Disproved(Exception):  # no error: the finding of a check
    """What a check found is not what the library rests on."""


class Sample(NamedTuple):
    """One look at D1's clock: seconds that the answer took, and how far this machine's clock is ahead of it."""

    round_trip_s: float
    ahead_s: float


class Scratch:
    """The table, and ways to ask about it.

    clock   seconds since 1970 on this machine.
    timer   seconds, to measure with.
    """

    def __init__(
        self,
        transport: D1Transport,
        *,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.transport = transport
        self.table = ""
        self._clock = clock
        self._timer = timer
        self._ids = count(1)
        self._under_way: set[asyncio.Task[Any]] = set()

    # Making and removing ---------------------------------------------------------------------------------------------

    async def make(self) -> int:
        """Makes the table; how many tables of killed runs were removed before. Raises Failure; may be called again."""
        now, tables = await self.send(NOW, _TABLES)
        now_s = float(str(now[0][0]))
        found = [(str(name), _NAME.fullmatch(str(name))) for (name,) in tables]
        old = [name for name, match in found if match and int(match[1]) < now_s - SCRATCH_LIFETIME_S]
        self.table = self.table or f"dal_doctor_{int(now_s)}_{secrets.token_hex(8)}"
        await self.send(
            *(Entry(f"DROP TABLE IF EXISTS {name}", ()) for name in old),
            Entry(
                f"CREATE TABLE IF NOT EXISTS {self.table} (id PRIMARY KEY, parent REFERENCES {self.table} (id), "
                "value, counts, ok CHECK (ok = 1))",
                (),
            ),
        )
        return len(old)

    async def remove(self) -> bool:
        """Drops the table; False where it is still there. Raises Failure; may be called again."""
        if self._under_way:  # of a check that was cancelled: a statement must not come behind the DROP
            await asyncio.wait(self._under_way, timeout=CLOSE_TIMEOUT_S)
        _, tables = await self.send(Entry(f"DROP TABLE IF EXISTS {self.table}", ()), _TABLES)
        return not any(str(name).startswith(self.table) for (name,) in tables)

    # Asking ----------------------------------------------------------------------------------------------------------

    async def send(self, *entries: Entry) -> list[Rows]:
        """The rows of each entry, sent once as one batch. Raises Failure."""
        task = asyncio.get_running_loop().create_task(self.transport.query(body_of(entries), len(entries)))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def refused(self, kind: str, *entries: Entry) -> bool:
        """Whether a constraint of this kind refuses the batch. Raises Disproved for any other refusal."""
        try:
            await self.send(*entries)
        except Failure as failure:
            broken = broken_constraint(failure)
            if broken is not None and broken.kind == kind:
                return True
            disprove(failure, f"refused, but not by a {kind} constraint")
        return False

    async def write(self, sql: str, *params: object) -> list[Rows]:
        """One statement with its values as the library sends them."""
        return await self.send(*self.entries(sql, *params))

    async def count(self, ids: Sequence[object]) -> int:
        """How many rows with these ids the table holds."""
        sql = f"SELECT count(*) FROM {self.table} WHERE id IN (SELECT value FROM json_each(?))"
        rows = (await self.write(sql, _json(ids)))[0]
        return int(str(rows[0][0]))

    def entries(self, sql: str, *params: object) -> list[Entry]:
        return entries_of(Statement(sql, params))

    def insert(self, row_id: object, parent: object = None, value: object = None) -> Entry:
        """Entry that adds a row."""
        sql = f"INSERT INTO {self.table} (id, parent, value) VALUES (?, ?, ?)"
        return self.entries(sql, row_id, parent, value)[0]

    def ids(self, number: int) -> list[int]:
        """Ids that no row has had."""
        return [next(self._ids) for _ in range(number)]

    async def sample(self) -> Sample:
        before, started = self._clock(), self._timer()
        rows = (await self.send(NOW))[0]
        took_s = self._timer() - started
        return Sample(took_s, before + took_s / 2 - float(str(rows[0][0])))

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: nobody else may be there to do it


def disprove(failure: Failure, finding: str) -> NoReturn:
    """Raises Disproved, or the failure itself where trying again may help."""
    meaning = meaning_of(failure)
    if meaning.passes:
        raise failure
    raise Disproved(f"{finding}: {meaning.words}") from failure


def _json(values: Sequence[object]) -> str:
    import orjson

    return orjson.dumps(list(values)).decode()
