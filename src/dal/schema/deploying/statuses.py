"""Every environment of a project in one table: what it has, what it lacks, and which cannot be seen or is misbound."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from dal.errors import DalError, SchemaError, UnavailableError
from dal.schema.backups.identity import database_name
from dal.schema.deploying.after import Connect
from dal.schema.deploying.environments import Environment, Project
from dal.schema.files import library_set, read_set
from dal.schema.findings import Finding
from dal.schema.plan import plan

STATUS_TIMEOUT_S: Final = 15.0
State: TypeAlias = Literal["up-to-date", "pending", "wrong", "wrongly-bound", "unreachable", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentStatus:
    """One row of the table.

    state     `wrong`: an error among the findings.  `wrongly-bound`: its address leads to another database.
              `unreachable`: it does not answer.  `unknown`: it could not be looked at for another reason.
    address   without password; the name of the variable where that is not set.
    database  its name; empty where it could not be asked.
    applied   how many files of the set it has.  last: the newest of them.
    pending   file names, in order.
    findings  of the files and of the ledger.
    problem   why it could not be looked at, or must not be touched; empty where all is well.
    """

    name: str
    state: State
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
        return self.state == "up-to-date"


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
        return _unseen(environment, "unreachable", f"it did not answer in {timeout_s:g} s")
    except UnavailableError as error:
        return _unseen(environment, "unreachable", error.message)
    except DalError as error:
        return _unseen(environment, "unknown", error.message)


def _unseen(environment: Environment, state: State, problem: str, database: str = "") -> EnvironmentStatus:
    return EnvironmentStatus(
        name=environment.name, state=state, address=environment.address, database=database, problem=problem
    )


async def _look(environment: Environment, connect: Connect, directory: Path | None) -> EnvironmentStatus:
    async with connect(environment.url.get_secret_value()) as connection:
        name = await database_name(connection)
        try:
            environment.check_name(name)
        except SchemaError as error:
            return _unseen(environment, "wrongly-bound", error.message, name)
        place = directory or environment.directory
        files = library_set(connection.engine) if place is None else read_set(place, connection.engine)
        found = await plan(connection, files, environment=environment.name, seed=environment.seed)
    wrong = found.refusals()
    needed = any(not migration.directives.optional for migration in found.pending)
    return EnvironmentStatus(
        name=environment.name,
        state="wrong" if wrong else "pending" if needed else "up-to-date",
        address=connection.address,
        database=name,
        applied=len(found.applied),
        last=found.applied[-1].name if found.applied else "",
        pending=tuple(migration.name for migration in found.pending),
        findings=found.findings,
        problem="; ".join(str(finding) for finding in wrong),
    )
