"""A durable store of one's own, for one process: the store in memory, and a log of the operations committed in it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from pickle import dumps, loads

from custom_backend_log import Log

from dal.backends.memory import MemoryStore
from dal.errors import DalError
from dal.ops import Op, Receipt
from dal.store import Capabilities, ReadCommit


class LogStore(MemoryStore):
    def __init__(self, path: Path) -> None:
        self.log = Log(path)
        super().__init__()

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, backend="log", durable=True)

    async def open(self) -> None:
        if not self.log.is_open:
            super().__init__()  # empty tables
            await super().open()
            for record in self.log.open():
                for batch in record:
                    await super().commit(loads(batch))  # noqa: S301  # a file of our own

    async def close(self) -> None:
        await super().close()
        self.log.close()

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        async with self.transaction() as transaction:
            return await transaction.commit(ops)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[ReadCommit]:
        async with super().transaction() as inner:
            yield (recorder := Recorder(inner))
            self.log.append(recorder.batches)  # an exception passes this by, and nothing is kept


class Recorder:
    def __init__(self, inner: ReadCommit) -> None:
        self.read, self.inner, self.batches = inner.read, inner, list[bytes]()

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        try:
            receipt = await self.inner.commit(ops)
        except DalError as error:
            error.backend = "log"  # an error names the store it comes from
            raise
        self.batches.append(dumps(tuple(ops)))
        return receipt
