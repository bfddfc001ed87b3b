"""The moves' side of a store on SQLite: its triggers, and a fence that does not wait long for other processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from dal.backends.sql import Compiler, Executor, Result, Statement, Step
from dal.backends.sql.sqlite_capture import REGISTRY, TriggeredReplica
from dal.backends.sqlite.errors import BACKEND
from dal.backends.sqlite.executor import SqliteExecutor
from dal.errors import DalTimeoutError
from dal.limits import FENCE_LOCK_TIMEOUT_S
from dal.ops import Op


def sqlite_replica(executor: Executor, compiler: Compiler, plan: Callable[[Sequence[Op]], list[Step]]) -> SqliteReplica:
    return SqliteReplica(executor, compiler, REGISTRY, plan, BACKEND)


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
