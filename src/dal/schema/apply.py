"""Bringing a database up, and taking migrations back.

The plan is made once without the lock, so that a database that lacks nothing costs two round trips, and again under it,
because another runner may have been at work meanwhile. Whatever interrupts a run (another runner that took over, an
answer that was lost), the ledger is read again under a new lock, and the run goes on from what it says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import NamedTuple, TypeVar

from dal.errors import SchemaError
from dal.limits import SCHEMA_BUSY_WAIT_S
from dal.schema import ledger
from dal.schema.connection import Connection
from dal.schema.files import Migration, MigrationSet, library_set
from dal.schema.ledger import Details
from dal.schema.lock import Lease
from dal.schema.patience import patiently
from dal.schema.plan import Mine, Plan, plan
from dal.schema.progress import Migrated, OnProgress, ignore
from dal.schema.running import Runner
from dal.schema.turn import Waiting, under_lock

_T = TypeVar("_T")


async def up(
    connection: Connection,
    migrations: MigrationSet | None = None,
    *,
    environment: str | None = None,
    seed: bool = False,
    to: str | None = None,
    leave_out: Collection[str] = (),
    allow: Collection[str] = (),
    backup_ref: str | None = None,
    on_progress: OnProgress | None = None,
    wait_s: float | None = None,
) -> list[Migrated]:
    """Applies what is pending, in order, and says what it applied; safe to repeat and to run twice at once.

    migrations   None: the library's own.
    environment, seed, to, leave_out  as for `plan`.
    allow        rules of findings to go past, of those in `plan.ALLOWABLE`.
    backup_ref   kept with each file that this run applies.
    wait_s       for another runner, and for each file that meets locks; None: the limits of the library.
    Raises       SchemaError: a finding refuses the run, or a file fails: its transaction is rolled back, those before
                 it stay.  DalTimeoutError: locks were in the way for too long.  UnavailableError: the database does not
                 answer; when it does again, the next run knows what has happened.
    """
    chosen = library_set(connection.engine) if migrations is None else migrations
    run = _Run(connection, chosen, on_progress or ignore, wait_s)

    async def make_plan() -> Plan:
        found = await plan(connection, chosen, environment=environment, seed=seed, leave_out=leave_out, to=to)
        _refuse(found, allow)
        return found

    if not (await run.patiently(make_plan)).pending:
        return []
    done: dict[str, Migrated] = {}

    async def work(lease: Lease, in_doubt: str | None) -> None:
        found = await run.patiently(make_plan)
        if in_doubt is not None and all(migration.name != in_doubt for migration in found.pending):
            done.setdefault(in_doubt, _unmeasured(chosen, in_doubt))
        runner = run.runner(lease, backup_ref)
        for migration in found.pending:
            done[migration.name] = await runner.forward(migration, found.begun.get(migration.name))

    await under_lock(connection, work, on_progress=run.on_progress, wait_s=wait_s)
    return list(done.values())


async def down(
    connection: Connection,
    migrations: MigrationSet | None = None,
    *,
    steps: int = 1,
    to: str | None = None,
    only: str | None = None,
    on_progress: OnProgress | None = None,
    wait_s: float | None = None,
) -> list[Migrated]:
    """Takes the newest migrations of the set back, newest first, and says which.

    steps   how many.
    to      instead: all that were applied after this file; the file itself stays.
    only    instead: this optional file, wherever it stands; nothing where it is not applied.
    Raises  SchemaError: a rollback is missing, or an applied file was edited or deleted (nothing has happened), or a
            rollback fails (it is rolled back, those before it stay taken back).  Others as `up`.
    """
    chosen = library_set(connection.engine) if migrations is None else migrations
    run = _Run(connection, chosen, on_progress or ignore, wait_s)

    async def look() -> Mine:
        return Mine(chosen, await ledger.read(connection))

    wanted = _to_take_back(chosen, await run.patiently(look), steps, to, only)
    if not wanted:
        return []
    done: dict[str, Migrated] = {}

    async def work(lease: Lease, in_doubt: str | None) -> None:
        mine = await run.patiently(look)
        # Only what was chosen before the lock: of two runners that take one step back, the second finds it gone.
        there = [name for name in wanted if name in mine.applied or name in mine.begun]
        if in_doubt is not None and in_doubt not in there:
            done.setdefault(in_doubt, _unmeasured(chosen, in_doubt))
        runner = run.runner(lease, None)
        for migration, details in _checked(chosen, mine, there):
            is_applied = migration.name in mine.applied
            done[migration.name] = await runner.back(migration, details, is_applied=is_applied)

    await under_lock(connection, work, on_progress=run.on_progress, wait_s=wait_s)
    return list(done.values())


class _Run(NamedTuple):
    """One call of `up` or `down`."""

    connection: Connection
    migrations: MigrationSet
    on_progress: OnProgress
    wait_s: float | None

    @property
    def busy_wait_s(self) -> float:
        return SCHEMA_BUSY_WAIT_S if self.wait_s is None else self.wait_s

    def runner(self, lease: Lease, backup_ref: str | None) -> Runner:
        return Runner(
            connection=self.connection,
            lease=lease,
            schema_set=self.migrations.name,
            backup_ref=backup_ref,
            busy_wait_s=self.busy_wait_s,
            on_progress=self.on_progress,
        )

    async def patiently(self, look: Callable[[], Awaitable[_T]]) -> _T:
        """A look at the ledger; in a SQLite file without WAL, a writer keeps readers out for a while."""
        return await patiently(look, wait_s=self.busy_wait_s, meanwhile=Waiting(self.on_progress).meanwhile)


def _refuse(found: Plan, allow: Collection[str]) -> None:
    refusals = found.refusals(allow)
    if not refusals:
        return
    shown = "; ".join(f"{finding}{f' ({finding.advice})' if finding.advice else ''}" for finding in refusals[:5])
    more = f"; and {len(refusals) - 5} more" if len(refusals) > 5 else ""
    raise SchemaError(f"{found.address}: nothing was applied: {shown}{more}", operation="schema.up")


def _to_take_back(migrations: MigrationSet, mine: Mine, steps: int, to: str | None, only: str | None) -> list[str]:
    """Newest first. A file that was begun and not finished is the newest of all. Refused before anything is done."""
    names = [*mine.begun, *reversed(mine.applied)]
    if to is not None and to not in mine.applied:
        raise SchemaError(f"{to} is not applied; nothing was taken back", operation="schema.down")
    if only is not None:
        _check_alone(migrations, mine, only)
        names = [name for name in names if name == only]
    else:
        names = names[:steps] if to is None else names[: names.index(to)]
    _checked(migrations, mine, names)
    return names


def _check_alone(migrations: MigrationSet, mine: Mine, name: str) -> None:
    """Raises SchemaError where later files may stand on this one."""
    migration = migrations.get(name)
    if migration is None or not migration.directives.optional:
        raise SchemaError(f"{name} is not optional, so it cannot be taken back alone", operation="schema.down")
    for other in migrations.migrations:
        if name in other.directives.requires and other.name in mine.applied:
            raise SchemaError(f"{name} cannot be taken back: {other.name} requires it", operation="schema.down")


def _checked(migrations: MigrationSet, mine: Mine, names: list[str]) -> list[tuple[Migration, Details | None]]:
    found: list[tuple[Migration, Details | None]] = []
    for name in names:
        migration = migrations.get(name)
        is_applied = name in mine.applied
        details = mine.applied[name].details if is_applied else mine.begun[name]
        trouble = _cannot_go_back(migrations, migration, name, details, is_applied=is_applied)
        if migration is None or trouble:
            raise SchemaError(f"{name} cannot be taken back: {trouble} (nothing was done)", operation="schema.down")
        found.append((migration, details))
    return found


def _cannot_go_back(
    migrations: MigrationSet, migration: Migration | None, name: str, details: Details | None, *, is_applied: bool
) -> str:
    if migration is None:
        return "it is not in the directory any more"
    if migration.down is None:
        return f"there is no rollback/{name}"
    wrong = [f for f in migrations.findings if f.severity == "error" and f.file == migration.down.name]
    if wrong:
        return str(wrong[0])
    if details is None:
        return ""
    if is_applied and details.checksum != migration.checksum:
        return "it was changed after it had been applied, so its rollback may not fit; put the old text back"
    undone = migration.down.statements[: details.undone_count]
    if undone and ledger.digest(undone) != details.digest:
        return f"the first {len(undone)} statements of rollback/{name} have run, and the file now says something else"
    return ""


def _unmeasured(migrations: MigrationSet, name: str) -> Migrated:
    migration = migrations.get(name)
    return Migrated(name=name, duration_ms=0, statements=len(migration.statements) if migration else 0)
