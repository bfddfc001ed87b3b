"""`dal schema plan`: what `up` would do, down to the statements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dal.cli.options import AsJson
from dal.cli.output import console, print_json, table
from dal.cli.running import FAILED, complain, run
from dal.cli.schema.options import DatabaseUrl, Dir, Env, LeaveOut, UpTo
from dal.cli.schema.target import check_names, target

if TYPE_CHECKING:
    from dal.schema import Migration, Plan


def plan(
    directory: Dir = None,
    url: DatabaseUrl = None,
    env: Env = None,
    to: UpTo = None,
    leave_out: LeaveOut = None,
    sql: Annotated[bool, typer.Option("--sql", help="Print the statements, with the file and line of each.")] = False,
    json: AsJson = False,
) -> None:
    """Show what `up` would apply, in order, and what speaks against it. Writes nothing.

    Exits with 1 when a file is pending or something is wrong.
    """

    async def work() -> int:
        from dal import schema
        from dal.cli.schema.show import findings_json, print_findings, print_statements

        chosen = target(url, env, directory)
        async with chosen.look() as connection:
            migrations = chosen.migrations(connection.engine)
            check_names(migrations, to, *(leave_out or ()))
            found = await schema.plan(
                connection, migrations, environment=chosen.name, seed=chosen.seed, leave_out=leave_out or (), to=to
            )
        if json:
            print_json(
                {
                    "address": found.address,
                    "environment": found.environment,
                    "set": migrations.name,
                    "applied": [row.name for row in found.applied],
                    "pending": [_migration_json(migration, sql=sql) for migration in found.pending],
                    "left_out": [{"name": name, "why": why} for name, why in found.left_out],
                    "findings": findings_json(found.findings),
                }
            )
        elif sql:
            print_statements(found.pending)
            print_findings(found.findings, migrations.directory, to_stderr=True)
        else:
            _print(found)
            print_findings(found.findings, migrations.directory)
        if not found.pending:
            complain(f"{found.address}: up to date")
        elif not found.refusals():
            complain(chosen.how_to_apply())
        return FAILED if found.pending or found.refusals() else 0

    run(work())


def _migration_json(migration: Migration, *, sql: bool) -> dict[str, object]:
    directives = migration.directives
    document: dict[str, object] = {
        "name": migration.name,
        "checksum": migration.checksum,
        "statements": len(migration.statements),
        "transaction": directives.transaction,
        "foreign_keys": directives.foreign_keys,
        "optional": directives.optional,
        "requires": list(directives.requires),
        "phase": directives.phase,
        "has_rollback": migration.down is not None,
    }
    if sql:
        document["sql"] = [{"line": statement.line, "sql": statement.sql} for statement in migration.statements]
    return document


def _print(found: Plan) -> None:
    rows: list[tuple[object, ...]] = [
        (
            migration.name,
            len(migration.statements),
            "one transaction" if migration.directives.transaction else "statement by statement",
            "yes" if migration.down is not None else "none",
        )
        for migration in found.pending
    ]
    rows += [(name, None, f"left out: {why}", None) for name, why in found.left_out]
    if rows:
        console().print(table(found.address, ("to apply", "statements>", "how", "way back"), rows))
