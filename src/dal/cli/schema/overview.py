"""`dal schema status --all`: every environment of dal.toml in one table, the unreachable and wrongly bound ones too."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from dal.cli.output import console, one_line, print_json, table
from dal.cli.running import FAILED, complain
from dal.cli.schema.target import Target
from dal.errors import InvalidInputError

if TYPE_CHECKING:
    from dal.schema import Connection
    from dal.schema.deploying.statuses import EnvironmentStatus

#: Of many pending files, how many the table names.
_NAMED = 3


async def overview(directory: Path | None, *, json: bool) -> int:
    """Shows all of them. 1 unless every one is up to date."""
    from dal.schema.deploying.environments import load_environments
    from dal.schema.deploying.statuses import status_all

    project = load_environments(Path.cwd())
    if not project.environments:
        raise InvalidInputError("--all: no environment is named in a dal.toml, or in [tool.dal] of a pyproject.toml")
    rows = await status_all(project, _connect, directory=directory)
    if json:
        print_json({"environments": [_json(row) for row in rows]})
    else:
        cells = [(row.name, one_line(row.address), row.state, row.applied, _some(row.pending)) for row in rows]
        console().print(table(None, ("environment", "database", "state", "applied>", "pending"), cells))
    for row in rows:
        if row.problem:
            complain(f"{row.name}: {one_line(row.problem)}")
    waiting = next((row for row in rows if row.state == "pending"), None)
    if waiting is not None:
        complain(f"run `dal schema up --env {waiting.name}`")
    return 0 if all(row.ok for row in rows) else FAILED


def _connect(url: str) -> AbstractAsyncContextManager[Connection]:
    return Target(url=url, directory=None).connect()


def _json(row: EnvironmentStatus) -> dict[str, object]:
    from dal.cli.schema.show import findings_json

    return {
        "environment": row.name,
        "address": row.address,
        "database": row.database,
        "state": row.state,
        "applied": row.applied,
        "last": row.last,
        "pending": list(row.pending),
        "findings": findings_json(row.findings),
        "problem": row.problem,
    }


def _some(names: tuple[str, ...]) -> str:
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
