"""`python -m tests.move.file_life`: lives of a file store in a live move, ended at a named point by tests.fault.killer.

Between the steps of a history a mover does its part: it reads what is dirty and acknowledges it with the hash of the
row it read, fences a unit and takes the fence back. So whoever opens the store next can tell whether registry and rows
belong together.
"""

from __future__ import annotations

import asyncio
import os

from dal.backends.file import FileStore
from dal.errors import DalTimeoutError
from dal.move.canonical import row_hash
from dal.replica import UNITS, Copied, Gate, Replica
from dal.tables import TABLES
from tests.fault import history
from tests.fault.killer import SEGMENT_BYTES, serve

GATES = [Gate(unit, "m1", "source", "primary", 1, 2, "CAPTURE") for unit in UNITS]
FENCED = "files"


async def _live(directory: str, seed: int, steps: int, acknowledged: int) -> None:
    store = FileStore(directory, segment_bytes=SEGMENT_BYTES)
    await store.open()
    replica = store.replica()
    await replica.install(GATES)
    await _gate(replica, "primary")
    number = await history.progress(store)
    if number < 0:
        await history.begin(store)
        number = 0
    os.write(acknowledged, b"%d\n" % number)
    for _ in range(steps):
        number += 1
        await history.take(store, seed, number)
        os.write(acknowledged, b"%d\n" % number)
        if number % 3 == 0:
            await _copy(replica)
        if number % 10 == 0:
            await _gate(replica, "fenced")
            await _gate(replica, "primary")
    await store.close()


async def _copy(replica: Replica) -> None:
    for table in TABLES:
        found = await replica.dirty(table, 7)
        hashed = [(e, None if e.row is None else row_hash(TABLES[table], e.row)) for e in found]
        await replica.acknowledge([Copied(table, e.id, e.version, hash_) for e, hash_ in hashed])


async def _gate(replica: Replica, role: str) -> None:
    while True:
        try:
            await replica.change_gate(FENCED, expect={"epoch": 1}, change={"role": role})
        except DalTimeoutError:
            await asyncio.sleep(0)  # a checkpoint is under way
        else:
            return


if __name__ == "__main__":
    serve(_live)
