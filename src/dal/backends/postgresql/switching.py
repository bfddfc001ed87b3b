"""Installing a live move in a PostgreSQL database, taking it away, and switching roles.

A lock on a table of the users' is taken in two steps: first one that stops no writer, for which autovacuum gives way
after a second; then the one for which writers under way must end, within FENCE_LOCK_TIMEOUT_S, for whoever comes
meanwhile queues behind it. Every setting is the transaction's own, so a pooler in transaction mode may stand between.
"""

# ruff: noqa: S608  (names come from dal.replica and from the catalogue, quoted)
from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from dal.backends.postgresql import capture, unowned
from dal.backends.postgresql.dialect import encode_array
from dal.backends.postgresql.errors import BACKEND
from dal.backends.sql import Executor, Statement, Violation
from dal.errors import ConflictError, SchemaError
from dal.limits import FENCE_LOCK_TIMEOUT_S, MIGRATION_LOCK_TIMEOUT_S, SCHEMA_BUSY_WAIT_S, STATEMENT_TIMEOUT_S
from dal.replica import EPOCH, UNIT_OF, UNITS, Gate
from dal.schema.patience import patiently
from dal.urls import SCHEMA_UP

#: One installer after another.
_ALONE: Final = Statement("SELECT pg_advisory_xact_lock(hashtextextended('dal move', 0))")
_COLUMNS: Final = ", ".join(Gate._fields)
_NO_WRITER: Final = "SHARE ROW EXCLUSIVE"
_NOBODY: Final = "ACCESS EXCLUSIVE"


async def install(executor: Executor, gates: Sequence[Gate]) -> None:
    """See dal.replica. Takes the right to create in the tables' schema, and to own them or make triggers on them."""
    schema, asking = await _schema(executor), await unowned.is_so(executor)
    await _make_objects(executor, schema, gates, asking=asking)
    make = _make_asking_triggers if asking else _make_triggers
    for table in capture.in_order(table for gate in gates for table in UNITS[gate.unit]):
        await _unhurried(lambda table=table: make(executor, schema, table))  # type: ignore[misc]


async def uninstall(executor: Executor, *, keep_fence: bool) -> None:
    """See dal.replica. Each table in a transaction of its own; what was dropped already is no error."""
    roles = await _roles(executor)
    if roles is None:
        return
    schema = await _schema(executor)
    fenced = [
        table for unit, role in roles.items() if keep_fence and role != "primary" for table in UNITS.get(unit, ())
    ]
    if keep_fence:
        await executor.batch([Statement("UPDATE dal_gate SET phase = 'RETIRED'")])
    gone = [Statement(text) for text in capture.drop_objects(schema, fenced, keep_gates=keep_fence)]
    if await unowned.is_so(executor):
        drop = [Statement(text) for text in unowned.drop_triggers(schema, fenced)]
        every = capture.in_order(UNIT_OF)
        await _unhurried(lambda: executor.batch([_ALONE, *_locks(schema, every, _NOBODY), *drop, *gone]))
        return
    for table in capture.in_order(UNIT_OF):
        drop = [Statement(text) for text in capture.drop_triggers(schema, table, keep_fence=table in fenced)]
        if await _triggers(executor, schema, table):
            await _unhurried(lambda: executor.batch([*_locks(schema, [table], _NOBODY), *drop]))  # noqa: B023
    # Writers that a trigger led here may still be under way.
    await _unhurried(lambda: executor.batch([_ALONE, patience(FENCE_LOCK_TIMEOUT_S), *gone]))


async def switch(executor: Executor, unit: str, role: str, changed: Statement, lifted: Sequence[Statement]) -> bool:
    """Changes the gate and what the role takes, in one round trip and one transaction; whether it did.

    changed  the conditional UPDATE of the gate; it gives a row where it did something.
    lifted   what goes with it.
    Raises   DalTimeoutError: writers under way did not end in time; nothing was changed.
    """
    schema = await _schema(executor)
    tables = capture.in_order(UNITS[unit])
    refused = "INSERT INTO dal_guard (ok) SELECT 0 WHERE NOT EXISTS (SELECT FROM changed)"
    check = Statement(f"WITH changed AS ({changed.sql}) {refused}", changed.params)
    if await unowned.is_so(executor):
        # Alone first: those who hold the gate's row have ended then, and nobody waits for one who waits for him.
        statements = [patience(FENCE_LOCK_TIMEOUT_S), unowned.alone(unit), check, *lifted]
    else:
        # The check first, and at the price of the batch: where it fails, no table is locked or altered.
        statements = [check, *_locks(schema, tables, _NO_WRITER), *lifted]
        statements += [Statement(capture.enforce(schema, table, primary=role == "primary")) for table in tables]
    try:
        await executor.batch(statements)
    except Violation as violation:
        if violation.kind != "check":
            raise
        return False
    return True


def lift(unit: str, version: int) -> Statement:
    """Makes every later version of the unit larger than this one; a counter beyond it stays."""
    name = capture.sequence_of(unit)
    return Statement(f"SELECT setval('{name}', {version:d}) FROM {name} WHERE last_value < {version:d}")


# Installing ----------------------------------------------------------------------------------------------------------


async def _make_objects(executor: Executor, schema: str, gates: Sequence[Gate], *, asking: bool) -> None:
    """The registry, the functions and the gates: nothing that any writer would meet."""
    values = ", ".join("%s" for _ in Gate._fields)
    taken_over = ", ".join(f"{name} = EXCLUDED.{name}" for name in Gate._fields)
    add = (
        f"INSERT INTO dal_gate ({_COLUMNS}) VALUES ({values}) ON CONFLICT (unit) DO UPDATE SET {taken_over} "
        "WHERE dal_gate.move <> EXCLUDED.move AND dal_gate.phase = 'RETIRED'"
    )
    foreign = "SELECT 0 WHERE EXISTS (SELECT FROM dal_gate WHERE move <> %s AND phase <> 'RETIRED')"
    try:
        await executor.batch(
            [
                _ALONE,
                *(Statement(text) for text in capture.objects(schema, asking=asking)),
                *(Statement(text) for text in (unowned.objects(schema) if asking else ())),
                Statement(capture.grants(schema)),
                *(
                    Statement(f"INSERT INTO dal_guard (ok) {foreign}", (move,))
                    for move in {gate.move for gate in gates}
                ),
                *(Statement(add, tuple(gate)) for gate in gates),
                *(lift(gate.unit, gate.epoch * EPOCH) for gate in gates),
            ]
        )
    except Violation as violation:
        raise ConflictError(
            "another move is installed in this database; end it with `dal move retire` or `dal move abort`",
            operation="install",
            backend=BACKEND,
        ) from violation.__cause__


async def _make_triggers(executor: Executor, schema: str, table: str) -> None:
    while True:
        primary = (await _roles(executor) or {}).get(UNIT_OF[table]) == "primary"
        if await _is_enforced(executor, schema, table, primary=primary):
            return
        made = [Statement(capture.create_trigger(schema, table, name)) for name in capture.triggers(table)]
        as_read = "SELECT 0 WHERE NOT EXISTS (SELECT FROM dal_gate WHERE unit = %s AND (role = 'primary') = %s)"
        try:
            await executor.batch(
                [
                    *_locks(schema, [table], _NO_WRITER),
                    Statement(f"INSERT INTO dal_guard (ok) {as_read}", (UNIT_OF[table], primary)),
                    *made,
                    Statement(capture.enforce(schema, table, primary=primary)),
                ]
            )
        except Violation:
            continue  # the role was switched meanwhile
        return


async def _make_asking_triggers(executor: Executor, schema: str, table: str) -> None:
    if set(await _triggers(executor, schema, table)) == set(capture.triggers(table)):
        return
    made = [Statement(capture.create_trigger(schema, table, name)) for name in capture.triggers(table)]
    await executor.batch([*_locks(schema, [table], _NO_WRITER), *made])


async def _is_enforced(executor: Executor, schema: str, table: str, *, primary: bool) -> bool:
    wanted = {name: name in capture.enabled(table, primary=primary) for name in capture.triggers(table)}
    return await _triggers(executor, schema, table) == wanted


# Pieces --------------------------------------------------------------------------------------------------------------


def _locks(schema: str, tables: Sequence[str], mode: str) -> list[Statement]:
    return [
        patience(MIGRATION_LOCK_TIMEOUT_S),
        Statement(capture.lock(schema, tables, "SHARE UPDATE EXCLUSIVE")),
        # The limit is for all of the tables together.
        patience(FENCE_LOCK_TIMEOUT_S, statement_s=FENCE_LOCK_TIMEOUT_S),
        Statement(capture.lock(schema, tables, mode)),
        patience(FENCE_LOCK_TIMEOUT_S),
    ]


def patience(lock_s: float, *, statement_s: float = STATEMENT_TIMEOUT_S) -> Statement:
    return Statement(
        "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)",
        (str(int(lock_s * 1000)), str(int(statement_s * 1000))),
    )


async def _unhurried(step: Callable[[], Awaitable[object]]) -> None:
    """Takes the step again and again while writers are in its way."""

    async def pause(_said: str) -> None:
        return None

    await patiently(step, wait_s=SCHEMA_BUSY_WAIT_S, meanwhile=pause)


async def _schema(executor: Executor) -> str:
    found = await executor.fetch(
        Statement(
            "SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.oid = to_regclass('messages')",
            returns=True,
        )
    )
    if not found:
        raise SchemaError(f"a table is not there; {SCHEMA_UP}", operation="move", backend=BACKEND)
    return str(found[0][0])


async def _roles(executor: Executor) -> dict[str, str] | None:
    """The role of each unit; None where no move is installed."""
    if not (await executor.fetch(Statement("SELECT 1 WHERE to_regclass('dal_gate') IS NOT NULL", returns=True))):
        return None
    rows = await executor.fetch(Statement("SELECT unit, role FROM dal_gate", returns=True))
    return {str(unit): str(role) for unit, role in rows}


async def _triggers(executor: Executor, schema: str, table: str) -> dict[str, bool]:
    """Those of the move's triggers that the table has, and whether each is enabled, for everybody."""
    place = f"{capture.quoted(schema)}.{table}"
    names = encode_array(list(capture.triggers(table)))
    found = await executor.fetch(
        Statement(
            "SELECT tgname::text, tgenabled = 'A' FROM pg_trigger "
            "WHERE tgrelid = %s::regclass AND tgname = ANY (%s::text[])",
            (place, names),
            returns=True,
        )
    )
    return {str(name): bool(enabled) for name, enabled in found}
