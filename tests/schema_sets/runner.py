"""`python -m tests.schema_sets.runner URL DIRECTORY`: applies a set in a process of its own, one that can be killed.

Every report of progress is a line: file, statement, how many there are, phase.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from dal.factory import schema_connection
from dal.schema import Progress, read_set, up


def _say(progress: Progress) -> None:
    print(progress.name or "-", progress.statement, progress.of, progress.phase, flush=True)


async def _main(url: str, directory: Path) -> None:
    async with schema_connection(url) as connection:
        await up(connection, read_set(directory, connection.engine), on_progress=_say)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], Path(sys.argv[2])))
