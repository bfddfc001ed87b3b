"""Adopting a database that has its tables already: files are entered as applied without being run."""

from __future__ import annotations

from dal.errors import SchemaError
from dal.schema import ledger
from dal.schema.connection import Connection, StatementError
from dal.schema.files import MigrationSet
from dal.schema.lock import Lease, LeaseLostError
from dal.schema.plan import plan
from dal.schema.turn import under_lock


async def baseline(
    connection: Connection,
    migrations: MigrationSet,
    *,
    to: str,
    environment: str | None = None,
    seed: bool = False,
) -> list[str]:
    """Enters the files up to `to` as applied, in order, and says which. Of those that wrangler has entered, whose text
    it does not remember, the text is remembered from now on; all others that are entered already are left alone.

    Nothing is looked at but the ledger: `verify` tells whether the database really holds what the files give.
    Raises SchemaError: no such file, or a file that cannot be read.
    """
    entered: list[str] = []
    found = await plan(connection, migrations, environment=environment, seed=seed, to=to)
    wrong = found.refusals(["late-migration", "edited-migration", "deleted-migration"])
    if wrong:
        raise SchemaError(f"{connection.address}: nothing was entered: {wrong[0]}", operation="schema.baseline")

    async def work(lease: Lease, _: str | None) -> None:
        names: list[str] = []
        now = await plan(connection, migrations, environment=environment, seed=seed, to=to)
        unknown = {row.name for row in now.applied if row.details is None}
        pending = {migration.name for migration in now.pending}
        batch = []
        for migration in migrations.migrations[: migrations.position(to) + 1]:
            if migration.name in pending:
                batch.append(ledger.enter(connection.engine, migration.name))
            if migration.name in pending | unknown:
                names.append(migration.name)
                count = len(migration.statements)
                batch.append(ledger.describe(connection.engine, migration, migrations.name, count, None))
        if batch:
            try:
                await connection.run([lease.guard(), *batch, lease.guard()])
            except StatementError as error:
                raise LeaseLostError from error
        entered.extend(names)

    await under_lock(connection, work)
    return entered
