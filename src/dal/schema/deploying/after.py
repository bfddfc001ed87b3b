"""An environment that comes after another gets only what that one has: the same files, with the same content."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeAlias

from dal.errors import DalError, SchemaError
from dal.schema.connection import Connection
from dal.schema.deploying.environments import Environment
from dal.schema.files import Migration, MigrationSet
from dal.schema.plan import plan

#: Opens the database at a URL, for as long as the block lasts.
Connect: TypeAlias = Callable[[str], AbstractAsyncContextManager[Connection]]
#: For a look at another environment's ledger.
ASK_TIMEOUT_S: Final = 30.0
_CHANGED: Final = frozenset({"edited-migration", "changed-while-begun"})


async def check_order(
    environment: Environment,
    first: Environment,
    migrations: MigrationSet,
    pending: Sequence[Migration],
    connect: Connect,
    *,
    leave_out: Collection[str] = (),
    timeout_s: float = ASK_TIMEOUT_S,
) -> None:
    """Raises SchemaError where `first` lacks a pending file, has it with another content, or cannot be asked.

    Files that `first` never gets (`-- dal:env`) are not demanded of it. One that it has only begun is still lacking.
    """
    try:
        async with asyncio.timeout(timeout_s), connect(first.url.get_secret_value()) as connection:
            await first.check_database(connection)
            if connection.engine != migrations.engine:
                raise SchemaError(f"it is {connection.engine}, and these files are for {migrations.engine}")
            there = await plan(connection, migrations, environment=first.name, seed=first.seed, leave_out=leave_out)
    except (DalError, TimeoutError) as error:
        reason = error.message if isinstance(error, DalError) else f"it did not answer in {timeout_s:g} s"
        raise SchemaError(
            f"{environment.name} comes after {first.name}, which could not be asked: {reason} (nothing was written)",
            operation="schema.up",
        ) from error
    wanted = {migration.name for migration in pending}
    lacking = [migration.name for migration in there.pending if migration.name in wanted]
    changed = [finding.file for finding in there.findings if finding.rule in _CHANGED and finding.file in wanted]
    if lacking or changed:
        parts = [f"it lacks {', '.join(lacking)}"] if lacking else []
        parts += [f"it has {', '.join(changed)} with another content"] if changed else []
        raise SchemaError(
            f"{environment.name} comes after {first.name}: {' and '.join(parts)}; bring {first.name} up first, with "
            f"`dal schema up --env {first.name}` (nothing was written)",
            operation="schema.up",
        )
