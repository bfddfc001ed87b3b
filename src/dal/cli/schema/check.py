"""`dal schema validate`, `verify`, `drift` and `explain`: do the files run, is the database what they give, and do its
queries use their indexes?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.options import AsJson
from dal.cli.output import console, one_line, print_json, printable, table
from dal.cli.running import FAILED, complain, run
from dal.cli.schema.options import DatabaseUrl, Dir, Env
from dal.cli.schema.target import Target, target
from dal.errors import InvalidInputError

if TYPE_CHECKING:
    from dal.schema import Connection
    from dal.schema.checking.explain import Explained


def validate(directory: Dir = None, url: DatabaseUrl = None, env: Env = None, json: AsJson = False) -> None:
    """Try every file forward, back and forward again on a scratch database. The database itself is left alone.

    The scratch database is one of the same engine and server; without --url and --env, files for SQLite are tried in
    memory. Exits with 1 when a file does not run, or its way back does not restore what was there.
    """

    async def work() -> int:
        from dal.cli.schema.progress import MigrationProgress
        from dal.cli.schema.show import findings_json, print_findings
        from dal.schema.checking.validate import validate as check

        chosen = target(url, env, directory)
        async with _engine(chosen) as connection:
            migrations = chosen.migrations(connection.engine)
            with MigrationProgress(None) as progress:
                found = await check(connection, migrations, on_progress=progress.show)
        if json:
            print_json(found.to_dict() | {"findings": findings_json(found.findings)})
        else:
            rows = [(f.name, f.statements, f.up_ms, f.down_ms, f.again_ms) for f in found.files]
            names = ("file", "statements>", "forward ms>", "back ms>", "again ms>")
            console().print(table(f"{found.schema_set}, tried on {connection.place}", names, rows))
            print_findings(found.findings, migrations.directory)
        return 0 if found.ok else FAILED

    run(work())


def verify(directory: Dir = None, url: DatabaseUrl = None, env: Env = None, json: AsJson = False) -> None:
    """Compare a database with what its applied files give on an empty one, object by object, and ask checks/verify.sql.

    What is missing or different counts, what nobody declared does not: `drift` shows that. Writes nothing. Exits with 1
    when something is not as it should be.
    """

    async def work() -> int:
        from dal.cli.schema.show import findings_json, print_findings
        from dal.schema.checking.verify import verify as check

        chosen = target(url, env, directory)
        async with chosen.connect() as connection:
            migrations = chosen.migrations(connection.engine)
            found = await check(connection, migrations)
        if json:
            print_json(found.to_dict() | {"findings": findings_json(found.findings)})
        else:
            rows: list[tuple[object, ...]] = [(kind, count) for kind, count in found.objects.items() if count]
            answered = sum(one.ok for one in found.checks)
            rows.append(("right answers to checks/verify.sql", f"{answered} of {len(found.checks)}"))
            console().print(table(found.address, ("found", "count>"), rows))
            for difference in found.differences:
                print(one_line(str(difference)))
            for one in found.checks:
                if not one.ok:
                    print(one_line(f"{one.query.place}: {one.query.name}: {one.problem}"))
            print_findings(found.findings, migrations.directory)
        complain(f"{found.address}: {'as its files make it' if found.ok else 'not as its files make it'}")
        return 0 if found.ok else FAILED

    run(work())


def drift(directory: Dir = None, url: DatabaseUrl = None, env: Env = None, json: AsJson = False) -> None:
    """Show in what a database is not what its applied files give, both ways: also what nobody declared.

    Writes nothing. Exits with 1 when there is a difference.
    """

    async def work() -> int:
        from dataclasses import asdict

        from dal.schema.checking.verify import drift as check

        chosen = target(url, env, directory)
        async with chosen.connect() as connection:
            migrations = chosen.migrations(connection.engine)
            found = await check(connection, migrations)
        if json:
            print_json({"address": connection.address, "differences": [asdict(one) for one in found]})
        else:
            for one in found:
                print(one_line(str(one)))
        if not found:
            complain(f"{connection.address}: no difference")
        return FAILED if found else 0

    run(work())


def explain(
    query: Annotated[
        list[str] | None,
        typer.Argument(help="SELECT …; without one, those of checks/explain.sql.", show_default=False),
    ] = None,
    directory: Dir = None,
    url: DatabaseUrl = None,
    env: Env = None,
    runs: Annotated[int, typer.Option("--runs", min=0, max=1000, help="How often to run each, for its time.")] = 5,
    json: AsJson = False,
) -> None:
    """Show how the database finds the rows of key queries. Exits with 1 when one reads a whole table."""

    async def work() -> int:
        from dal.schema.checking.explain import explain as plans

        chosen = target(url, env, directory)
        async with chosen.connect() as connection:
            files = chosen.migrations(connection.engine).directory
            found = await plans(connection, query or files, runs=runs)
        if not found:
            raise InvalidInputError(f"there is no query: give one, or write {files / 'checks' / 'explain.sql'}")
        if json:
            print_json({"address": connection.address, "queries": [one.to_dict() for one in found]})
        else:
            _print_plans(found)
        for one in found:
            for problem in one.problems:
                complain(f"{one_line(one.query.place)}: {one_line(problem)}")
        return 0 if all(one.ok for one in found) else FAILED

    run(work())


def _print_plans(found: list[Explained]) -> None:
    rows = [
        (
            one_line(one.query.name),
            ", ".join(one.indexes) or "none",
            ", ".join(one.full_scans),
            one.duration_ms,
            "fine" if one.ok else "wrong",
        )
        for one in found
    ]
    console().print(table(None, ("query", "indexes", "reads all of", "ms>", ""), rows))
    for one in found:
        if len(found) == 1 or not one.ok:
            print(printable(f"{one.query.name}\n" + "\n".join(f"    {line}" for line in one.plan_lines)))


@asynccontextmanager
async def _engine(chosen: Target) -> AsyncIterator[Connection]:
    """A connection of the engine that the files are for: a temporary SQLite database where no database is named, or one
    that is not there yet."""
    named = chosen.url is not None or not chosen.keeps_own_layout
    if named and chosen.absent is None:
        async with chosen.connect() as connection:
            yield connection
        return
    root = chosen.directory
    if not named and root is not None and not any(root.glob("*.sql")) and not (root / "sqlite").is_dir():
        raise InvalidInputError(
            f"{root} holds no files for SQLite; name a database of their engine with --url or --env"
        )
    if not named:
        complain("no database is named, so the files are tried on SQLite")
    with TemporaryDirectory(prefix="dal-validate-") as temporary:
        scratch = Target(url=f"sqlite:{Path(temporary) / 'empty.db'}", directory=root)
        async with scratch.connect(create=True) as connection:
            yield connection
