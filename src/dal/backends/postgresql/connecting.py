"""The first connection: does the database answer, as whom does it know us, and who is it?

A refused connection is told by the server's SQLSTATE. libpq gives only text for it, in the server's language, but its
protocol trace holds the code; so a connection that failed is tried once more with the trace on (Linux; elsewhere the
error says only that there was no connection). A pooler such as PgBouncer is recognised by this: the process that
answers is not the one that the connection was promised.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import sys
import tempfile
from time import monotonic
from typing import Final, NamedTuple

import psycopg
from psycopg import pq

from dal.backends.postgresql.address import Address
from dal.backends.postgresql.errors import BACKEND, connection_refused, timed_out
from dal.errors import ConfigurationError
from dal.limits import CONNECT_TIMEOUT_S

_ERROR_CODE: Final = re.compile(rb'\tErrorResponse\t.*? C "([0-9A-Z]{5})"')
_POLLING: Final = {pq.PollingStatus.READING: select.POLLIN, pq.PollingStatus.WRITING: select.POLLOUT}


class Server(NamedTuple):
    """What answered: its version, as 150013 for 15.13, and whether a pooler stands between."""

    version: int
    pooled: bool


async def greet(address: Address) -> Server:
    """What is there. Raises UnavailableError or ConfigurationError, within the connect timeout for each host."""
    try:
        connection = await psycopg.AsyncConnection.connect(address.conninfo, autocommit=True, prepare_threshold=None)
    except psycopg.errors.ConnectionTimeout as error:
        raise connection_refused("", address.label, needs_password=False) from error
    except psycopg.Error as error:
        deadline = monotonic() + address.connect_timeout_s
        state, needs_password = await asyncio.to_thread(_diagnose, address.conninfo, deadline)
        raise connection_refused(state, address.label, needs_password=needs_password) from error
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            cursor = await connection.execute("SELECT pg_backend_pid()")
            row = await cursor.fetchone()
            _check_dates(connection, address)
            pooled = row is None or row[0] != connection.info.backend_pid
            return Server(connection.info.server_version, pooled)
    except psycopg.Error as error:
        raise connection_refused(error.sqlstate or "", address.label, needs_password=False) from error
    except TimeoutError as error:
        raise timed_out("open", f"{address.label} took the connection but did not answer") from error
    finally:
        await connection.close()


def _check_dates(connection: psycopg.AsyncConnection[object], address: Address) -> None:
    style = connection.info.parameter_status("DateStyle") or "ISO"
    if not style.startswith("ISO"):
        raise ConfigurationError(
            f"{address.label} writes times as {style!r}; this library reads ISO: ALTER ROLE … SET datestyle = 'ISO'",
            operation="open",
            backend=BACKEND,
        )


def _diagnose(conninfo: str, deadline: float) -> tuple[str, bool]:
    """The SQLSTATE of a connection that is refused ("" for none), and whether only the password is missing."""
    if not sys.platform.startswith("linux"):
        return "", False
    # In memory or at once unlinked, and read by nobody else: the trace holds the exchange of the password.
    with tempfile.TemporaryFile() as trace:
        connection = pq.PGconn.connect_start(conninfo.encode())
        try:
            connection.trace(trace.fileno())
            status = pq.PollingStatus.WRITING
            while status in _POLLING and (remaining_s := deadline - monotonic()) > 0:
                waiting = select.poll()
                waiting.register(connection.socket, _POLLING[status])
                waiting.poll(remaining_s * 1000)
                status = pq.PollingStatus(connection.connect_poll())
            needs_password = status == pq.PollingStatus.FAILED and connection.needs_password
            connection.untrace()
        except psycopg.Error:
            needs_password = False
        finally:
            connection.finish()
        found = _ERROR_CODE.findall(os.pread(trace.fileno(), 1 << 16, 0))
    return (found[-1].decode() if found else ""), bool(needs_password)
