"""One mover at a time: a lease in the target, which is renewed while a move is at work.

Two movers would do no harm, for what is there is never copied again, but twice the work. So a lease that nobody renews
is taken over without more ado: at once where its process is known to be dead, else when it has run out.
"""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import orjson

from dal.blobs.base import BlobStore
from dal.errors import AlreadyExistsError, ConflictError, NotFoundError, UnsupportedError
from dal.files.keys import MOVER
from dal.files_move.options import MoveOptions
from dal.files_move.throttle import Sleep
from dal.limits import CONTENTS_LEASE_S
from dal.tasks import end
from dal.values import Clock

KEY: Final = f"{MOVER}mover"
_RENEWALS: Final = 3  # of one lease


@asynccontextmanager
async def turn(target: BlobStore, options: MoveOptions) -> AsyncIterator[None]:
    """Holds the target's lease while the block runs.

    Raises  ConflictError (retryable): another mover is at work on this target.
    """
    lease = _Lease(target, options.clock)
    await lease.take(options.sleep)
    renewing = asyncio.create_task(lease.keep())
    try:
        yield
    finally:
        await end(renewing)
        await target.delete([KEY])


class _Lease:
    def __init__(self, target: BlobStore, clock: Clock) -> None:
        self._target = target
        self._clock = clock
        self._me = {"owner": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid()}

    async def take(self, sleep: Sleep) -> None:
        waited_s = 0.0
        while True:
            try:
                await self._write(if_absent=True)
                return
            except AlreadyExistsError:
                left_s = await self._left_s()
            except UnsupportedError:  # then two that begin in the same moment may both get it, which is no harm
                if (left_s := await self._left_s()) <= 0:
                    await self._write(if_absent=False)
                    return
            if left_s <= 0:
                await self._target.delete([KEY])
            elif waited_s <= CONTENTS_LEASE_S:  # whoever lives renews the lease meanwhile
                pause_s = min(left_s, CONTENTS_LEASE_S) + 0.1
                waited_s += pause_s
                await sleep(pause_s)
            else:
                raise ConflictError(
                    "another mover is at work on this target; wait for its end, or stop it",
                    operation="files.move",
                    retryable=True,
                )

    async def keep(self) -> None:
        while True:
            await asyncio.sleep(CONTENTS_LEASE_S / _RENEWALS)
            await self._write(if_absent=False)

    async def _write(self, *, if_absent: bool) -> None:
        lease = orjson.dumps({**self._me, "at": self._clock()})
        await self._target.put(KEY, lease, content_type="application/json", if_absent=if_absent)

    async def _left_s(self) -> float:
        """For how long the lease that is there still counts; 0 for one of a process that is dead, or none at all."""
        try:
            async with await self._target.get(KEY) as reading:
                held = orjson.loads(b"".join([piece async for piece in reading.data]))
            at = datetime.fromisoformat(held["at"])
            if held["host"] == self._me["host"] and _is_dead(int(held["pid"])):
                return 0.0
        except NotFoundError:
            return 0.0
        except (ValueError, KeyError, TypeError):  # nobody's lease
            return 0.0
        return CONTENTS_LEASE_S - (self._clock() - at).total_seconds()


def _is_dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
