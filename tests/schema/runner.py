"""A runner in a process of its own, to be killed: `python -m tests.schema.runner URL DIRECTORY up|down CALLS`.

It prints a line for each step of its progress. With CALLS it kills itself, as `kill -9` would, at that batch or lone
statement that it sends: before it when the number is odd, when its answer has come when it is even. 0: never.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

from dal import schema
from dal.factory import schema_connection
from dal.schema import Connection, Progress, lock
from tests.schema.faulty import Faulty


class Mortal(Faulty):
    """Kills the process at a call."""

    def __init__(self, inner: Connection, calls: int) -> None:
        super().__init__(inner)
        self._left = calls

    async def _meet(self, text: str, call: Callable[[], Awaitable[None]]) -> None:
        self._pass()
        await super()._meet(text, call)
        self._pass()

    def _pass(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def tell(progress: Progress) -> None:
    print(progress.phase, progress.name, progress.statement, flush=True)


async def main(url: str, directory: str, way: str, calls: str) -> None:
    # So that nobody waits for a dead one for long; two that are alive are kept apart by the guard all the same.
    lock.SCHEMA_LEASE_S = 0.3  # type: ignore[attr-defined]
    async with schema_connection(url, create=True) as opened:
        migrations = schema.read_set(Path(directory), opened.engine)
        connection = cast(Connection, Mortal(opened, int(calls)))
        if way == "up":
            done = await schema.up(connection, migrations, on_progress=tell)
        else:
            done = await schema.down(connection, migrations, steps=len(migrations.migrations), on_progress=tell)
        print("ended", " ".join(migrated.name for migrated in done), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
