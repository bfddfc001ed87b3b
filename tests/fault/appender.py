"""`python -m tests.fault.appender DIRECTORY FIRST COUNT`: appends messages to one chat, beside others that do the same.

Waits for a line on standard input, so that all begin together; prints the sequence number of each acknowledged message.
"""

from __future__ import annotations

import asyncio
import sys

from dal.backends.file import FileStore
from dal.testing import rows


async def main(directory: str, first: int, count: int) -> None:
    store = FileStore(directory, segment_bytes=4_000)
    await store.open()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for number in range(first, first + count):
        receipt = await store.commit(rows.append(number, 1))
        assert receipt.rows[1] is not None
        print(rows.row_id(number), receipt.rows[1][0], flush=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
