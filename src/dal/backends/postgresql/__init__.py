"""The PostgreSQL backend: psycopg 3 under the shared SQL store. See docs/decisions/0003-postgresql.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final

from dal.backends.postgresql.address import parse_address
from dal.backends.postgresql.dialect import postgresql_dialect
from dal.backends.postgresql.errors import BACKEND
from dal.backends.postgresql.executor import PostgresExecutor
from dal.backends.postgresql.plan import plan, plan_searched
from dal.backends.sql import Compiler, Executor, SqlStore, Step
from dal.limits import MAX_BATCH_OPS, MAX_TEXT_BYTES
from dal.store import Capabilities

if TYPE_CHECKING:
    from dal.ops import Op
    from dal.replica import Replica
    from dal.schema.connection import Connection

__all__ = ["postgresql_store"]

_CAPABILITIES: Final = Capabilities(
    backend=BACKEND,
    durable=True,
    multi_process=True,
    interactive_transactions=True,
    search=True,
    triggers=True,
    commit_lanes=4,
    max_text_bytes=MAX_TEXT_BYTES,
    max_batch_ops=MAX_BATCH_OPS,
)


def postgresql_store(
    conninfo: str, *, max_connections: int = 20, idle_timeout_s: float = 300, auto_migrate: bool = False
) -> SqlStore:
    """A store in the database at this address; nothing is touched before it is opened.

    conninfo         a URL or keyword string as libpq takes it (several hosts, TLS parameters, …), and one parameter of
                     ours in a URL: `prepare_threshold`, the executions after which a statement is prepared on the
                     server; `none` for a pooler that cannot keep prepared statements (PgBouncer before 1.21); by
                     default 1 on a direct address and none behind a pooler.
    max_connections  a ceiling; far fewer are open in everyday work.
    idle_timeout_s   connections that nobody needed for so long are closed.
    auto_migrate     True: bring the schema up at opening; False: never change it.
    Raises           ConfigurationError: the address cannot be read.
    """
    address = parse_address(conninfo)
    executor = PostgresExecutor(address, max_connections=max_connections, idle_timeout_s=idle_timeout_s)
    return SqlStore(
        executor,
        postgresql_dialect(plan, plan_searched),
        _CAPABILITIES,
        address=address.label,
        schema_connection=lambda: _open_schema(conninfo),
        auto_migrate=auto_migrate,
        make_replica=_make_replica,
    )


def _open_schema(conninfo: str) -> AbstractAsyncContextManager[Connection]:
    # Imported here: a service that never migrates does not need it.
    from dal.backends.postgresql.schema_connection import open_schema

    return open_schema(conninfo)


def _make_replica(
    executor: Executor,
    compiler: Compiler,
    plan: Callable[[Sequence[Op]], list[Step]],
    is_searched: Callable[[], bool],
) -> Replica:
    from dal.backends.postgresql.replica import PostgresReplica

    return PostgresReplica(executor, compiler, plan, is_searched)
