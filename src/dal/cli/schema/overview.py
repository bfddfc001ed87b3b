"""`dal schema status --all`: every environment of dal.toml in one table, the unreachable and wrongly bound ones too."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dal.cli.output import console, one_line, print_json, table
from dal.cli.running import FAILED, complain
from dal.cli.schema.status import needed, usable
from dal.cli.schema.target import Target
from dal.errors import DalError, InvalidInputError, UnavailableError

if TYPE_CHECKING:
    from dal.schema.environments import Environment

#: Of many pending files, how many the table names.
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Where one environment stands.

    state    `up-to-date`, `pending`, or `wrong`: a finding. `wrongly-bound`: its address leads to another database.
             `unreachable`: it does not answer. `unknown`: it could not be looked at for another reason.
    problem  what is wrong, in a sentence; empty where it is up to date or pending.
    """

    environment: str
    address: str
    state: str
    applied: list[str]
    pending: list[str]
    problem: str = ""


async def overview(directory: Path | None, *, json: bool) -> int:
    """Shows all of them. 1 unless every one is up to date."""
    from dal.schema.environments import load_environments

    project = load_environments(Path.cwd())
    if not project.environments:
        raise InvalidInputError("--all: no environment is named in a dal.toml, or in [tool.dal] of a pyproject.toml")
    rows = await asyncio.gather(*(_row(environment, directory) for environment in project.environments.values()))
    if json:
        print_json({"environments": [asdict(row) for row in rows]})
    else:
        cells = [
            (row.environment, one_line(row.address), row.state, len(row.applied), _some(row.pending)) for row in rows
        ]
        console().print(table(None, ("environment", "database", "state", "applied>", "pending"), cells))
    for row in rows:
        if row.problem:
            complain(f"{row.environment}: {one_line(row.problem)}")
    waiting = next((row for row in rows if row.state == "pending"), None)
    if waiting is not None:
        complain(f"run `dal schema up --env {waiting.environment}`")
    return FAILED if any(row.state != "up-to-date" for row in rows) else 0


def _some(names: list[str]) -> str:
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


async def _row(environment: Environment, directory: Path | None) -> Row:
    from dal.schema import plan

    unseen = "unknown"
    try:
        chosen = Target(
            url=environment.url.get_secret_value(),
            directory=environment.directory if directory is None else directory,
            environment=environment,
        )
        async with chosen.connect(check_name=False) as connection:
            unseen = "wrongly-bound"
            await environment.check_database(connection)
            unseen = "unknown"
            migrations = chosen.migrations(connection.engine)
            found = await plan(connection, migrations, environment=chosen.name, seed=chosen.seed)
    except UnavailableError as error:
        return _unseen(environment, "unreachable", error)
    except DalError as error:
        return _unseen(environment, unseen, error)
    wrong = found.refusals()
    state = "wrong" if wrong else "up-to-date" if usable(found) else "pending"
    return Row(
        environment=environment.name,
        address=found.address,
        state=state,
        applied=[row.name for row in found.applied],
        pending=needed(found),
        problem="; ".join(str(finding) for finding in wrong),
    )


def _unseen(environment: Environment, state: str, error: DalError) -> Row:
    name, address = environment.name, environment.address
    return Row(environment=name, address=address, state=state, applied=[], pending=[], problem=error.message)
