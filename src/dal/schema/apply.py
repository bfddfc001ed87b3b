"""Bringing a database up, and taking migrations back.

The plan is made once without the lock, so that a database that lacks nothing costs two round trips, and again under it,
because another runner may have been at work meanwhile. Whatever interrupts a run (another runner that took over, an
answer that was lost), the ledger is read again under a new lock, and the run goes on from what it says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from time import perf_counter

from dal.errors import DalError, SchemaError, UnavailableError
from dal.limits import SCHEMA_BUSY_WAIT_S, SCHEMA_LOCK_WAIT_S, SCHEMA_LOST_ANSWERS
from dal.schema import ledger, lock
from dal.schema.connection import Connection, StatementError
from dal.schema.files import Migration, MigrationSet, library_set
from dal.schema.ledger import Details
from dal.schema.lock import Lease, LeaseLostError
from dal.schema.plan import Mine, Plan, plan
from dal.schema.progress import Migrated, OnProgress, Progress, ignore
from dal.schema.running import LostAnswerError, Runner


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
    tell = on_progress or ignore
    busy_wait_s = SCHEMA_BUSY_WAIT_S if wait_s is None else wait_s

    async def make_plan() -> Plan:
        found = await plan(connection, chosen, environment=environment, seed=seed, leave_out=leave_out, to=to)
        _refuse(found, allow)
        return found

    if not (await make_plan()).pending:
        return []
    done: dict[str, Migrated] = {}

    async def work(lease: Lease, in_doubt: str | None) -> None:
        found = await make_plan()
        if in_doubt is not None and all(migration.name != in_doubt for migration in found.pending):
            done.setdefault(in_doubt, _unmeasured(chosen, in_doubt))
        runner = Runner(
            connection=connection,
            lease=lease,
            schema_set=chosen.name,
            backup_ref=backup_ref,
            busy_wait_s=busy_wait_s,
            on_progress=tell,
        )
        for migration in found.pending:
            done[migration.name] = await runner.forward(migration, found.begun.get(migration.name))

    await under_lock(connection, work, on_progress=tell, wait_s=wait_s)
    return list(done.values())


async def down(
    connection: Connection,
    migrations: MigrationSet | None = None,
    *,
    steps: int = 1,
    to: str | None = None,
    on_progress: OnProgress | None = None,
    wait_s: float | None = None,
) -> list[Migrated]:
    """Takes the newest migrations of the set back, newest first, and says which.

    steps   how many.
    to      instead: all that were applied after this file; the file itself stays.
    Raises  SchemaError: a rollback is missing, or an applied file was edited or deleted (nothing has happened), or a
            rollback fails (it is rolled back, those before it stay taken back).  Others as `up`.
    """
    chosen = library_set(connection.engine) if migrations is None else migrations
    tell = on_progress or ignore
    wanted = [migration.name for migration, _ in _to_take_back(chosen, await _mine(connection, chosen), steps, to)]
    if not wanted:
        return []
    done: dict[str, Migrated] = {}

    async def work(lease: Lease, in_doubt: str | None) -> None:
        mine = await _mine(connection, chosen)
        # Only what was chosen before the lock: of two runners that take one step back, the second finds it gone.
        there = [name for name in wanted if name in mine.applied or name in mine.begun]
        if in_doubt is not None and in_doubt not in there:
            done.setdefault(in_doubt, _unmeasured(chosen, in_doubt))
        runner = Runner(
            connection=connection,
            lease=lease,
            schema_set=chosen.name,
            backup_ref=None,
            busy_wait_s=SCHEMA_BUSY_WAIT_S if wait_s is None else wait_s,
            on_progress=tell,
        )
        for migration, details in _checked(chosen, mine, there):
            done[migration.name] = await runner.back(migration, details)

    await under_lock(connection, work, on_progress=tell, wait_s=wait_s)
    return list(done.values())


async def under_lock(
    connection: Connection,
    work: Callable[[Lease, str | None], Awaitable[None]],
    *,
    on_progress: OnProgress = ignore,
    wait_s: float | None = None,
) -> None:
    """Does the work under the lock, and again when the lock or an answer was lost meanwhile. The work must begin by
    reading the ledger; it is given the name of the file whose answer was lost."""
    await _make_tables(connection)
    started = perf_counter()

    def waiting(who: str, _: float) -> None:
        elapsed_ms = round((perf_counter() - started) * 1000)
        on_progress(Progress(name="", statement=0, of=0, elapsed_ms=elapsed_ms, phase="waiting", detail=who))

    limit_s = SCHEMA_LOCK_WAIT_S if wait_s is None else wait_s
    former, lost = "", []
    while True:
        try:
            async with lock.held(connection, wait_s=limit_s, on_wait=waiting, former=former) as lease:
                former = lease.owner
                await work(lease, lost[-1].name if lost else None)
                return
        except LeaseLostError:
            continue
        except LostAnswerError as error:
            lost.append(error)
            if len(lost) > SCHEMA_LOST_ANSWERS:
                raise error.error from None
        except UnavailableError as error:
            if lost:  # what was sent then may have happened, whatever failed since
                error.outcome = "unknown"
            raise


def _refuse(found: Plan, allow: Collection[str]) -> None:
    refusals = found.refusals(allow)
    if not refusals:
        return
    shown = "; ".join(f"{finding}{f' ({finding.advice})' if finding.advice else ''}" for finding in refusals[:5])
    more = f"; and {len(refusals) - 5} more" if len(refusals) > 5 else ""
    raise SchemaError(f"{found.address}: nothing was applied: {shown}{more}", operation="schema.up")


async def _mine(connection: Connection, migrations: MigrationSet) -> Mine:
    return Mine(migrations, await ledger.read(connection))


def _to_take_back(
    migrations: MigrationSet, mine: Mine, steps: int, to: str | None
) -> list[tuple[Migration, Details | None]]:
    """Newest first. A file that was begun and not finished is the newest of all."""
    names = [*mine.begun, *reversed(mine.applied)]
    if to is not None:
        if to not in mine.applied:
            raise SchemaError(f"{to} is not applied; nothing was taken back", operation="schema.down")
        names = names[: names.index(to)]
    else:
        names = names[:steps]
    return _checked(migrations, mine, names)


def _checked(migrations: MigrationSet, mine: Mine, names: list[str]) -> list[tuple[Migration, Details | None]]:
    found: list[tuple[Migration, Details | None]] = []
    for name in names:
        migration = migrations.get(name)
        details = mine.applied[name].details if name in mine.applied else mine.begun[name]
        trouble = _cannot_go_back(migrations, migration, name, details)
        if migration is None or trouble:
            raise SchemaError(f"{name} cannot be taken back: {trouble} (nothing was done)", operation="schema.down")
        found.append((migration, details))
    return found


def _cannot_go_back(migrations: MigrationSet, migration: Migration | None, name: str, details: Details | None) -> str:
    if migration is None:
        return "it is not in the directory any more"
    if migration.down is None:
        return f"there is no rollback/{name}"
    wrong = [f for f in migrations.findings if f.severity == "error" and f.file == migration.down.name]
    if wrong:
        return str(wrong[0])
    if details is None:
        return ""
    if details.duration_ms is not None and details.checksum != migration.checksum:
        return "it was changed after it had been applied, so its rollback may not fit; put the old text back"
    undone = migration.down.statements[: details.undone_count]
    if undone and ledger.digest(undone) != details.digest:
        return f"the first {len(undone)} statements of rollback/{name} have run, and the file now says something else"
    return ""


def _unmeasured(migrations: MigrationSet, name: str) -> Migrated:
    migration = migrations.get(name)
    return Migrated(name=name, duration_ms=0, statements=len(migration.statements) if migration else 0)


async def _make_tables(connection: Connection) -> None:
    """The ledger's tables, where one is missing: a role that may not create any can still use them."""
    if ledger.is_whole(connection.engine, (await ledger.read(connection)).tables):
        return
    creation = ledger.creation(connection.engine)
    try:
        await connection.run(creation)
        return
    except UnavailableError as error:
        if error.outcome == "not_applied":
            raise
    except (StatementError, DalError):
        # PostgreSQL's IF NOT EXISTS is not safe against a twin, and fails in several ways. Each of them waits for the
        # twin's end, so by now its tables are there; where they are not, the second failure is the true one.
        pass
    try:
        await connection.run(creation)
    except StatementError as error:
        raise SchemaError(
            f"{connection.address}: the ledger's tables cannot be made: {error.reason}", operation="schema.up"
        ) from error
