"""The D1 backend: Cloudflare's SQLite over HTTP under the shared SQL store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from dal.backends.d1.dialect import d1_dialect
from dal.backends.d1.errors import BACKEND
from dal.backends.d1.executor import D1Executor
from dal.backends.d1.plan import plan, plan_searched
from dal.backends.d1.probe import SelfCheck, probe
from dal.backends.d1.schema_connection import open_schema
from dal.backends.d1.store import D1Store
from dal.backends.d1.transport import D1Address, D1Transport
from dal.backends.d1.worker import D1Worker, WorkerTransport
from dal.backends.sql import Compiler, Executor, Step
from dal.limits import D1_MAX_VALUE_BYTES, MAX_BATCH_OPS
from dal.ops import Op
from dal.store import Capabilities

if TYPE_CHECKING:
    from dal.replica import Replica

__all__ = ["D1Address", "D1Worker", "SelfCheck", "d1_self_check", "d1_store"]

_CAPABILITIES: Final = Capabilities(
    backend=BACKEND,
    durable=True,
    multi_process=True,
    interactive_transactions=False,
    search=True,
    triggers=True,
    # Measured with 16 tasks: 1,325 appends a second in one chat and 1,101 in sixteen, against 121 and 150 unmerged, and
    # a fifteenth of the requests; four lanes gave 1,397 and 468, with four times the requests of one.
    commit_lanes=1,
    max_text_bytes=D1_MAX_VALUE_BYTES,
    max_batch_ops=MAX_BATCH_OPS,
)


def d1_store(address: D1Address, token: str, *, worker: D1Worker | None = None, auto_migrate: bool = False) -> D1Store:
    """A store in the database at this address; nothing is touched before it is opened.

    token         an API token that may edit D1; through a worker it serves auto_migrate only.
    worker        the companion Worker that everything but migrations goes through.
    auto_migrate  True: bring the schema up at opening; False: never change it.
    Raises        ConfigurationError: an address or a token cannot be meant.
    """
    transport = _transport(address, token, worker)
    executor = D1Executor(transport, address.label)
    return D1Store(
        executor,
        d1_dialect(plan, plan_searched),
        _CAPABILITIES,
        address=address.label,
        schema_connection=lambda: open_schema(address, token),
        auto_migrate=auto_migrate,
        make_replica=_replica,
    )


def _replica(
    executor: Executor,
    compiler: Compiler,
    plan: Callable[[Sequence[Op]], list[Step]],
    is_searched: Callable[[], bool],
) -> Replica:
    from dal.backends.sql.sqlite_capture import REGISTRY, TriggeredReplica  # nothing of it is needed without a move

    return TriggeredReplica(executor, compiler, REGISTRY, plan, is_searched, BACKEND)


async def d1_self_check(address: D1Address, token: str, *, worker: D1Worker | None = None) -> SelfCheck:
    """Whether this database does what the library rests on, tried out in a scratch table. See probe.py.

    Raises ConfigurationError, UnavailableError and others of the taxonomy where nothing could be tried.
    """
    transport = _transport(address, token, worker)
    await transport.open()
    try:
        return await probe(transport, address.label)
    finally:
        await transport.close()


def _transport(address: D1Address, token: str, worker: D1Worker | None) -> D1Transport:
    return D1Transport(address, token) if worker is None else WorkerTransport(address, worker)
