"""The moves' side of a store on SQLite: a fence that does not wait long for others, and many rows in one statement.

Beside a trigger, SQLite keeps a copy of every page that a statement changes, until its end: a row that has a statement
of its own costs 20 µs more than one of many.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, groupby
from operator import attrgetter
from typing import Final, cast

from dal.backends.sql import Compiler, Executor, Result, Statement, Step
from dal.backends.sql.sqlite_capture import REGISTRY, TriggeredReplica
from dal.backends.sqlite.errors import BACKEND
from dal.backends.sqlite.executor import SqliteExecutor
from dal.errors import DalTimeoutError
from dal.limits import FENCE_LOCK_TIMEOUT_S
from dal.ops import Op

#: Rows of a statement: its text is prepared once for each number, and SQLite takes some 32,000 parameters.
_ROWS: Final = (256, 32, 4, 1)
_INSERT: Final = re.compile(r"(INSERT INTO \w+ \([\w, ]+\) VALUES )(\([?, ]+\))( ON CONFLICT .*)?")


def sqlite_replica(
    executor: Executor,
    compiler: Compiler,
    plan: Callable[[Sequence[Op]], list[Step]],
    is_searched: Callable[[], bool],
) -> SqliteReplica:
    return SqliteReplica(executor, compiler, replace(REGISTRY, bulk=in_bulk, load=_load), plan, is_searched, BACKEND)


def _load(table: str, names: Sequence[str], columns: list[list[object]]) -> list[Statement]:
    sql = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608
    return in_bulk([Statement(sql, list(zip(*columns, strict=True)), many=True)])


def in_bulk(statements: Sequence[Statement]) -> list[Statement]:
    """Neighbours that insert rows by the same text as statements of many rows, in the few sizes of _ROWS."""
    made: list[Statement] = []
    for sql, group in groupby(statements, key=attrgetter("sql")):
        alike = list(group)
        found = _INSERT.fullmatch(sql)
        if found is None:
            made += alike
            continue
        rows: list[Sequence[object]] = []
        for statement in alike:
            rows += cast("Sequence[Sequence[object]]", statement.params) if statement.many else [statement.params]
        place = 0
        for size in _ROWS:
            text = f"{found[1]}{', '.join([found[2]] * size)}{found[3] or ''}"
            while place + size <= len(rows):
                made.append(Statement(text, list(chain.from_iterable(rows[place : place + size]))))
                place += size
    return made


class SqliteReplica(TriggeredReplica):
    """The moves' side of one SQLite file."""

    async def _batch_at_once(self, statements: Sequence[Statement]) -> Sequence[Result]:
        executor = cast(SqliteExecutor, self._executor)
        try:
            return await executor.batch(statements, patience_s=FENCE_LOCK_TIMEOUT_S)
        except DalTimeoutError as error:
            raise DalTimeoutError(
                f"a writer under way held the database for {FENCE_LOCK_TIMEOUT_S:g} s; try again",
                operation="change_gate",
                backend=self._backend,
            ) from error
