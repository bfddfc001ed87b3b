"""Every environment of a project in one table: what it has, what it lacks, and which cannot be seen or is misbound."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dal.errors import DalError
from dal.schema.environments import Environment, Project
from dal.schema.files import library_set, read_set
from dal.schema.findings import Finding
from dal.schema.identity import database_name
from dal.schema.order import Connect
from dal.schema.plan import plan

STATUS_TIMEOUT_S: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentStatus:
    """One row of the table.

    address   without password; the name of the variable where that is not set.
    database  its name; empty where it could not be asked.
    applied   how many files of the set it has.  last: the newest of them.
    pending   file names, in order.
    findings  of the files and of the ledger.
    problem   why it could not be looked at, or must not be touched; empty where all is well.
    """

    name: str
    address: str
    database: str = ""
    applied: int = 0
    last: str = ""
    pending: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Seen, rightly bound, and up to date."""
        return not self.problem and not self.pending and all(f.severity != "error" for f in self.findings)


async def status_all(
    project: Project, connect: Connect, *, directory: Path | None = None, timeout_s: float = STATUS_TIMEOUT_S
) -> list[EnvironmentStatus]:
    """A row for every environment, in the order of the file; all are asked at once, each for `timeout_s` at most.

    connect    opens a database by its URL.
    directory  of migrations, instead of what the file says.
    """
    return list(
        await asyncio.gather(
            *(_row(environment, connect, directory, timeout_s) for environment in project.environments.values())
        )
    )


async def _row(
    environment: Environment, connect: Connect, directory: Path | None, timeout_s: float
) -> EnvironmentStatus:
    try:
        async with asyncio.timeout(timeout_s):
            return await _look(environment, connect, directory)
    except TimeoutError:
        problem = f"it did not answer in {timeout_s:g} s"
    except DalError as error:
        problem = error.message
    return EnvironmentStatus(name=environment.name, address=environment.address, problem=problem)


async def _look(environment: Environment, connect: Connect, directory: Path | None) -> EnvironmentStatus:
    async with connect(environment.url.get_secret_value()) as connection:
        name = await database_name(connection)
        environment.check_name(name)
        place = directory or environment.directory
        files = library_set(connection.engine) if place is None else read_set(place, connection.engine)
        found = await plan(connection, files, environment=environment.name, seed=environment.seed)
    return EnvironmentStatus(
        name=environment.name,
        address=connection.address,
        database=name,
        applied=len(found.applied),
        last=found.applied[-1].name if found.applied else "",
        pending=tuple(migration.name for migration in found.pending),
        findings=found.findings,
    )
