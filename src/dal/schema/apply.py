"""Where a database stands, and bringing it up.

Each file is one transaction together with its ledger row. Two runners at once are harmless: the ledger row is written
first and is unique, so each file is applied exactly once and both end well.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import version
from time import perf_counter

from dal.errors import DalError, SchemaError, UnavailableError
from dal.schema import ledger
from dal.schema.connection import AlreadyAppliedError, Connection
from dal.schema.files import Migration, migrations
from dal.schema.ledger import Applied


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaStatus:
    """Where a database stands.

    applied  the ledger, in order, other teams' migrations included.
    pending  the library's migrations that are not applied, in order; `required` are those it cannot work without.
    newer    applied migrations numbered above every one this library knows: it is older than the database.
    empty    the database holds no table at all.
    """

    address: str
    applied: tuple[Applied, ...]
    pending: tuple[str, ...]
    required: tuple[str, ...]
    newer: tuple[str, ...]
    empty: bool
    version: str

    def require_usable(self) -> None:
        """Raises SchemaError where this library must not work with the database; it says what to do."""
        self._require_known()
        if not self.required:
            return
        found = f"is at {self.version} and lacks {', '.join(self.required)}" if self.version else "holds no dal schema"
        raise SchemaError(f"{self.address} {found}; run `dal schema up --url {self.address}`", operation="open")

    def _require_known(self) -> None:
        if self.newer:
            raise SchemaError(
                f"{self.address} holds {', '.join(self.newer)}, which this library does not know; "
                "upgrade the library (nothing was written)",
                operation="open",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """One migration that `up` applied, and how long it took."""

    name: str
    duration_ms: int


async def status(connection: Connection) -> SchemaStatus:
    """Where the database stands. Writes nothing."""
    tables = await ledger.table_names(connection)
    done = await ledger.applied(connection, tables)
    names = {row.name for row in done}
    known = migrations(connection.engine)
    pending = [m for m in known if m.name not in names]
    ours = [m.name for m in known if m.name in names]
    highest = known[-1].number
    return SchemaStatus(
        address=connection.address,
        applied=done,
        pending=tuple(m.name for m in pending),
        required=tuple(m.name for m in pending if not m.optional),
        newer=tuple(row.name for row in done if _number(row.name) > highest),
        empty=not tables,
        version=ours[-1].partition(".")[0] if ours else "",
    )


async def up(connection: Connection, *, leave_out: Collection[str] = ()) -> list[Migrated]:
    """Applies what is pending, in order, and says what it applied; safe to repeat and to run twice at once.

    leave_out  file names of optional migrations to leave pending, as `0002_search.sql`.
    Raises     SchemaError: the database is newer, a name in `leave_out` is not an optional migration, or a file fails
               (its transaction is rolled back; files before it stay).
    """
    known = {m.name: m for m in migrations(connection.engine)}
    for name in leave_out:
        if name not in known or not known[name].optional:
            optional = ", ".join(m.name for m in known.values() if m.optional)
            raise SchemaError(f"{name} cannot be left out; what can: {optional}", operation="schema.up")
    before = await status(connection)
    before._require_known()
    chosen = [known[name] for name in before.pending if name not in leave_out]
    if chosen:
        await _make_ledger(connection)
    found = [await _apply(connection, migration) for migration in chosen]
    return [migrated for migrated in found if migrated is not None]


async def _make_ledger(connection: Connection) -> None:
    try:
        await connection.run(ledger.creation(connection.engine))
    except UnavailableError:
        raise
    except (AlreadyAppliedError, DalError):
        # PostgreSQL's IF NOT EXISTS is not safe against a twin, and fails in several ways. Each of them waits for the
        # twin's end, so by now its tables are there; where they are not, the second failure is the true one.
        await connection.run(ledger.creation(connection.engine))


async def _apply(connection: Connection, migration: Migration) -> Migrated | None:
    """None when another runner was faster."""
    engine = connection.engine
    started = perf_counter()
    statements = ledger.entry(engine, migration, version("dal"))
    statements += [(sql, ()) for sql in migration.statements]
    try:
        await connection.run(statements)
    except AlreadyAppliedError as error:
        if any(row.name == migration.name for row in (await status(connection)).applied):
            return None
        raise SchemaError(
            f"{connection.address}: {migration.name} failed and was rolled back: a unique key refused one of its rows",
            operation="schema.up",
        ) from error
    except UnavailableError:
        raise
    except DalError as error:
        raise SchemaError(
            f"{connection.address}: {migration.name} failed and was rolled back: {error.message}", operation="schema.up"
        ) from error
    duration_ms = round((perf_counter() - started) * 1000)
    await connection.run(ledger.duration(engine, migration.name, duration_ms))
    return Migrated(name=migration.name, duration_ms=duration_ms)


def _number(name: str) -> int:
    digits = name.partition("_")[0]
    return int(digits) if digits.isdecimal() else 0
