"""`python -m tests.importing.child URL FILE ROWS`: an import that says what it has made durable, to be killed.

Prints a line after every batch: how many messages this run has written so far.
"""

from __future__ import annotations

import asyncio
import os
import sys

from dal import create_data_access
from dal.importing import Progress, import_file


async def main(url: str, path: str, batch_rows: str) -> None:
    def acknowledge(progress: Progress) -> None:
        # One write, which reaches the pipe whole or not at all, whatever kills this process.
        os.write(1, f"{progress.phase} {progress.messages}\n".encode())

    async with create_data_access(url) as dal:
        await import_file(dal, path, batch_rows=int(batch_rows), on_progress=acknowledge)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
