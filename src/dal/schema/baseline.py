"""Adopting a database that has its tables already: files are entered as applied without being run."""

from __future__ import annotations

from dal.errors import SchemaError
from dal.schema import ledger
from dal.schema.apply import under_lock
from dal.schema.connection import Connection, StatementError
from dal.schema.files import MigrationSet
from dal.schema.lock import Lease, LeaseLostError
from dal.schema.plan import plan


async def baseline(
    connection: Connection,
    migrations: MigrationSet,
    *,
    to: str,
    environment: str | None = None,
    seed: bool = False,
) -> list[str]:
    """Enters the files up to `to` as applied, in order, and says which; those that are entered already are left alone.

    Nothing is looked at but the ledger: `verify` tells whether the database really holds what the files give.
    Raises SchemaError: no such file, or a file that cannot be read.
    """
    entered: list[str] = []
    found = await plan(connection, migrations, environment=environment, seed=seed, to=to)
    wrong = found.refusals(["late-migration", "edited-migration", "deleted-migration"])
    if wrong:
        raise SchemaError(f"{connection.address}: nothing was entered: {wrong[0]}", operation="schema.baseline")

    async def work(lease: Lease, _: str | None) -> None:
        now = await plan(connection, migrations, environment=environment, seed=seed, to=to)
        batch = []
        for migration in now.pending:
            batch.append(ledger.enter(connection.engine, migration.name))
            count = len(migration.statements)
            batch.append(ledger.describe(connection.engine, migration, migrations.name, count, None))
        if batch:
            try:
                await connection.run([lease.guard(), *batch, lease.guard()])
            except StatementError as error:
                raise LeaseLostError from error
        entered.extend(migration.name for migration in now.pending)

    await under_lock(connection, work)
    return entered
