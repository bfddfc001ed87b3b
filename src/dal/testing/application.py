"""For the tests of applications: a DataAccess in memory whose clock and ids the test owns."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count

from dal.access import DataAccess
from dal.backends.memory import MemoryStore
from dal.blobs.memory import MemoryBlobStore
from dal.files.options import FileOptions
from dal.testing.rows import START, row_id
from dal.values import Clock, IdMaker


class FakeClock:
    """A clock that stands still until it is moved. `now` is its time, aware and in UTC."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        """Moves the clock; a negative number moves it back, as real clocks do now and then."""
        self.now += timedelta(seconds=seconds)


def sequential_ids() -> Callable[[], str]:
    """An id maker that gives the same UUIDs, in ascending order, in every run."""
    numbers = count(1)
    return lambda: row_id(next(numbers))


def memory_data_access(
    *, clock: Clock | None = None, new_id: IdMaker | None = None, files: FileOptions | None = None
) -> DataAccess:
    """An empty DataAccess in memory, not yet opened: `async with memory_data_access() as dal`.

    clock   a FakeClock of the test's own, to let time pass; None gives one that stands still.
    new_id  gives the ids of new rows; None gives `sequential_ids()`.
    files   the contents of files are kept too, under these options; None keeps their rows only.
    """
    time = clock or FakeClock()
    blobs = None if files is None else MemoryBlobStore(clock=time)
    return DataAccess(MemoryStore(), clock=time, new_id=new_id or sequential_ids(), blobs=blobs, files=files)
