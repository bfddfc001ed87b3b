"""Where the rows of one backend are measured: subjects on their own copies of the same data, opened when needed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from dal import Settings, create_data_access, schema
from dal.factory import schema_connection
from tests.bench.data import Data
from tests.bench.measure import Side
from tests.bench.paths import Against, Row
from tests.bench.subject import Subject


class Stage:
    """The subjects of one backend by name. An async context manager; closes what it opened.

    directory  a directory of its own for the files of this stage.
    engine     what the numbers were measured on, once it is set up; empty where the machine's description says it.
    """

    backend: ClassVar[str]
    rows: ClassVar[tuple[Row, ...]]

    def __init__(self, directory: Path, data: Data) -> None:
        self.directory = directory
        self.data = data
        self.stack = AsyncExitStack()
        self.engine = ""
        self._subjects: dict[str, Subject] = {}

    async def __aenter__(self) -> Self:
        try:
            await self.set_up()
        except BaseException:
            await self.stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.leave(())
        finally:
            await self.stack.aclose()

    async def set_up(self) -> None:
        """Starts what the subjects need."""

    async def make(self, name: str) -> Subject:
        """A new subject on a fresh copy of the data, not yet opened."""
        raise NotImplementedError

    async def subject(self, name: str) -> Subject:
        """The subject of this name, open."""
        if name not in self._subjects:
            subject = await self.make(name)
            await subject.open()
            self._subjects[name] = subject
        return self._subjects[name]

    async def sides(self, row: Row) -> list[Side]:
        """The library's side and those of its baselines, in the row's order."""
        return [
            await self._side(row, Against(row.who)),
            *[await self._side(row, against) for against in row.against],
        ]

    async def _side(self, row: Row, against: Against) -> Side:
        subject = await self.subject(against.subject)
        return Side(
            subject.name,
            (against.workload or row.workload)(subject, self.data),
            tasks=row.tasks if against.tasks is None else against.tasks,
            per_call=self.data.scale.bulk_messages if row.bulk else 1,
            calls=row.calls,
            requests=subject.requests,
            settled=subject.settled,
        )

    async def leave(self, later: Sequence[Row]) -> None:
        """Closes the subjects that none of the rows to come asks for: idle ones have threads and tasks of their own."""
        wanted = {name for row in later for name in (row.who, *(against.subject for against in row.against))}
        for name in [name for name in self._subjects if name not in wanted]:
            await self._subjects.pop(name).close()


async def fill_sql(url: str, data: Data, *, search: bool, settings: Settings | None = None, rows: bool = True) -> None:
    """Makes the schema in an empty database, with or without the search migration, and writes the data."""
    async with schema_connection(url, settings=settings, create=True) as connection:
        await schema.up(connection, leave_out=() if search else ("0002_search.sql",))
    if rows:
        async with create_data_access(url, settings=settings) as dal:
            await data.fill(dal)
