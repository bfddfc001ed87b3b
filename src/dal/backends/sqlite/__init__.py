"""SQLite: one file, WAL, durable commits, one writer with readers beside it.

Any number of tasks and processes may use one file. A commit that returned survives power loss (`synchronous=FULL`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dal.backends.sql import Compiler, Executor, SqlStore, Step
from dal.backends.sql.sqlite import sqlite_dialect
from dal.backends.sqlite.errors import BACKEND
from dal.backends.sqlite.executor import SqliteExecutor
from dal.backends.sqlite.plan import plan_linked
from dal.backends.sqlite.schema_connection import open_schema
from dal.limits import MAX_BATCH_OPS, MAX_TEXT_BYTES
from dal.ops import Op
from dal.store import Capabilities

if TYPE_CHECKING:
    from dal.replica import Replica

__all__ = ["sqlite_store"]


def sqlite_store(path: str | os.PathLike[str], *, auto_migrate: bool | None = None) -> SqlStore:
    """A store on the SQLite database at this path, not yet opened.

    auto_migrate  None: an empty or missing database gets its schema at opening. True: any database is brought up.
                  False: nothing is made; a missing file or schema is a SchemaError.
    """
    file = Path(path)
    return SqlStore(
        SqliteExecutor(file, create=auto_migrate is not False),
        sqlite_dialect(plan_linked),
        Capabilities(
            backend=BACKEND,
            durable=True,
            multi_process=True,
            interactive_transactions=True,
            search=True,
            triggers=True,
            commit_lanes=1,
            max_text_bytes=MAX_TEXT_BYTES,
            max_batch_ops=MAX_BATCH_OPS,
        ),
        address=f"sqlite:{file}",
        schema_connection=lambda: open_schema(file, create=True),
        auto_migrate=auto_migrate,
        make_replica=_replica,
    )


def _replica(
    executor: Executor,
    compiler: Compiler,
    plan: Callable[[Sequence[Op]], list[Step]],
    is_searched: Callable[[], bool],
) -> Replica:
    from dal.backends.sqlite.replica import sqlite_replica  # nothing of it is needed without a move

    return sqlite_replica(executor, compiler, plan, is_searched)
