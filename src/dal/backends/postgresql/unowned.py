"""A live move by a role that may make triggers on the tables and does not own them.

Only an owner may enable and disable a trigger. So here all of them stay enabled, and ask the gate: a writer's statement
takes its unit's lock, shared and for its transaction, and then reads the role; a switch takes that lock alone, so it
waits for every writer under way, and those that come meanwhile wait behind it. The lock is an advisory one, whose queue
is in order: writers that shared a lock on the gate's row would pass a switch that waits for it, again and again. A
transaction whose snapshot may be older than the switch must not read the role from it, so it locks the row as well,
which PostgreSQL refuses where the role was changed since (40001).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dal.backends.postgresql.capture import is_child, quoted
from dal.backends.postgresql.dialect import encode_array
from dal.backends.sql import Executor, Statement
from dal.replica import UNIT_OF

#: With the role in a unique index its change is that of a key, which FOR KEY SHARE does not pass; one of notes is not.
_INDEX: Final = "CREATE UNIQUE INDEX IF NOT EXISTS dal_gate_role ON {schema}.dal_gate (unit, role)"
_ROLE: Final = """CREATE OR REPLACE FUNCTION {schema}.dal_role(asked TEXT) RETURNS TEXT
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    found TEXT;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('dal move ' || asked, 0));
    IF current_setting('transaction_isolation') = 'read committed' THEN
        SELECT role INTO found FROM {schema}.dal_gate WHERE unit = asked;
    ELSE
        SELECT role INTO found FROM {schema}.dal_gate WHERE unit = asked FOR KEY SHARE;
    END IF;
    RETURN found;
END
$body$"""
_IS_SO: Final = """
    SELECT CASE WHEN to_regclass('dal_gate') IS NULL THEN NOT bool_and(pg_has_role(c.relowner, 'USAGE'))
        ELSE to_regclass('dal_gate_role') IS NOT NULL END
    FROM unnest(%s::text[]) AS given (name) JOIN pg_class AS c ON c.oid = to_regclass(given.name)"""


def objects(schema: str) -> list[str]:
    """Statements that make what the functions of capture.py ask, behind its tables."""
    place = quoted(schema)
    return [_ROLE.format(schema=place), _INDEX.format(schema=place)]


async def is_so(executor: Executor) -> bool:
    """Whether a move is made in this way: the one that is installed, or else the one that this role can make."""
    found = await executor.fetch(Statement(_IS_SO, (encode_array(list(UNIT_OF)),), returns=True))
    return bool(found[0][0])


def alone(unit: str) -> Statement:
    """Waits for the writers of the unit that are under way, and keeps others waiting until the transaction ends."""
    return Statement("SELECT pg_advisory_xact_lock(hashtextextended('dal move ' || %s::text, 0))", (unit,))


def drop_triggers(schema: str, fenced: Iterable[str]) -> list[str]:
    """Drops the functions, and the triggers with them: only an owner may drop those by themselves.

    What the fences of the tables in `fenced` need is kept. Takes ACCESS EXCLUSIVE on all tables.
    """
    place, kept = quoted(schema), set(fenced)
    gone = [f"dal_capture_{table}" for table in UNIT_OF]
    gone += [f"dal_fence_{table}" for table in UNIT_OF if is_child(table) and table not in kept]
    if not kept:
        gone += ["dal_fence_statement", "dal_no_truncate"]
    found = [f"DROP FUNCTION IF EXISTS {place}.{name}() CASCADE" for name in gone]
    return found if kept else [*found, f"DROP FUNCTION IF EXISTS {place}.dal_role(TEXT)"]
